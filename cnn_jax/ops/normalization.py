"""Normalisation over the batch, and over neighbouring channels or positions (local response normalisation)."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import check_array


def batch_statistics(
    x: Shaped[Array, "*batch_and_space channels"],
    *,
    axis_name: str | Sequence[str] | None = None,
) -> tuple[Shaped[Array, " channels"], Shaped[Array, " channels"]]:
    """Mean and variance of each channel over all other axes.

    The variance is the mean squared distance from the mean (biased: divided by n), taken in a second pass. The fast
    formula, mean of squares minus square of mean, loses every digit where the mean is large beside the spread.

    Args:
      x: ``(*batch, *space, C)``; the two half-precision types are summed in float32.
      axis_name: Mapped axes (``shard_map``, ``vmap``, ``pmap``) to average over as well.

    Returns:
      Mean ``(C,)`` and variance ``(C,)``, float32 or float64.

    >>> mean, variance = batch_statistics(jnp.array([[10001.0], [10003.0]]))
    >>> mean.item(), variance.item()
    (10002.0, 1.0)
    """
    x = check_array("batch_statistics", "x", x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def average(values: Array) -> Array:
        mean = values.mean(axis=tuple(range(values.ndim - 1)))
        return mean if axis_name is None else lax.pmean(mean, axis_name)

    mean = average(x)
    return mean, average(jnp.square(x - mean))


def batch_norm(
    x: Shaped[Array, "*batch_and_space channels"],
    *,
    mean: Shaped[Array, " channels"],
    variance: Shaped[Array, " channels"],
    scale: Shaped[Array, " channels"] | None = None,
    bias: Shaped[Array, " channels"] | None = None,
    epsilon: int | float = 1e-5,
) -> Shaped[Array, "*batch_and_space channels"]:
    """``(x - mean) / sqrt(variance + epsilon) * scale + bias``, per channel.

    Args:
      x: ``(*batch, *space, C)``; the two half-precision types are computed in float32 and cast back.
      mean: ``(C,)``, that of the batch (:func:`batch_statistics`) in training, a running average of it otherwise.
      variance: ``(C,)``, likewise.
      scale: ``(C,)``; 1 by default.
      bias: ``(C,)``; 0 by default.
      epsilon: Keeps the root away from 0.

    Returns:
      Shape and dtype of ``x``.

    Raises:
      UsageError: A vector whose length is not the number of channels, epsilon below 0.

    References:
      Ioffe and Szegedy, Batch normalization, 2015.

    >>> x = jnp.array([[10001.0], [10003.0]])
    >>> mean, variance = batch_statistics(x)
    >>> batch_norm(x, mean=mean, variance=variance, epsilon=0.0)[:, 0]
    Array([-1.,  1.], dtype=float32)
    """
    op = "batch_norm"
    x = check_array(op, "x", x)
    for name, vector in {"mean": mean, "variance": variance, "scale": scale, "bias": bias}.items():
        if vector is not None and jnp.shape(vector) != x.shape[-1:]:
            raise UsageError(
                f"{op}: {name} has shape {jnp.shape(vector)}, but x of shape {x.shape} has {x.shape[-1]} channels; "
                f"channels come last"
            )
    check_at_least(op, "epsilon", epsilon, 0)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    factor = lax.rsqrt(variance.astype(wide.dtype) + epsilon)
    if scale is not None:
        factor = factor * scale
    y = (wide - mean) * factor
    return (y if bias is None else y + bias).astype(x.dtype)


def check_at_least(op: str, name: str, value: int | float, least: int | float) -> None:
    """Raises a ``UsageError`` unless the value is a number of at least ``least``."""
    if not isinstance(value, int | float) or not value >= least:
        raise UsageError(f"{op}: {name}={value!r} must be a number, at least {least}")
