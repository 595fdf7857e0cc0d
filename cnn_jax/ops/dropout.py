"""Dropout of single units and of whole feature maps."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, Number, check_array, integer, is_traced, may_differ_from_zero
from cnn_jax.ops.sharding import split_alike


def dropout(
    x: Shaped[AnyArray, "..."],
    rate: Number,
    *,
    key: Shaped[AnyArray, "..."] | Key[Array, ""],
    broadcast_dims: int | Sequence[int] = (),
) -> Shaped[Array, "..."]:
    """Sets each entry to zero with probability ``rate`` and divides the others by ``1 - rate`` to preserve the mean.

    Args:
      x: Any shape; bfloat16, float16, float32 or float64.
      rate: The probability that an entry is dropped, in [0, 1].
      key: A JAX random key.
      broadcast_dims: The axes along which entries are dropped together.

    Returns:
      An array with the shape and dtype of ``x``.

    Raises:
      UsageError: The rate is outside [0, 1], or ``x`` does not have one of the axes.

    References:
      Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting, 2014.

    >>> jnp.unique(dropout(jnp.ones(100), 0.5, key=jax.random.key(0)))
    Array([0., 2.], dtype=float32)
    """
    op = "dropout"
    x, rate = check_array(op, "x", x, empty=True), check_rate(op, rate)
    axes = [broadcast_dims] if isinstance(broadcast_dims, int) else list(broadcast_dims)
    shape = list(x.shape)
    for axis in axes:
        if not -x.ndim <= integer(op, "broadcast_dims", axis) < x.ndim:
            raise UsageError(f"{op}: broadcast_dims={broadcast_dims!r} names axis {axis}, but x has shape {x.shape}")
        shape[axis] = 1
    if not isinstance(key, AnyArray):
        raise UsageError(f"{op}: key={key!r} is not a JAX random key; make one with jax.random.key(seed)")
    if not may_differ_from_zero(rate):
        return x
    if not is_traced(rate) and rate == 1:  # avoids a division by 0
        return jnp.zeros_like(x)
    keep = jax.random.bernoulli(key, 1 - rate, tuple(shape), out_sharding=split_alike(x, tuple(shape)))
    return jnp.where(keep, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros((), x.dtype))


def spatial_dropout(
    x: Shaped[AnyArray, "batch *space channels"], rate: Number, *, key: Shaped[AnyArray, "..."] | Key[Array, ""]
) -> Shaped[Array, "batch *space channels"]:
    """Drops whole feature maps, because neighbouring pixels are strongly correlated.

    Args:
      x: ``(N, *space, C)`` of any rank, with exactly one batch axis.
      rate: The probability that an entry is dropped, in [0, 1].
      key: A JAX random key.

    Returns:
      An array with the shape and dtype of ``x``.

    Raises:
      UsageError: See :func:`dropout`.

    References:
      Tompson et al., Efficient object localization using convolutional networks, 2015.

    >>> x = spatial_dropout(jnp.ones((2, 7, 7, 16)), 0.5, key=jax.random.key(0))
    >>> bool((x == x[:, :1, :1]).all())
    True
    """
    if jnp.ndim(x) < 3:
        raise UsageError(f"spatial_dropout: x of shape {jnp.shape(x)} has no spatial axes; it must be (N, *space, C)")
    return dropout(x, rate, key=key, broadcast_dims=range(1, jnp.ndim(x) - 1))


def check_rate(op: str, rate: Number) -> Number:
    """Returns the rate if it is a number in [0, 1] or a traced scalar; otherwise raises a ``UsageError``."""
    if not is_traced(rate) and (not isinstance(rate, int | float) or not 0 <= rate <= 1):
        raise UsageError(
            f"{op}: rate={rate!r} must be a number in [0, 1]; it is the probability that an entry is dropped"
        )
    return rate
