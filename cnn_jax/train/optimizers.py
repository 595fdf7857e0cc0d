"""Optimisers by name, with options that work with all of them: a thin layer over optax that checks its arguments.

Gradient accumulation and the moving average of the weights are not part of the optimiser: see
:func:`cnn_jax.train.step.make_step`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree
from optax import contrib

from cnn_jax.errors import UsageError, nearest
from cnn_jax.nn.parameters import matching, parameter_names
from cnn_jax.ops.arguments import Number, is_traced, may_differ_from_zero
from cnn_jax.train.schedules import with_standard_promotion

_LOOKAHEAD_PERIOD = 5  # as in the paper's experiments


def create_optimizer(
    name: str,
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: Number = 0.9,
    weight_decay: Number = 0.0,
    clip_norm: Number = 0.0,
    lookahead: int = 0,
    rate_factors: Sequence[tuple[str, float]] = (),
    max_norms: Sequence[tuple[str, float]] = (),
    params: PyTree | None = None,
) -> optax.GradientTransformation:
    """An optimiser by name. The structure of its state depends only on these options.

    Args:
      name: ``'sgd'`` (with momentum), ``'nesterov'``, ``'adagrad'``, ``'adadelta'``, ``'rmsprop'``, ``'adam'``,
        ``'adamw'``, ``'lars'`` or ``'muon'``; or ``'lookahead'``: SGD with momentum, with ``lookahead=5`` if none is
        given.
      learning_rate: A number or a schedule.
      momentum: The momentum of SGD, RMSprop, LARS and Muon; Adam's first decay rate; Adadelta's decay
        rate; Adagrad has none.
      weight_decay: The weight decay of the kernels; biases and norms have none. AdamW and Muon use decoupled weight
        decay. The others add it to the gradient (an L2 penalty).
      clip_norm: The largest global norm of the gradient, over all parameters together; 0 for no limit.
      lookahead: After so many steps the parameters move half of the way back to the slow weights; 0 for never.
      rate_factors: Pairs of a pattern of parameter names (``'c1/*'``, ``'*/bias'``, or ``'c1'`` for everything in it)
        and a factor for the updates of the parameters that match it. In SGD this equals a factor for their learning
        rate. If several patterns match, the first counts.
      max_norms: Pairs of a pattern and the largest Euclidean norm of the weights into a unit, over all axes of a
        parameter but the last. After a step, larger weights are scaled to this norm.
      params: The parameters, or their shapes; needed to check the patterns.

    Raises:
      UsageError: The name is unknown, a number is out of its range, or no parameter matches a pattern.

    References:
      Duchi et al., Adaptive subgradient methods, 2011 (Adagrad). Zeiler, ADADELTA, 2012. Tieleman and Hinton, lecture
      6.5, 2012 (RMSprop). Kingma and Ba, Adam, 2015. Loshchilov and Hutter, Decoupled weight decay regularization, 2019
      (AdamW). You et al., Large batch training of convolutional networks, 2017 (LARS). Jordan et al., Muon, 2024, with
      the scale of Liu et al., Muon is scalable for LLM training, 2025, so that it can use AdamW's learning rates.
      Pascanu et al., On the difficulty of training recurrent neural networks, 2013 (clipping). Zhang et al., Lookahead
      optimizer, 2019. Hinton et al., Improving neural networks by preventing co-adaptation, 2012 (largest norms).

    >>> optimizer = create_optimizer("sgd", 0.1, momentum=0.0)
    >>> params = {"w": jax.numpy.zeros(1)}
    >>> updates, _ = optimizer.update({"w": jax.numpy.ones(1)}, optimizer.init(params), params)
    >>> float(updates["w"][0])
    -0.10000000149011612
    """
    if name == "lookahead":
        name, lookahead = "sgd", lookahead or _LOOKAHEAD_PERIOD
    if name not in _OPTIMIZERS:
        raise UsageError(f"optimizer.name={name!r} is unknown; {nearest(name, [*_OPTIMIZERS, 'lookahead'])}")
    if not is_traced(momentum) and not 0 <= momentum < 1:
        raise UsageError(f"optimizer.momentum={momentum} must be at least 0 and below 1")
    for option, value in (("weight_decay", weight_decay), ("clip_norm", clip_norm), ("lookahead", lookahead)):
        if not is_traced(value) and value < 0:
            raise UsageError(f"optimizer.{option}={value} must not be negative")
    optimizer = _OPTIMIZERS[name](learning_rate, momentum, weight_decay)
    if may_differ_from_zero(clip_norm):
        optimizer = optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
    if rate_factors:
        optimizer = optax.chain(optimizer, _scaled(rate_factors, params))
    if max_norms:
        optimizer = optax.chain(optimizer, _within_norms(max_norms, params))
    if lookahead:
        optimizer = _lookahead(optimizer, lookahead)
    return optimizer._replace(
        init=with_standard_promotion(optimizer.init), update=with_standard_promotion(optimizer.update)
    )


def decayed(params: PyTree) -> PyTree:
    """A mask of the parameters with weight decay: kernels, but not biases or the scales of norms (rank < 2)."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def updates_made(opt_state: PyTree, *, default: Int[Array, ""]) -> Int[Array, ""]:
    """The number of updates that the schedule of an optimiser has counted; skipped steps are not counted.

    Args:
      opt_state: The state of the optimiser.
      default: The result for an optimiser without a schedule.

    >>> int(updates_made(create_optimizer("sgd", lambda step: 0.1).init({}), default=jnp.int32(3)))
    0
    """

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    nodes = jax.tree.leaves(opt_state, is_leaf=is_schedule)
    return next((node.count for node in nodes if is_schedule(node)), default)


