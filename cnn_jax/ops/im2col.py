"""Convolution as one matrix product: every window becomes a row of a matrix (im2col); its adjoint is col2im.

Textbooks usually show one column per window and one row per filter. With channels last it is the transpose: one row of
``prod(window) * C_in`` numbers per window, times the kernel as a matrix of ``C_out`` columns.

References:
  Chellapilla, Puri and Simard, High performance convolutional neural networks for document processing, 2006.
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import INEXACT, AnyArray, Number, check_array, per_axis, split_batch, window_sizes
from cnn_jax.ops.canonical import Windows, prepare, windows
from cnn_jax.ops.padding import Padding, Pairs, check_boundary, spread
from cnn_jax.ops.primitives import one_program
from cnn_jax.ops.sharding import like, zeros
from cnn_jax.ops.wide import in_float32


def im2col(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    window: int | Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    input_dilation: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    boundary: str = "zero",
    boundary_value: Number = 0.0,
    rounding: str = "floor",
) -> Shaped[Array, "*batch_and_output columns"]:
    """Writes each window of an input as one row: ``conv(x, kernel) == im2col(x, window) @ kernel.reshape(-1, C_out)``.

    Args:
      x: ``(*batch, *space, C)``.
      window: The sizes of the window, one per spatial axis; one int applies to every axis except the first and the
        last.
      strides: This and all remaining options have the same meaning as in :func:`cnn_jax.ops.conv`.

    Returns:
      ``(*batch, *output, prod(window) * C)``; within a row the channels vary fastest, as in
      ``kernel.reshape(-1, C_out)``.

    Raises:
      UsageError: See :func:`cnn_jax.ops.conv`.

    >>> x = jnp.arange(9.0).reshape(3, 3, 1)
    >>> im2col(x, (2, 2)).reshape(4, 4)
    Array([[0., 1., 3., 4.],
           [1., 2., 4., 5.],
           [3., 4., 6., 7.],
           [4., 5., 7., 8.]], dtype=float32)
    """
    op = "im2col"
    check_boundary(op, boundary, boundary_value)
    x = check_array(op, "x", x, empty=True, dtypes=INEXACT)
    window = window_sizes(op, "window", window, x)
    merged, batch = split_batch(op, x, len(window), f"window {window}")
    geometry = windows(
        op,
        merged.shape[1:-1],
        window,
        strides=strides,
        padding=padding,
        input_dilation=input_dilation,
        kernel_dilation=kernel_dilation,
        rounding=rounding,
    )
    rows = _rows(merged, boundary_value, geometry=geometry, boundary=boundary)
    return rows.reshape(*batch, *geometry.sliding.output, math.prod(rows.shape[-2:]))


def col2im(
    columns: Shaped[AnyArray, "*batch_and_output columns"],
    sizes: int | Sequence[int],
    window: int | Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    input_dilation: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    boundary: str = "zero",
    rounding: str = "floor",
) -> Shaped[Array, "*batch_and_space channels"]:
    """Adds every window to the input positions that :func:`im2col` copied it from: the adjoint, not the inverse.

    An input in ``m`` windows is added ``m`` times, so ``col2im(im2col(x)) / col2im(im2col(ones))`` is ``x``.

    Args:
      columns: ``(*batch, *output, prod(window) * C)``.
      sizes: The spatial sizes of the input; one int applies to every axis of ``columns`` except the first and the last.
      window: The sizes of the window, one int or one per spatial axis.
      strides: This and all remaining options have the same meaning as in :func:`im2col`.

    Returns:
      ``(*batch, *sizes, C)``.

    Raises:
      UsageError: See :func:`im2col`; also if the shape of the columns does not match the windows.

    >>> x = jnp.arange(9.0).reshape(3, 3, 1)
    >>> col2im(im2col(x, (2, 2)), (3, 3), (2, 2))[..., 0]
    Array([[ 0.,  2.,  2.],
           [ 6., 16., 10.],
           [ 6., 14.,  8.]], dtype=float32)
    """
    op = "col2im"
    check_boundary(op, boundary, 0.0)
    columns = check_array(op, "columns", columns, empty=True, dtypes=INEXACT)
    sizes = window_sizes(op, "sizes", sizes, columns)
    window = per_axis(op, "window", window, len(sizes))
    geometry = windows(
        op,
        sizes,
        window,
        strides=strides,
        padding=padding,
        input_dilation=input_dilation,
        kernel_dilation=kernel_dilation,
        rounding=rounding,
    )
    merged, batch = split_batch(op, columns, len(window), f"window {window}")
    taps, output = math.prod(window), geometry.sliding.output
    if merged.shape[1:-1] != output or merged.shape[-1] % taps:
        raise UsageError(
            f"{op}: columns of shape {columns.shape} must be (*batch, {', '.join(map(str, output))}, {taps} * C) "
            f"for input sizes {sizes} and window {window}"
        )
    merged = merged.reshape(*merged.shape[:-1], taps, merged.shape[-1] // taps)
    x = _adjoint_of_rows(merged, sizes=sizes, geometry=geometry, boundary=boundary)
    return x.reshape(*batch, *x.shape[1:])


@one_program("geometry", "boundary")
def _rows(x: Array, boundary_value: Number, *, geometry: Windows, boundary: str) -> Array:
    """The windows in at least float32, because the gradient sums them."""
    return in_float32(lambda x: window_rows(x, geometry, boundary, boundary_value), x)


@one_program("sizes", "geometry", "boundary")
def _adjoint_of_rows(rows: Array, *, sizes: tuple[int, ...], geometry: Windows, boundary: str) -> Array:
    def adjoint(rows: Array) -> Array:
        x = like((rows.shape[0], *sizes, rows.shape[-1]), rows)
        return jax.linear_transpose(lambda x: window_rows(x, geometry, boundary, 0.0), x)(rows)[0]

    return in_float32(adjoint, rows)


def window_rows(x: jax.Array, geometry: Windows, boundary: str, boundary_value: Number) -> jax.Array:
    """The windows for any boundary rule: ``(N, *output, prod(window), C)``."""
    prepared = prepare(x, geometry, boundary, boundary_value)
    taps = math.prod(geometry.window)
    if prepared is None:
        return zeros((x.shape[0], *geometry.sliding.output, taps, x.shape[-1]), x)
    x, pairs, rates = prepared
    return patches(x, geometry.window, geometry.strides, pairs, rates, geometry.kernel_dilation)


def patches(
    x: Shaped[Array, "batch *space channels"],
    window: tuple[int, ...],
    strides: tuple[int, ...],
    padding: Pairs,
    input_dilation: tuple[int, ...],
    kernel_dilation: tuple[int, ...],
) -> Shaped[Array, "batch *output taps channels"]:
    """The windows of canonical arguments: one strided slice per window entry, whose transpose is a pad."""
    x = spread(x, input_dilation)
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
    reach = [(size - 1) * rate for size, rate in zip(window, kernel_dilation, strict=True)]
    spans = [(size - last - 1) // step * step for size, last, step in zip(x.shape[1:-1], reach, strides, strict=True)]
    if not any(spans):  # one window: its entries are in order already
        index = tuple(slice(0, last + 1, rate) for last, rate in zip(reach, kernel_dilation, strict=True))
        return x[:, *index].reshape(x.shape[0], *(1 for _ in window), math.prod(window), x.shape[-1])
    slices = []
    for tap in itertools.product(*(range(size) for size in window)):
        starts = [entry * rate for entry, rate in zip(tap, kernel_dilation, strict=True)]
        stops = [start + span + 1 for start, span in zip(starts, spans, strict=True)]
        slices.append(lax.slice(x, (0, *starts, 0), (x.shape[0], *stops, x.shape[-1]), (1, *strides, 1)))
    return jnp.stack(slices, axis=-2)


def conv_im2col(
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
    """Convolution of canonical arguments as a matrix product of the windows and the kernel."""
    *window, per_group, features = kernel.shape
    columns = patches(x, tuple(window), strides, padding, input_dilation, kernel_dilation)
    *outer, taps, _ = columns.shape
    if feature_group_count == 1:
        columns, matrix = columns.reshape(*outer, taps * per_group), kernel.reshape(taps * per_group, features)
        return jnp.matmul(columns, matrix, precision=precision)
    y = jnp.einsum(
        "...tgc,tcgo->...go",
        columns.reshape(*outer, taps, feature_group_count, per_group),
        kernel.reshape(taps, per_group, feature_group_count, -1),
        precision=precision,
    )
    return y.reshape(*outer, features)
