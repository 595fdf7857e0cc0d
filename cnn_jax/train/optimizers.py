"""Optimisers and learning-rate schedules by name: a thin, checked face over optax."""

from collections.abc import Callable

import jax
import optax
from jaxtyping import PyTree

from cnn_jax.errors import UsageError, nearest

# Each turns a gradient into a direction; decay, learning rate and sign are added by `create_optimizer`.
_DIRECTIONS: dict[str, Callable[[float], optax.GradientTransformation]] = {
    "sgd": lambda momentum: optax.trace(momentum),
    "nesterov": lambda momentum: optax.trace(momentum, nesterov=True),
    "adam": lambda momentum: optax.scale_by_adam(b1=momentum),
    "rmsprop": lambda momentum: optax.chain(optax.scale_by_rms(), optax.trace(momentum)),
    "adagrad": lambda momentum: optax.scale_by_rss(),
}
_L2_PENALTY = ("sgd", "nesterov")  # for these the decay is part of the gradient; for the adaptive ones it is decoupled
_SCHEDULES = ("constant", "cosine", "linear")


def learning_rate_schedule(
    name: str, peak: float, *, total_steps: int, warmup_steps: int = 0, end_factor: float = 0.0
) -> optax.Schedule:
    """The learning rate as a function of the step: a linear warm-up, then the named decay until the last step.

    Args:
      name: ``'constant'``, ``'cosine'`` (Loshchilov & Hutter, 2017) or ``'linear'``.
      peak: the learning rate after the warm-up.
      total_steps: the number of steps of the whole run, warm-up included.
      warmup_steps: the number of steps over which the rate rises from zero.
      end_factor: the last learning rate as a fraction of the peak.

    Raises:
      UsageError: an unknown name, or a warm-up that is longer than the run.

    >>> rate = learning_rate_schedule("linear", 1.0, total_steps=10, warmup_steps=2)
    >>> [float(rate(step)) for step in (0, 1, 2, 6, 10)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if name not in _SCHEDULES:
        raise UsageError(f"optimizer.schedule={name!r} is unknown; {nearest(name, _SCHEDULES)}")
    if not 0 <= warmup_steps < total_steps:
        raise UsageError(
            f"the warm-up of {warmup_steps} steps does not fit a run of {total_steps}; shorten optimizer.warmup_epochs"
        )
    decay_steps = total_steps - warmup_steps
    decay = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, decay_steps, alpha=end_factor),
        "linear": optax.linear_schedule(peak, peak * end_factor, decay_steps),
    }[name]
    if warmup_steps == 0:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup_steps), decay], [warmup_steps])


def decayed(params: PyTree) -> PyTree:
    """Which parameters weight decay may touch: kernels, but neither biases nor the scales of norms (rank < 2)."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def create_optimizer(
    name: str, learning_rate: optax.ScalarOrSchedule, *, momentum: float = 0.9, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """An optimiser by name, whose state always has the same structure for one name.

    Args:
      name: ``'sgd'`` (with momentum), ``'nesterov'``, ``'adam'``, ``'rmsprop'`` or ``'adagrad'``.
      learning_rate: a number or a schedule.
      momentum: the momentum of SGD and RMSprop, Adam's first decay rate; Adagrad has none.
      weight_decay: a pull on the kernels towards zero, biases and norms spared. For SGD it is added to the gradient
        (the classical L2 penalty); for the adaptive ones it is decoupled (AdamW: Loshchilov & Hutter, 2019).

    Raises:
      UsageError: an unknown name, or a number out of its range.

    >>> optimizer = create_optimizer("sgd", 0.1, momentum=0.0)
    >>> params = {"w": jax.numpy.zeros(1)}
    >>> updates, _ = optimizer.update({"w": jax.numpy.ones(1)}, optimizer.init(params), params)
    >>> float(updates["w"][0])
    -0.10000000149011612
    """
    if name not in _DIRECTIONS:
        raise UsageError(f"optimizer.name={name!r} is unknown; {nearest(name, _DIRECTIONS)}")
    if not 0 <= momentum < 1:
        raise UsageError(f"optimizer.momentum={momentum} must be at least 0 and below 1")
    if weight_decay < 0:
        raise UsageError(f"optimizer.weight_decay={weight_decay} must not be negative")
    decay = optax.add_decayed_weights(weight_decay, mask=decayed)
    direction = _DIRECTIONS[name](momentum)
    parts = (decay, direction) if name in _L2_PENALTY else (direction, decay)
    return optax.chain(*parts, optax.scale_by_learning_rate(learning_rate))
