"""Transposed convolution: the exact adjoint of :func:`cnn_jax.ops.conv`, also called fractionally strided.

``conv_transpose(y, kernel, **options)`` is the gradient of ``conv(x, kernel, **options)`` with respect to ``x`` for the
cotangent ``y``. It is not the inverse. It takes the same kernel and the same options, so a decoder that mirrors an
encoder uses the same numbers as the encoder.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import (
    DERIVATIVES,
    INEXACT,
    AnyArray,
    as_dtype,
    check_array,
    check_option,
    per_axis,
    split_batch,
)
from cnn_jax.ops.canonical import (
    Windows,
    check_groups,
    check_rank,
    effective_kernel,
    inverted,
    layout_hint,
    prepare,
    windows,
)
from cnn_jax.ops.conv import convolve
from cnn_jax.ops.padding import (
    ROUNDINGS,
    Padding,
    Pairs,
    Sliding,
    check_boundary,
    count_windows,
    dilated,
    pair,
    per_axis_padding,
)
from cnn_jax.ops.primitives import one_program
from cnn_jax.ops.sharding import like


def conv_transpose(
    y: Shaped[AnyArray, "*batch_and_space features"],
    kernel: Shaped[AnyArray, "*window channels_per_group features_of_kernel"],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    output_padding: int | Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    input_dilation: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    mask: Shaped[AnyArray, "..."] | None = None,
    boundary: str = "zero",
    flip_kernel: bool = False,
    rounding: str = "floor",
    method: str = "auto",
    derivatives: str = "custom",
    precision: lax.PrecisionLike = None,
) -> Shaped[Array, "*batch_and_output channels"]:
    """Adds every input, times the kernel, to the window that :func:`cnn_jax.ops.conv` would read with the same options.

    ``sum(conv(x, kernel, **options) * y) == sum(x * conv_transpose(y, kernel, **options))`` for all ``x`` and ``y``. At
    stride ``s``, up to ``s`` sizes of ``x`` give the same size of ``y``. ``output_padding`` or ``output_shape`` selects
    one of them.

    Args:
      y: ``(*batch, *space, C_out)``, the shape of the output of the convolution.
      kernel: ``(*window, C_in / feature_group_count, C_out)``: the kernel of the convolution. To convert a kernel of
        Flax's ``ConvTranspose`` (``transpose_kernel=False``), flip its window with ``jnp.flip`` and swap its last two
        axes. To convert PyTorch's ``(C_out, C_in / groups, *window)``, move the first two axes to the end and swap
        them.
      strides: The strides of the convolution, which are the factors by which this function enlarges its input.
      padding: The padding of the convolution, which this function crops from its output.
      output_padding: Added to the smallest possible output size. By default the output has the smallest size; under
        ``'SAME'`` and ``'SAME_LOWER'`` it has the largest, which is ``size * stride``.
      output_shape: The spatial sizes of the output; an alternative to ``output_padding``.
      input_dilation: The input dilation of the convolution, which is the stride of this function.
      kernel_dilation: The same as in :func:`cnn_jax.ops.conv`.
      feature_group_count: The same as in :func:`cnn_jax.ops.conv`.
      mask: The same as in :func:`cnn_jax.ops.conv`.
      boundary: The boundary rule of the convolution. Values that the rule copies into the padding are added back at
        their source. ``'constant'`` has the same effect as ``'zero'``.
      flip_kernel: The same as in :func:`cnn_jax.ops.conv`.
      rounding: The same as in :func:`cnn_jax.ops.conv`.
      method: The same as in :func:`cnn_jax.ops.conv`.
      derivatives: Has no effect; still accepted for one release.
      precision: The same as in :func:`cnn_jax.ops.conv`.

    Returns:
      ``(*batch, *output, C_in)``.

    Raises:
      UsageError: See :func:`cnn_jax.ops.conv`; also if no input of the requested size gives an output of the size of
        ``y``.

    References:
      Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016, chapter 4.

    >>> y, kernel = jnp.ones((7, 7, 16)), jnp.ones((4, 4, 3, 16))
    >>> conv_transpose(y, kernel, strides=2, padding=1).shape
    (14, 14, 3)
    >>> conv_transpose(jnp.array([1.0, 2.0])[:, None], jnp.ones((2, 1, 1)), strides=2, output_padding=1)[:, 0]
    Array([1., 1., 2., 2., 0.], dtype=float32)
    """
    op = "conv_transpose"
    check_option(op, "derivatives", derivatives, DERIVATIVES)
    check_boundary(op, boundary, 0.0)
    y, kernel = (
        check_array(op, "y", y, empty=True, dtypes=INEXACT),
        check_array(op, "kernel", kernel, dtypes=INEXACT),
    )
    rank = check_rank(op, kernel, "(*window, C_in / feature_group_count, C_out)")
    groups = check_groups(op, kernel, feature_group_count)
    merged, batch = split_batch(op, y, rank, f"kernel of shape {kernel.shape}", name="y")
    if y.shape[-1] != kernel.shape[-1]:
        raise UsageError(
            f"{op}: y of shape {y.shape} has {y.shape[-1]} channels, but kernel {kernel.shape} has "
            f"{kernel.shape[-1]} features" + layout_hint(y, kernel, kernel.shape[-1], name="y", channels_first=0)
        )
    dtype = jnp.result_type(y, kernel)
    kernel = effective_kernel(op, as_dtype(kernel, dtype), mask, flip_kernel)
    strides = per_axis(op, "strides", strides, rank)
    input_dilation = per_axis(op, "input_dilation", input_dilation, rank)
    kernel_dilation = per_axis(op, "kernel_dilation", kernel_dilation, rank)
    choices = _choices(
        op, merged.shape[1:-1], kernel.shape[:-2], strides, padding, input_dilation, kernel_dilation, rounding
    )
    sizes = _choose(op, choices, padding, output_padding, output_shape)
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
    x = _transposed(as_dtype(merged, dtype), kernel, geometry, sizes, groups, boundary, method, precision)
    return x.reshape(*batch, *x.shape[1:])


@one_program("geometry", "sizes", "groups", "boundary", "method", "precision")
def _transposed(
    y: Array,
    kernel: Array,
    geometry: Windows,
    sizes: tuple[int, ...],
    groups: int,
    boundary: str,
    method: str,
    precision: lax.PrecisionLike,
) -> Array:
    """:func:`conv_transpose` for checked arguments."""
    around, extents = geometry.sliding.reach, dilated(sizes, geometry.input_dilation)
    rates = geometry.input_dilation
    if boundary != "zero":
        # The adjoint of the boundary rule comes last, because the convolution itself reads the extended input.
        extents = tuple(extent + low + high for extent, (low, high) in zip(extents, around, strict=True))
        around, rates = ((0, 0),) * len(rates), (1,) * len(rates)
    adjoint = _adjoint(geometry, extents, around, rates)
    x = convolve("conv_transpose", y, inverted(kernel, groups), adjoint, groups, method=method, precision=precision)
    if boundary != "zero":
        x_like = like((x.shape[0], *sizes, x.shape[-1]), x)
        (x,) = jax.linear_transpose(lambda x: prepare(x, geometry, boundary, 0.0)[0], x_like)(x)  # type: ignore[index]
    return x


def _adjoint(geometry: Windows, extents: tuple[int, ...], around: Pairs, rates: tuple[int, ...]) -> Windows:
    """The windows of the convolution (with the inverted kernel) that is the adjoint of a zero-padded convolution.

    Its input is dilated by the stride and its stride is the input dilation. Its padding makes the output as large as
    the dilated input of size ``extent``.
    """
    reaches = dilated(geometry.window, geometry.kernel_dilation)
    spans = dilated(geometry.sliding.output, geometry.strides)
    pairs = tuple(
        (reach - 1 - low, extent + low - span)
        for reach, extent, span, (low, _) in zip(reaches, extents, spans, around, strict=True)
    )
    output = tuple((extent - 1) // rate + 1 for extent, rate in zip(extents, rates, strict=True))
    return Windows(
        geometry.window, rates, geometry.strides, geometry.kernel_dilation, Sliding(output, pairs, (0,) * len(output))
    )


def _choices(
    op: str,
    outputs: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
    padding: Padding,
    input_dilation: tuple[int, ...],
    kernel_dilation: tuple[int, ...],
    rounding: str,
) -> list[list[int]]:
    """For each axis, the input sizes in ascending order for which a convolution has the size of ``y``."""
    check_option(op, "rounding", rounding, ROUNDINGS)
    entries = per_axis_padding(op, padding, len(outputs))
    reaches = dilated(window, kernel_dilation)
    choices = []
    for axis, (output, entry, reach, stride, rate) in enumerate(
        zip(outputs, entries, reaches, strides, input_dilation, strict=True)
    ):
        # All paddings except SAME are independent of the size, and SAME gives ceil(extent / stride) windows.
        total = reach - stride if entry in ("SAME", "SAME_LOWER") else sum(pair(op, entry, 1, reach, stride))
        least = (output - 1) * stride + reach - total
        sizes = []
        for extent in range(max(1, least - stride), least + stride):
            low, high = pair(op, entry, extent, reach, stride)
            count, _, rest = count_windows(extent, reach, stride, low, high, rounding)
            fits = extent + low + high >= reach and extent + min(low, 0) + min(high, 0) >= 1
            if fits and count == output and not (rest and rounding == "strict") and (extent - 1) % rate == 0:
                sizes.append((extent - 1) // rate + 1)
        if not sizes:
            raise UsageError(
                f"{op}: y has size {output} on spatial axis {axis}, but no convolution with kernel {reach}, stride "
                f"{stride}, padding {entry!r}, input_dilation {rate} and rounding={rounding!r} has such an output; "
                f"use padding='VALID'"
            )
        choices.append(sizes)
    return choices


def _choose(
    op: str,
    choices: list[list[int]],
    padding: Padding,
    output_padding: int | Sequence[int] | None,
    output_shape: Sequence[int] | None,
) -> tuple[int, ...]:
    rank = len(choices)
    if output_shape is not None:
        if output_padding is not None:
            raise UsageError(
                f"{op}: output_padding={output_padding!r} and output_shape={output_shape!r}; give only one"
            )
        wanted = per_axis(op, "output_shape", output_shape, rank)
        for axis, (size, sizes) in enumerate(zip(wanted, choices, strict=True)):
            if size not in sizes:
                raise UsageError(
                    f"{op}: output_shape={wanted} is impossible on spatial axis {axis}: with these options "
                    f"it can be {_among(sizes)}"
                )
        return wanted
    if output_padding is not None:
        steps = per_axis(op, "output_padding", output_padding, rank, least=0)
        for axis, (step, sizes) in enumerate(zip(steps, choices, strict=True)):
            if step >= len(sizes):
                raise UsageError(
                    f"{op}: output_padding={output_padding!r} is too large on spatial axis {axis}: with these options "
                    f"it can be 0 to {len(sizes) - 1}, for an output of {_among(sizes)}"
                )
        return tuple(sizes[step] for step, sizes in zip(steps, choices, strict=True))
    entries = per_axis_padding(op, padding, rank)
    return tuple(
        sizes[-1] if entry in ("SAME", "SAME_LOWER") else sizes[0]
        for entry, sizes in zip(entries, choices, strict=True)
    )


def _among(sizes: list[int]) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