# --- by name ----------------------------------------------------------------------------------------------------------

_Build = Callable[[optax.ScalarOrSchedule, Number, Number], optax.GradientTransformation]


def _with_penalty(direction: Callable[[Number], optax.GradientTransformation]) -> _Build:
    def build(rate: optax.ScalarOrSchedule, momentum: Number, decay: Number) -> optax.GradientTransformation:
        penalty = optax.add_decayed_weights(decay, mask=decayed)
        return optax.chain(penalty, direction(momentum), optax.scale_by_learning_rate(rate))

    return build


def _adamw(rate: optax.ScalarOrSchedule, momentum: Number, decay: Number) -> optax.GradientTransformation:
    return optax.adamw(rate, b1=momentum, weight_decay=decay, mask=decayed)


def _lars(rate: optax.ScalarOrSchedule, momentum: Number, decay: Number) -> optax.GradientTransformation:
    return optax.lars(rate, decay, decayed, trust_ratio_mask=decayed, momentum=momentum)


def _muon(rate: optax.ScalarOrSchedule, momentum: Number, decay: Number) -> optax.GradientTransformation:
    """Muon for kernels, as matrices of shape (all input axes, output channels); Adam for all other parameters."""

    def matrices(params: PyTree) -> PyTree:
        def axes(leaf: Array) -> contrib.MuonDimensionNumbers | None:
            return contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1) if leaf.ndim > 1 else None

        return jax.tree.map(axes, params)

    return contrib.muon(
        rate,
        beta=momentum,
        weight_decay=decay,
        muon_weight_dimension_numbers=matrices,
        consistent_rms=0.2,
    )


_OPTIMIZERS: dict[str, _Build] = {
    "sgd": _with_penalty(lambda momentum: optax.trace(momentum)),
    "nesterov": _with_penalty(lambda momentum: optax.trace(momentum, nesterov=True)),
    "adagrad": _with_penalty(lambda momentum: optax.scale_by_rss(initial_accumulator_value=0.0, eps=1e-10)),
    "adadelta": _with_penalty(lambda momentum: optax.scale_by_adadelta(rho=momentum, eps=1e-6)),
    "rmsprop": _with_penalty(
        lambda momentum: optax.chain(optax.scale_by_rms(eps_in_sqrt=False), optax.trace(momentum))
    ),
    "adam": _with_penalty(lambda momentum: optax.scale_by_adam(b1=momentum)),
    "adamw": _adamw,
    "lars": _lars,
    "muon": _muon,
}


# --- options of all optimisers ----------------------------------------------------------------------------------------


class LookaheadState(NamedTuple):
    """The steps since the slow weights moved, the slow weights, and the state of the inner optimiser."""

    steps: Int[Array, ""]
    slow: PyTree
    inner: Any


def _lookahead(inner: optax.GradientTransformation, period: int) -> optax.GradientTransformation:
    """Lookahead that keeps the slow weights in its state; optax's changes the parameters to pairs instead."""

    def init(params: PyTree) -> LookaheadState:
        return LookaheadState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params), inner.init(params))

    def update(gradients: PyTree, state: LookaheadState, params: PyTree) -> tuple[PyTree, LookaheadState]:
        updates, inner_state = inner.update(gradients, state.inner, params)
        steps = (state.steps + 1) % period
        back = steps == 0

        def half_way(slow: Array, param: Array, step: Array) -> Array:
            return jnp.where(back, (slow + param + step) / 2, slow)

        slow = jax.tree.map(half_way, state.slow, params, updates)
        updates = jax.tree.map(lambda slow, param, step: jnp.where(back, slow - param, step), slow, params, updates)
        return updates, LookaheadState(steps, slow, inner_state)

    return optax.GradientTransformation(init, update)


def _scaled(factors: Sequence[tuple[str, float]], params: PyTree | None) -> optax.GradientTransformation:
    factor = _by_pattern("rate_factors", factors, params)
    return optax.stateless(
        lambda updates, _: jax.tree.map(
            lambda name, update: factor(name, 1.0) * update, parameter_names(updates), updates
        )
    )


def _within_norms(norms: Sequence[tuple[str, float]], params: PyTree | None) -> optax.GradientTransformation:
    largest = _by_pattern("max_norms", norms, params)
    if not all(norm > 0 for _, norm in norms):
        raise UsageError(f"optimizer.max_norms={norms!r}: norms must be above 0")

    def bounded(name: str, update: Array, param: Array) -> Array:
        if not (limit := largest(name, 0.0)):
            return update
        moved = param + update
        norm = jnp.sqrt(jnp.square(moved).sum(axis=tuple(range(moved.ndim - 1)), keepdims=True))
        return moved * (limit / jnp.maximum(norm, limit)) - param

    return optax.stateless(lambda updates, params: jax.tree.map(bounded, parameter_names(updates), updates, params))


def _by_pattern(
    option: str, pairs: Sequence[tuple[str, float]], params: PyTree | None
) -> Callable[[str, float], float]:
    """The number of the first pattern that a parameter's name matches, as a function of it and a default."""
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs):
        raise UsageError(f"optimizer.{option}={pairs!r} must be pairs, such as (('*/bias', 2.0),)")
    names = jax.tree.leaves(parameter_names(params))
    for pattern, _ in pairs:
        if not any(matching(name, [pattern]) for name in names):
            groups = {name.rpartition("/")[0] for name in names}
            near = nearest(pattern, {*names, *groups})
            raise UsageError(f"optimizer.{option}={pattern!r} matches no parameter that is trained; {near}")

    def number(name: str, default: float) -> float:
        return next((number for pattern, number in pairs if matching(name, [pattern])), default)

    return number
