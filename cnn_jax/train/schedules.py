"""Learning rates as functions of the step, by name."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from cnn_jax.errors import UsageError, nearest
from cnn_jax.ops.arguments import Number, is_traced

P = ParamSpec("P")
T = TypeVar("T")
_SCHEDULES = ("constant", "cosine", "linear", "one_cycle", "step")
_ONE_CYCLE_RISE = 0.3  # the warm-up as a fraction of the run, if none is given
_ONE_CYCLE_START = 1 / 25  # the first learning rate as a fraction of the peak


def learning_rate_schedule(
    name: str,
    peak: Number,
    *,
    total_steps: int,
    warmup_steps: int = 0,
    end_factor: Number = 0.0,
    drops: Sequence[int] = (),
    drop_factor: float = 0.1,
) -> optax.Schedule:
    """The learning rate as a function of the step: a linear warm-up, then a decay until the last step.

    Args:
      name: The decay. ``'constant'``; ``'cosine'`` (Loshchilov & Hutter, 2017) or ``'linear'``, down to the end factor;
        ``'step'``, a drop at each of ``drops``; or ``'one_cycle'`` (Smith & Topin, 2018): during the warm-up (by
        default 30% of the run) a cosine from 1/25 of the peak up to it, then a cosine down to the end factor.
      peak: The highest learning rate.
      total_steps: The number of steps of the whole run, including the warm-up.
      warmup_steps: The number of steps over which the rate rises; from zero, except for ``'one_cycle'``.
      end_factor: The last learning rate as a fraction of the peak; for cosine, linear and one_cycle.
      drops: The steps at which ``'step'`` multiplies the rate by the drop factor, counted from the start of the run.
      drop_factor: The factor of each drop.

    Raises:
      UsageError: The name is unknown, the rate is negative, the warm-up is longer than the run, the drops are not in
        order within the run, or ``'step'`` has none.

    >>> rate = learning_rate_schedule("linear", 1.0, total_steps=10, warmup_steps=2)
    >>> [float(rate(step)) for step in (0, 1, 2, 6, 10)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if name not in _SCHEDULES:
        raise UsageError(f"optimizer.schedule={name!r} is unknown; {nearest(name, _SCHEDULES)}")
    if not is_traced(peak) and peak < 0:
        raise UsageError(f"optimizer.learning_rate={peak} must not be negative")
    if not 0 <= warmup_steps < total_steps:
        raise UsageError(
            f"the warm-up of {warmup_steps} steps does not fit a run of {total_steps}; shorten optimizer.warmup"
        )
    if bool(drops) != (name == "step"):
        raise UsageError(
            f"optimizer.schedule={name!r} with optimizer.drops={tuple(drops)}: "
            "'step' needs drops such as ('30 epochs', '60 epochs'), and only 'step' has them"
        )
    edges = [warmup_steps, *drops, total_steps]
    if any(after <= before for before, after in itertools.pairwise(edges)):
        raise UsageError(
            f"optimizer.drops at steps {tuple(drops)} must be in order, after the warm-up of {warmup_steps} steps "
            f"and before the end at {total_steps}"
        )
    if name == "one_cycle":
        warmup_steps = warmup_steps or round(_ONE_CYCLE_RISE * total_steps)
        rise = _cosine_rise(peak, warmup_steps)
    else:
        rise = optax.linear_schedule(0.0, peak, warmup_steps)
    decay_steps = total_steps - warmup_steps
    if name == "constant":
        decay = optax.constant_schedule(peak)
    elif name == "linear":
        decay = optax.linear_schedule(peak, peak * end_factor, decay_steps)
    elif name == "step":
        decay = optax.piecewise_constant_schedule(peak, {drop - warmup_steps: drop_factor for drop in drops})
    else:
        decay = optax.cosine_decay_schedule(peak, decay_steps, alpha=end_factor)
    rate = optax.join_schedules([rise, decay], [warmup_steps]) if warmup_steps else decay
    return with_standard_promotion(rate)


def with_standard_promotion(function: Callable[P, T]) -> Callable[P, T]:
    """Wraps a function of optax so that it runs with JAX's standard type promotion, whatever promotion is set.

    Optax mixes dtypes, for example in ``decay**step``, so Adam fails with ``jax_numpy_dtype_promotion='strict'``.

    >>> with jax.numpy_dtype_promotion("strict"):
    ...     float(with_standard_promotion(lambda step: 0.5**step)(jnp.int32(2)))
    0.25
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        __tracebackhide__ = True  # a traceback shows the caller and the function, but not this frame
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return function(*args, **kwargs)

    return run


def _cosine_rise(peak: Number, steps: int) -> optax.Schedule:
    def rate(step: int | Array) -> Array:
        part = (1 - jnp.cos(jnp.pi * jnp.minimum(step / max(steps, 1), 1))) / 2
        return peak * (_ONE_CYCLE_START + (1 - _ONE_CYCLE_START) * part)

    return rate
