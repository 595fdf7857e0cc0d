"""Dropout of single units, and of whole feature maps."""

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
    """Sets each entry to zero with probability ``rate`` and divides the others by ``1 - rate``, which keeps the mean.

    Args:
      x: Any shape; bfloat16, float16, float32 or float64.
      rate: The probability of being dropped, in [0, 1].
      key: A JAX random key.
      broadcast_dims: Axes along which entries are dropped together.

    Returns:
      Shape and dtype of ``x``.

    Raises:
      UsageError: A rate outside [0, 1], an axis that ``x`` does not have.

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
        raise UsageError(f"{op}: key={key!r} is no JAX random key; make one with jax.random.key(seed)")
    if not may_differ_from_zero(rate):
        return x
    if not is_traced(rate) and rate == 1:  # nothing is left to be divided by 0
        return jnp.zeros_like(x)
    keep = jax.random.bernoulli(key, 1 - rate, tuple(shape), out_sharding=split_alike(x, tuple(shape)))
    return jnp.where(keep, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros((), x.dtype))


def spatial_dropout(
    x: Shaped[AnyArray, "batch *space channels"], rate: Number, *, key: Shaped[AnyArray, "..."] | Key[Array, ""]
) -> Shaped[Array, "batch *space channels"]:
    """Drops whole feature maps: neighbouring pixels say nearly the same, so that dropping single ones hides little.

    Args:
      x: ``(N, *space, C)`` of any rank, with exactly one batch axis.
      rate: The probability of being dropped, in [0, 1].
      key: A JAX random key.

    Returns:
      Shape and dtype of ``x``.

    Raises:
      UsageError: As :func:`dropout`.

    References:
      Tompson et al., Efficient object localization using convolutional networks, 2015.

    >>> x = spatial_dropout(jnp.ones((2, 7, 7, 16)), 0.5, key=jax.random.key(0))
    >>> bool((x == x[:, :1, :1]).all())
    True
    """
    if jnp.ndim(x) < 3:
        raise UsageError(f"spatial_dropout: x of shape {jnp.shape(x)} has no space; it must be (N, *space, C)")
    return dropout(x, rate, key=key, broadcast_dims=range(1, jnp.ndim(x) - 1))


def check_rate(op: str, rate: Number) -> Number:
    """The rate, if it is in [0, 1], or a traced scalar."""
    if not is_traced(rate) and (not isinstance(rate, int | float) or not 0 <= rate <= 1):
        raise UsageError(f"{op}: rate={rate!r} must be a number in [0, 1]; it is the probability of being dropped")
    return rate
