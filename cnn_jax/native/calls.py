"""The kernels as functions of arrays. They can only be called where :func:`cnn_jax.native.is_enabled` is true."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, UInt8

from cnn_jax.native.library import TARGETS

_PRODUCTS = ("output", "input_gradient", "kernel_gradient")


def convolution(
    product: str,
    a: Float32[Array, "..."],
    b: Float32[Array, "..."],
    shape: Sequence[int],
    *,
    groups: int,
    strides: Sequence[int],
    low: Sequence[int],
    kernel_dilation: Sequence[int],
    winograd: bool = False,
) -> Float32[Array, "..."]:
    """One of the three products of a convolution of rank 1 to 3.

    Args:
      product: ``'output'`` of ``x`` and the kernel, ``'input_gradient'`` of ``dy`` and the kernel, or
        ``'kernel_gradient'`` of ``x`` and ``dy``.
      a: The first operand.
      b: The second operand.
      shape: The shape of the result. With those of the operands it determines the padding after each axis.
      groups: The number of groups.
      strides: The distance between neighbouring windows along each axis.
      low: The padding before each axis; may be negative.
      kernel_dilation: The distance between the inputs that neighbouring kernel entries read.
      winograd: Whether to use Winograd's algorithm instead of direct sums: for windows of 3 or 5 along the last two
        axes, at stride 1, without dilation or groups, and at least 16 channels and features.
    """
    call = jax.ffi.ffi_call(TARGETS["convolution"], jax.ShapeDtypeStruct(tuple(shape), jnp.float32))
    axes = {"strides": strides, "low": low, "dilation": kernel_dilation}
    return call(
        a,
        b,
        product=np.int64(_PRODUCTS.index(product)),
        groups=np.int64(groups),
        winograd=winograd,
        **{name: np.array(values, np.int64) for name, values in axes.items()},
    )


def batch_norm(
    x: Float32[Array, "*batch_and_space channels"],
    scale: Float32[Array, " channels"],
    bias: Float32[Array, " channels"],
    addend: Float32[Array, "*batch_and_space channels"] | None = None,
    *,
    epsilon: float,
    relu: bool,
) -> list[Float32[Array, "..."]]:
    """Batch normalisation in training.

    Returns:
      ``relu(normalised x * scale + bias + addend)``, the mean, the variance, and what rounding left of the mean.
    """
    like = jax.ShapeDtypeStruct(x.shape, jnp.float32), jax.ShapeDtypeStruct(scale.shape, jnp.float32)
    call = jax.ffi.ffi_call(TARGETS["batch_norm"], (like[0], like[1], like[1], like[1]))
    options = {"epsilon": np.float64(epsilon), "add": addend is not None, "relu": relu}
    return list(call(x, scale, bias, scale if addend is None else addend, **options))


def batch_norm_gradients(
    dy: Float32[Array, "*batch_and_space channels"],
    x: Float32[Array, "*batch_and_space channels"],
    y: Float32[Array, "*batch_and_space channels"],
    scale: Float32[Array, " channels"],
    mean: Float32[Array, " channels"],
    variance: Float32[Array, " channels"],
    remainder: Float32[Array, " channels"],
    *,
    epsilon: float,
    relu: bool,
    add: bool,
) -> list[Float32[Array, "..."]]:
    """The gradients of :func:`batch_norm`: of x, the scale, the bias and, with ``add``, the addend.

    Args:
      dy: The gradient of the result.
      x: The input.
      y: The result; only used with ``relu``.
      scale: The scale.
      mean: The mean.
      variance: The variance.
      remainder: What rounding left of the mean.
      epsilon: The same as in :func:`batch_norm`.
      relu: The same.
      add: Whether there was an addend.
    """
    like = jax.ShapeDtypeStruct(x.shape, jnp.float32), jax.ShapeDtypeStruct(scale.shape, jnp.float32)
    separate = add and relu  # otherwise the gradient of the addend is dy
    call = jax.ffi.ffi_call(TARGETS["batch_norm_gradients"], (like[0], like[1], like[1], like[0 if separate else 1]))
    options = {"epsilon": np.float64(epsilon), "add": separate, "relu": relu}
    *gradients, daddend = call(x, y, dy, scale, mean, variance, remainder, **options)
    return [*gradients, *[daddend if separate else dy] * add]


class PooledAxis(NamedTuple):
    """The windows of a pool along one axis."""

    size: int
    """The number of inputs."""
    out: int
    """The number of windows."""
    window: int
    stride: int
    dilation: int
    low: int
    """The padding before the axis. Padding after it follows from the other numbers."""


def window_maxima(
    x: Float32[Array, "..."], axes: Sequence[PooledAxis], first: int
) -> tuple[Float32[Array, "..."], UInt8[Array, "..."]]:
    """The maximum of every window and the row-major number of the first window entry with that value.

    Args:
      x: The input.
      axes: The pooled axes, up to three that follow each other. Every window has at least one entry and at most 256.
      first: The number of the first pooled axis.
    """
    shape = _pooled(x, [axis.out for axis in axes], first)
    results = jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape, jnp.uint8)
    y, winner = jax.ffi.ffi_call(TARGETS["window_maxima"], results)(x, **_around(x, axes, first))
    return y, winner


def window_maxima_gradient(
    dy: Float32[Array, "..."], winner: UInt8[Array, "..."], axes: Sequence[PooledAxis], first: int
) -> Float32[Array, "..."]:
    """The gradient of the input of :func:`window_maxima` from that of its first result, and the second result."""
    result = jax.ShapeDtypeStruct(_pooled(dy, [axis.size for axis in axes], first), jnp.float32)
    return jax.ffi.ffi_call(TARGETS["window_maxima_gradient"], result)(dy, winner, **_around(dy, axes, first))


def window_sums(
    x: Float32[Array, "..."], axes: Sequence[PooledAxis], first: int, *, backward: bool
) -> Float32[Array, "..."]:
    """The sum of every window; with ``backward`` the transpose, the sum over all windows that an input is in."""
    sizes = [axis.size if backward else axis.out for axis in axes]
    result = jax.ShapeDtypeStruct(_pooled(x, sizes, first), jnp.float32)
    return jax.ffi.ffi_call(TARGETS["window_sums"], result)(x, **_around(x, axes, first), backward=backward)


def _pooled(array: Array, sizes: Sequence[int], first: int) -> tuple[int, ...]:
    return (*array.shape[:first], *sizes, *array.shape[first + len(sizes) :])


def _around(array: Array, axes: Sequence[PooledAxis], first: int) -> dict[str, Any]:
    """The attributes of a pool: axes before the pooled ones are a batch, those after them are channels."""
    before, after = math.prod(array.shape[:first]), math.prod(array.shape[first + len(axes) :])
    return {"batch": np.int64(before), "channels": np.int64(after), "axes": np.array(axes, np.int64).ravel()}
