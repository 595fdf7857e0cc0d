"""Convolution as a matrix: the doubly block Toeplitz matrix, and a method that uses it along one axis.

Each axis of a convolution is described by its selector, an array ``S[t, p, q]`` that is 1 where output position ``p``
reads input position ``q`` with kernel entry ``t``. The selectors contain padding, stride, dilation, rounding and
boundary. The matrix of the whole convolution is the product of kernel and selectors.

References:
  Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016, section 4.1.
"""

import math
import string
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import INEXACT, AnyArray, Shape, by, check_array, check_option, per_axis
from cnn_jax.ops.canonical import check_groups, check_rank, effective_kernel, windows
from cnn_jax.ops.im2col import patches
from cnn_jax.ops.padding import BOUNDARIES, Padding, Pair, Pairs

LARGEST_MATRIX = 2**31  # entries, 8 GiB in float32


def toeplitz_matrix(
    kernel: Shaped[AnyArray, "*window channels_per_group features"],
    sizes: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    input_dilation: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    mask: Shaped[AnyArray, "..."] | None = None,
    boundary: str = "zero",
    flip_kernel: bool = False,
    rounding: str = "floor",
) -> Shaped[Array, "rows columns"]:
    """The matrix of a convolution: ``W @ x.ravel() == conv(x, kernel).ravel()``; its transpose is the backward pass.

    In two dimensions it is block Toeplitz with Toeplitz blocks, one block per pair of rows.

    Args:
      kernel: ``(*window, C_in / feature_group_count, C_out)``.
      sizes: The spatial sizes of the input.
      strides: This and all remaining options have the same meaning as in :func:`cnn_jax.ops.conv`;
        ``boundary='constant'`` is not supported, because it is not linear.

    Returns:
      ``(prod(output) * C_out, prod(sizes) * C_in)`` in the dtype of the kernel. The matrix is dense, so use it for
      small inputs only.

    Raises:
      UsageError: See :func:`cnn_jax.ops.conv`; also for a matrix of more than 2^31 entries.

    >>> toeplitz_matrix(jnp.array([1.0, 2.0, 3.0])[:, None, None], (5,))
    Array([[1., 2., 3., 0., 0.],
           [0., 1., 2., 3., 0.],
           [0., 0., 1., 2., 3.]], dtype=float32)
    """
    op = "toeplitz_matrix"
    kernel = check_array(op, "kernel", kernel, dtypes=INEXACT)
    rank = check_rank(op, kernel, "(*window, C_in / feature_group_count, C_out)")
    groups = check_groups(op, kernel, feature_group_count)
    check_option(op, "boundary", boundary, [name for name in BOUNDARIES if name != "constant"])
    sizes = per_axis(op, "sizes", sizes, rank)
    geometry = windows(
        op,
        sizes,
        kernel.shape[:-2],
        strides=strides,
        padding=padding,
        input_dilation=input_dilation,
        kernel_dilation=kernel_dilation,
        rounding=rounding,
    )
    shape = (
        math.prod(geometry.sliding.output) * kernel.shape[-1],
        math.prod(sizes) * kernel.shape[-2] * groups,
    )
    if math.prod(shape) > LARGEST_MATRIX:
        raise UsageError(
            f"{op}: the matrix would be {by(shape)}, {math.prod(shape):,} entries, more than {LARGEST_MATRIX:,}; "
            f"use a smaller input than sizes={sizes}, or conv, which needs no matrix"
        )
    kernel = ungrouped(effective_kernel(op, kernel, mask, flip_kernel), groups)
    columns = zip(
        sizes,
        geometry.window,
        geometry.strides,
        geometry.sliding.reach,
        geometry.input_dilation,
        geometry.kernel_dilation,
        strict=True,
    )
    selectors = [selector(*column, boundary=boundary).astype(kernel.dtype) for column in columns]
    taps, rows, inputs = (string.ascii_lowercase[i * rank : (i + 1) * rank] for i in range(3))
    terms = ",".join(["".join(axis) for axis in zip(taps, rows, inputs, strict=True)])
    matrix = jnp.einsum(f"{taps}YZ,{terms}->{rows}Z{inputs}Y", kernel, *selectors, precision=lax.Precision.HIGHEST)
    return matrix.reshape(shape)


