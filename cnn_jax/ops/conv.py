"""Convolution of any rank: the function that computes every convolution of the project.

:func:`conv` checks its arguments, converts them to a canonical form (one batch axis, zero boundary, no crop), and
passes them to a method (``cnn_jax.ops.methods``). As in other deep-learning libraries, convolution here means
cross-correlation. With ``flip_kernel=True`` it is the convolution of mathematics.
"""

from collections.abc import Sequence
from functools import partial

from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.ops import methods
from cnn_jax.ops.arguments import DERIVATIVES, AnyArray, Number, accumulator, check_option, check_precision
from cnn_jax.ops.canonical import Windows, effective_kernel, operands, prepare, windows
from cnn_jax.ops.padding import Padding, check_boundary
from cnn_jax.ops.primitives import one_program
from cnn_jax.ops.sharding import over_batches, zeros


def conv(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    kernel: Shaped[AnyArray, "*window channels_per_group features"],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    input_dilation: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    mask: Shaped[AnyArray, "..."] | None = None,
    boundary: str = "zero",
    boundary_value: Number = 0.0,
    flip_kernel: bool = False,
    rounding: str = "floor",
    method: str = "auto",
    derivatives: str = "custom",
    precision: lax.PrecisionLike = None,
) -> Shaped[Array, "*batch_and_output features"]:
    """Convolves an input of any rank with a kernel, as in convolutional networks (a cross-correlation).

    Per output position ``p`` and feature ``o``: ``y[p, o] = sum over t, c of x[p * stride + t * dilation - low, c] *
    kernel[t, c, o]``, where ``t`` runs over the window and ``c`` over the channels of the group of ``o``.

    Args:
      x: ``(*batch, *space, C_in)``, any number of batch axes, including none; bfloat16, float16, float32, float64,
        complex.
      kernel: ``(*window, C_in / feature_group_count, C_out)``; its window determines the rank. If the two dtypes
        differ, the result has the dtype of ``jnp.result_type``.
      strides: The distance between neighbouring windows; like the dilations, one int or one int per axis.
      padding: ``'VALID'``, ``'SAME'``, ``'SAME_LOWER'``, ``'HALF'``, ``'FULL'``, ``'CAUSAL'``, an int, or, per axis,
        one of these or a (low, high) pair; negative numbers crop. See ``cnn_jax.ops.padding``.
      input_dilation: The distance between neighbouring inputs, with zeros between them; padding is added around the
        dilated input.
      kernel_dilation: The distance between the inputs that neighbouring kernel entries read; 2 skips every other input.
      feature_group_count: The number of groups; each output channel depends only on the input channels of its group.
      mask: Booleans that broadcast to the kernel. Kernel entries where the mask is False count as zero and get a zero
        gradient. A mask of shape ``(C_in, C_out)`` gives the partial connections of LeNet-5's C3.
      boundary: The values of the padding: ``'zero'``, ``'constant'``, ``'replicate'``, ``'mirror'``, ``'symmetric'`` or
        ``'periodic'``; see :func:`cnn_jax.ops.pad`.
      boundary_value: The value of ``boundary='constant'``.
      flip_kernel: Flips the window first, which gives the convolution of mathematics.
      rounding: What to do if the stride does not divide the axis: ``'strict'`` raises an error, ``'floor'`` ignores the
        remainder, ``'ceil'`` adds a last, partial window, whose missing inputs follow the boundary rule.
      method: ``'auto'`` or one of ``cnn_jax.ops.METHODS``, which lists what each method supports and its error bound.
        On a CPU ``'auto'`` uses ``'fft'`` for windows of more than 64 entries over few channels if that is much faster.
        Errors are then relative to the norm of the whole image, and a single NaN or infinity affects all outputs of its
        image. With ``'direct'`` neither is the case.
      derivatives: Has no effect; still accepted for one release.
      precision: The same as in ``jax.lax.conv_general_dilated``; on NVIDIA GPUs the default for float32 is TF32, and
        after ``cnn_jax.enable_native`` Winograd's algorithm computes windows of 3 or 5 on a CPU unless one is given.

    Returns:
      ``(*batch, *output, C_out)``.

    Raises:
      UsageError: An argument does not fit. The message names the argument, the numbers and the fix in one line.

    References:
      Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016.

    >>> import jax.numpy as jnp
    >>> image, kernel = jnp.ones((8, 32, 32, 3)), jnp.ones((5, 5, 3, 6))
    >>> conv(image, kernel).shape
    (8, 28, 28, 6)
    >>> conv(image, kernel, padding="SAME", strides=2, boundary="mirror").shape
    (8, 16, 16, 6)
    >>> x, taps = jnp.array([1.0, 2.0, 4.0])[:, None], jnp.array([1.0, 10.0])[:, None, None]
    >>> conv(x, taps)[:, 0], conv(x, taps, flip_kernel=True)[:, 0]
    (Array([21., 42.], dtype=float32), Array([12., 24.], dtype=float32))
    """
    return conv_as(
        "conv",
        x,
        kernel,
        strides=strides,
        padding=padding,
        input_dilation=input_dilation,
        kernel_dilation=kernel_dilation,
        feature_group_count=feature_group_count,
        mask=mask,
        boundary=boundary,
        boundary_value=boundary_value,
        flip_kernel=flip_kernel,
        rounding=rounding,
        method=method,
        derivatives=derivatives,
        precision=precision,
    )


