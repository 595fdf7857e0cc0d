"""Losses of regression: the errors of outputs against real targets, as one number for each example."""

import jax.numpy as jnp
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, Number, as_array, check_number, is_traced
from cnn_jax.ops.labels import read_outputs


def mean_squared_error(outputs: Shaped[AnyArray, "..."], targets: Shaped[AnyArray, "..."]) -> Shaped[Array, "..."]:
    """Mean squared difference between outputs and real targets, per example.

    Args:
      outputs: ``(*batch, K)``; half precision is computed in float32.
      targets: Real numbers ``(*batch, K)``.

    Returns:
      ``(*batch)``, float32 or float64: the mean over the K outputs.

    Raises:
      UsageError: Targets of another shape; nothing is broadcast.

    >>> mean_squared_error(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 4.0]]))
    Array([2.], dtype=float32)
    """
    return jnp.square(_difference("mean_squared_error", outputs, targets)).mean(axis=-1)


def mean_absolute_error(outputs: Shaped[AnyArray, "..."], targets: Shaped[AnyArray, "..."]) -> Shaped[Array, "..."]:
    """Mean absolute difference between outputs and real targets, per example.

    Args:
      outputs: ``(*batch, K)``; half precision is computed in float32.
      targets: Real numbers ``(*batch, K)``.

    Returns:
      ``(*batch)``, float32 or float64: the mean over the K outputs. The gradient of a difference of 0 is 0.

    Raises:
      UsageError: Targets of another shape; nothing is broadcast.

    >>> mean_absolute_error(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 4.0]]))
    Array([1.], dtype=float32)
    """
    return jnp.abs(_difference("mean_absolute_error", outputs, targets)).mean(axis=-1)


def huber_loss(
    outputs: Shaped[AnyArray, "..."], targets: Shaped[AnyArray, "..."], *, delta: Number = 1.0
) -> Shaped[Array, "..."]:
    """Huber's loss of outputs and real targets, per example: e² / 2 up to ``delta``, beyond it linear in e.

    Args:
      outputs: ``(*batch, K)``; half precision is computed in float32.
      targets: Real numbers ``(*batch, K)``.
      delta: The difference above 0 from which on the loss is linear, ``delta * (|e| - delta / 2)``.

    Returns:
      ``(*batch)``, float32 or float64: the mean over the K outputs.

    Raises:
      UsageError: Targets of another shape, since nothing is broadcast; ``delta`` of 0 or less.

    References:
      Huber, Robust estimation of a location parameter, 1964.

    >>> huber_loss(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 4.0]]))
    Array([0.75], dtype=float32)
    """
    op = "huber_loss"
    check_number(op, "delta", delta)
    if not is_traced(delta) and not delta > 0:
        raise UsageError(f"{op}: delta={delta} must be above 0")
    size = jnp.abs(_difference(op, outputs, targets))
    within = jnp.minimum(size, delta)
    return (within * within / 2 + delta * (size - within)).mean(axis=-1)


def _difference(op: str, outputs: AnyArray, targets: AnyArray) -> Array:
    outputs, targets = read_outputs(op, "outputs", outputs), as_array(op, "targets", targets)
    if targets.shape != outputs.shape:
        raise UsageError(
            f"{op}: targets of shape {targets.shape} do not go with outputs of shape {outputs.shape}; give the same "
            "shape, e.g. targets[..., None] for one output per example"
        )
    return outputs - targets.astype(outputs.dtype)