def selector(
    size: int, window: int, stride: int, padding: Pair, input_dilation: int, kernel_dilation: int, *, boundary: str
) -> np.ndarray:
    """``(window, output, size)``: 1 where an output position reads an input position with an entry of the window.

    >>> selector(4, 2, 2, (1, 1), 1, 1, boundary="zero")[0]
    array([[0., 0., 0., 0.],
           [0., 1., 0., 0.],
           [0., 0., 0., 1.]])
    """
    extended = np.zeros(((size - 1) * input_dilation + 1, size))
    extended[::input_dilation] = np.eye(size)
    low, high = padding
    extended = np.pad(extended, ((max(low, 0), max(high, 0)), (0, 0)), mode=BOUNDARIES[boundary])  # type: ignore[call-overload]
    extended = extended[max(-low, 0) : len(extended) - max(-high, 0)]
    output = (len(extended) - (window - 1) * kernel_dilation - 1) // stride + 1
    return extended[np.arange(window)[:, None] * kernel_dilation + np.arange(output) * stride]


def ungrouped(kernel: Shaped[Array, "..."], groups: int) -> Shaped[Array, "..."]:
    """A grouped kernel as a kernel without groups, ``(*window, C_in, C_out)``, with zeros between the groups."""
    if groups == 1:
        return kernel
    *window, per_group, features = kernel.shape
    split = kernel.reshape(*window, per_group, groups, features // groups)
    blocks = jnp.einsum(
        "...cgo,gh->...hcgo", split, np.eye(groups, dtype=kernel.dtype), precision=lax.Precision.HIGHEST
    )
    return blocks.reshape(*window, groups * per_group, features)


def band_entries(x_shape: Shape, kernel_shape: Shape, output: Sequence[int], groups: int) -> int:
    """The number of entries in the banded matrices that :func:`conv_toeplitz` builds."""
    rows = int(np.prod(kernel_shape[:-3])) * x_shape[-2] * kernel_shape[-2] * groups
    return rows * output[-1] * kernel_shape[-1]


def conv_toeplitz(
    x: Shaped[Array, "batch *space channels"],
    kernel: Shaped[Array, "*window channels_per_group features"],
    *,
    strides: tuple[int, ...],
    padding: Pairs,
    input_dilation: tuple[int, ...],
    kernel_dilation: tuple[int, ...],
    feature_group_count: int,
    precision: lax.PrecisionLike = None,
) -> Shaped[Array, "batch *output features"]:
    """Convolution of canonical arguments: Toeplitz along the last spatial axis, im2col along the others.

    A row of the input, width and channels together, times the banded matrix of a kernel row is a row of the output.
    With few channels these products are much larger than those of im2col, and the input is not copied along the width.
    """
    kernel = ungrouped(kernel, feature_group_count)
    *above, taps, channels, features = kernel.shape
    width = x.shape[-2]
    select = selector(width, taps, strides[-1], padding[-1], input_dilation[-1], kernel_dilation[-1], boundary="zero")
    bands = jnp.einsum("...tco,tpq->...qcpo", kernel, select.astype(kernel.dtype), precision=lax.Precision.HIGHEST)
    output = select.shape[1]
    rows = x.reshape(*x.shape[:-2], width * channels)
    columns = patches(rows, tuple(above), strides[:-1], padding[:-1], input_dilation[:-1], kernel_dilation[:-1])
    *outer, count, length = columns.shape
    y = jnp.matmul(
        columns.reshape(*outer, count * length),
        bands.reshape(count * length, output * features),
        precision=precision,
    )
    return y.reshape(*outer, output, features)