def conv_as(
    op: str,
    x: Shaped[AnyArray, "*batch_and_space channels"],
    kernel: Shaped[AnyArray, "*window channels_per_group features"],
    *,
    strides: int | Sequence[int],
    padding: Padding,
    kernel_dilation: int | Sequence[int],
    feature_group_count: int,
    boundary: str,
    boundary_value: Number,
    rounding: str,
    method: str,
    derivatives: str,
    precision: lax.PrecisionLike,
    input_dilation: int | Sequence[int] = 1,
    mask: Shaped[AnyArray, "..."] | None = None,
    flip_kernel: bool = False,
) -> Shaped[Array, "*batch_and_output features"]:
    """:func:`conv` on behalf of another op, whose name error messages start with."""
    check_option(op, "derivatives", derivatives, DERIVATIVES)
    check_boundary(op, boundary, boundary_value)
    x, kernel, batch = operands(op, x, kernel, feature_group_count)
    geometry = windows(
        op,
        x.shape[1:-1],
        kernel.shape[:-2],
        strides=strides,
        padding=padding,
        input_dilation=input_dilation,
        kernel_dilation=kernel_dilation,
        rounding=rounding,
    )
    kernel = effective_kernel(op, kernel, mask, flip_kernel)
    y = convolve(
        op,
        x,
        kernel,
        geometry,
        feature_group_count,
        boundary=boundary,
        boundary_value=boundary_value,
        method=method,
        precision=precision,
    )
    return y.reshape(*batch, *y.shape[1:])


@one_program("op", "geometry", "groups", "boundary", "method", "precision")
def convolve(
    op: str,
    x: Shaped[Array, "batch *space channels"],
    kernel: Shaped[Array, "*window channels_per_group features"],
    geometry: Windows,
    groups: int,
    *,
    boundary: str = "zero",
    boundary_value: Number = 0.0,
    method: str,
    precision: lax.PrecisionLike,
) -> Shaped[Array, "batch *output features"]:
    """:func:`conv` for arguments that are checked except for the method: applies the boundary rule and the method."""
    check_precision(op, precision)
    chosen = methods.resolve(op, method, x.shape, kernel.shape, geometry, groups)
    dtype = x.dtype
    if chosen != "direct":  # XLA's convolution sums half-precision floats in float32; sums written in jnp do not
        x, kernel = (array.astype(accumulator(dtype)) for array in (x, kernel))
    prepared = prepare(x, geometry, boundary, boundary_value)
    if prepared is None:  # the crop leaves only the zeros between dilated inputs
        return zeros((x.shape[0], *geometry.sliding.output, kernel.shape[-1]), x).astype(dtype)
    x, pairs, rates = prepared
    compute = partial(
        methods.METHODS[chosen].compute,
        strides=geometry.strides,
        padding=pairs,
        input_dilation=rates,
        kernel_dilation=geometry.kernel_dilation,
        feature_group_count=groups,
        precision=precision,
    )
    return over_batches(compute, x, kernel).astype(dtype)
