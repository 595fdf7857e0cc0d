"""Convolutions that filter each channel separately: depthwise and depthwise separable convolutions."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import INEXACT, AnyArray, Number, accumulator, check_array, check_axes
from cnn_jax.ops.canonical import check_rank, layout_hint
from cnn_jax.ops.conv import conv_as
from cnn_jax.ops.padding import Padding


def depthwise_conv(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    kernel: Shaped[AnyArray, "*window channels_of_kernel multiplier"],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    kernel_dilation: int | Sequence[int] = 1,
    boundary: str = "zero",
    boundary_value: Number = 0.0,
    rounding: str = "floor",
    method: str = "auto",
    derivatives: str = "custom",
    precision: lax.PrecisionLike = None,
) -> Shaped[Array, "*batch_and_output features"]:
    """Filters each channel separately with ``multiplier`` kernels: a convolution with as many groups as channels.

    Args:
      x: ``(*batch, *space, C)``.
      kernel: ``(*window, C, multiplier)``.
      strides: This and all remaining options have the same meaning as in :func:`cnn_jax.ops.conv`.

    Returns:
      ``(*batch, *output, C * multiplier)``; feature ``c * multiplier + m`` is channel ``c`` filtered by
      ``kernel[..., c, m]``.

    Raises:
      UsageError: See :func:`cnn_jax.ops.conv`; also if the kernel has another number of channels.

    >>> depthwise_conv(jnp.ones((56, 56, 128)), jnp.ones((3, 3, 128, 1)), padding="SAME").shape
    (56, 56, 128)
    """
    op = "depthwise_conv"
    x, kernel = (
        check_array(op, "x", x, empty=True, dtypes=INEXACT),
        check_array(op, "kernel", kernel, dtypes=INEXACT),
    )
    rank = check_rank(op, kernel, "(*window, C, multiplier)")
    check_axes(op, x, rank, f"kernel of shape {kernel.shape}")
    *window, channels, multiplier = kernel.shape
    if x.shape[-1] != channels:
        raise UsageError(
            f"{op}: x of shape {x.shape} has {x.shape[-1]} channels, but kernel {kernel.shape} takes {channels}"
            + layout_hint(x, kernel, channels, channels_first=0, order=(0, 1))
        )
    return conv_as(
        op,
        x,
        kernel.reshape(*window, 1, channels * multiplier),
        strides=strides,
        padding=padding,
        kernel_dilation=kernel_dilation,
        feature_group_count=channels,
        boundary=boundary,
        boundary_value=boundary_value,
        rounding=rounding,
        method=method,
        derivatives=derivatives,
        precision=precision,
    )


def separable_conv(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    depthwise_kernel: Shaped[AnyArray, "*window channels_of_kernel multiplier"],
    pointwise_kernel: Shaped[AnyArray, "..."],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    kernel_dilation: int | Sequence[int] = 1,
    boundary: str = "zero",
    boundary_value: Number = 0.0,
    rounding: str = "floor",
    method: str = "auto",
    derivatives: str = "custom",
    precision: lax.PrecisionLike = None,
) -> Shaped[Array, "*batch_and_output features"]:
    """A depthwise convolution, followed by a 1x1 convolution that mixes the channels (Sifre 2014; Xception).

    Args:
      x: ``(*batch, *space, C)``.
      depthwise_kernel: ``(*window, C, multiplier)``.
      pointwise_kernel: ``(C * multiplier, C_out)``.
      strides: This and all remaining options have the same meaning as in :func:`cnn_jax.ops.conv`; ``method`` applies
        to the depthwise part.

    Returns:
      ``(*batch, *output, C_out)``.

    Raises:
      UsageError: See :func:`depthwise_conv`; also if the two kernels do not match.

    >>> separable_conv(jnp.ones((28, 28, 8)), jnp.ones((3, 3, 8, 2)), jnp.ones((16, 32))).shape
    (26, 26, 32)
    """
    op = "separable_conv"
    pointwise_kernel = check_array(op, "pointwise_kernel", pointwise_kernel, dtypes=INEXACT)
    check_rank(op, depthwise_kernel, "(*window, C, multiplier)", name="depthwise_kernel")
    features = depthwise_kernel.shape[-2] * depthwise_kernel.shape[-1]
    if pointwise_kernel.ndim != 2 or pointwise_kernel.shape[0] != features:
        raise UsageError(
            f"{op}: pointwise_kernel of shape {pointwise_kernel.shape} must be ({features}, C_out), "
            f"because depthwise_kernel of shape {depthwise_kernel.shape} gives {features} features"
        )
    y = depthwise_conv(
        x,
        depthwise_kernel,
        strides=strides,
        padding=padding,
        kernel_dilation=kernel_dilation,
        boundary=boundary,
        boundary_value=boundary_value,
        rounding=rounding,
        method=method,
        derivatives=derivatives,
        precision=precision,
    )
    dtype = jnp.result_type(y, pointwise_kernel)
    y, pointwise_kernel = y.astype(dtype), pointwise_kernel.astype(dtype)
    # Without the wide result type, XLA's CPU backend sums some gradients of matrix products in half precision.
    wide = accumulator(dtype)
    return jnp.matmul(y, pointwise_kernel, precision=precision, preferred_element_type=wide).astype(dtype)
