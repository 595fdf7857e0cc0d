"""Convolution of any rank: one core, :func:`conv`, and its depthwise and separable forms.

:func:`conv` checks its arguments, brings them to a canonical form (one batch axis, zero boundary, no crop), and hands
them to a method (``cnn_jax.ops.methods``). What a deep-learning library calls convolution is cross-correlation; with
``flip_kernel=True`` it is the convolution of mathematics.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops import methods
from cnn_jax.ops.arguments import check_array, check_option, integer, split_batch
from cnn_jax.ops.padding import Padding, Pairs, Windows, check_boundary, extend, place, spread, windows


def conv(
    x: Shaped[Array, "*batch_and_space channels"],
    kernel: Shaped[Array, "*window channels_per_group features"],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    input_dilation: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    mask: Shaped[Array, "..."] | None = None,
    boundary: str = "zero",
    boundary_value: float = 0.0,
    flip_kernel: bool = False,
    rounding: str = "floor",
    method: str = "auto",
    derivatives: str = "custom",
    precision: lax.PrecisionLike = None,
) -> Shaped[Array, "*batch_and_output features"]:
    """Slides a kernel over an input of any rank and sums the products: the convolution of convolutional networks.

    Per output position ``p`` and feature ``o``: ``y[p, o] = sum over t, c of x[p * stride + t * dilation - low, c] *
    kernel[t, c, o]``, where ``t`` runs over the window and ``c`` over the channels of the group of ``o``.

    Args:
      x: ``(*batch, *space, C_in)``, any number of batch axes, also none; bfloat16, float16, float32 or float64.
      kernel: ``(*window, C_in / feature_group_count, C_out)``; its window gives the rank. Of two different dtypes the
        wider is used, as in ``jnp.result_type``.
      strides: Distance of neighbouring windows, like the dilations one int or one per axis.
      padding: ``'VALID'``, ``'SAME'``, ``'SAME_LOWER'``, ``'HALF'``, ``'FULL'``, ``'CAUSAL'``, an int, or one of these
        or a (low, high) pair per axis; negative numbers crop. See ``cnn_jax.ops.padding``.
      input_dilation: Distance of neighbouring inputs, zeros between them; padding is around the dilated input.
      kernel_dilation: Distance of neighbouring kernel entries; 2 skips every other input.
      feature_group_count: Number of groups of channels that do not see each other.
      mask: Booleans that broadcast to the kernel: its entries where the mask is False count as zero and get zero
        gradient. ``(C_in, C_out)`` gives the partial connections of LeNet-5's C3.
      boundary: What padding is filled with: ``'zero'``, ``'constant'``, ``'replicate'``, ``'mirror'``, ``'symmetric'``
        or ``'periodic'``; see :func:`cnn_jax.ops.pad`.
      boundary_value: The value of ``boundary='constant'``.
      flip_kernel: Flips the window first: convolution in the mathematician's sense.
      rounding: Where the stride does not divide: ``'strict'`` raises, ``'floor'`` ignores the rest, ``'ceil'`` adds a
        last, partial window, filled up by the boundary rule.
      method: ``'auto'`` or one of ``cnn_jax.ops.METHODS``, which says what each supports and its error bound.
      derivatives: ``'custom'``: fast reverse-mode gradients of every order; ``'jax'``: those that JAX makes, slower on a
        CPU, which support ``jvp``, ``hessian`` and the like too.
      precision: As for ``jax.lax.conv_general_dilated``; on NVIDIA GPUs the default for float32 is TF32.

    Returns:
      ``(*batch, *output, C_out)``.

    Raises:
      UsageError: One line that names the argument, the numbers and the mend, for anything that does not fit.

    References:
      Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016.

    >>> image, kernel = jnp.ones((8, 32, 32, 3)), jnp.ones((5, 5, 3, 6))
    >>> conv(image, kernel).shape
    (8, 28, 28, 6)
    >>> conv(image, kernel, padding="SAME", strides=2, boundary="mirror").shape
    (8, 16, 16, 6)
    >>> x, taps = jnp.array([1.0, 2.0, 4.0])[:, None], jnp.array([1.0, 10.0])[:, None, None]
    >>> conv(x, taps)[:, 0], conv(x, taps, flip_kernel=True)[:, 0]
    (Array([21., 42.], dtype=float32), Array([12., 24.], dtype=float32))
    """
    op = "conv"
    check_option(op, "derivatives", derivatives, ("custom", "jax"))
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
    chosen = methods.resolve(op, method, x, kernel, geometry, feature_group_count)
    prepared = prepare(x, geometry, boundary, boundary_value)
    if prepared is None:  # a crop that leaves only the zeros between dilated inputs
        return jnp.zeros((*batch, *geometry.sliding.output, kernel.shape[-1]), x.dtype)
    x, pairs, rates = prepared
    y = methods.function(chosen, derivatives)(
        x,
        kernel,
        strides=geometry.strides,
        padding=pairs,
        input_dilation=rates,
        kernel_dilation=geometry.kernel_dilation,
        feature_group_count=feature_group_count,
        precision=precision,
    )
    return y.reshape(*batch, *y.shape[1:])


def depthwise_conv(
    x: Shaped[Array, "*batch_and_space channels"],
    kernel: Shaped[Array, "*window channels multiplier"],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    kernel_dilation: int | Sequence[int] = 1,
    boundary: str = "zero",
    boundary_value: float = 0.0,
    rounding: str = "floor",
    method: str = "auto",
    derivatives: str = "custom",
    precision: lax.PrecisionLike = None,
) -> Shaped[Array, "*batch_and_output features"]:
    """Filters each channel by itself, ``multiplier`` times: :func:`conv` with as many groups as channels.

    Args:
      x: ``(*batch, *space, C)``.
      kernel: ``(*window, C, multiplier)``.
      strides: This and all further options are those of :func:`conv`.

    Returns:
      ``(*batch, *output, C * multiplier)``; feature ``c * multiplier + m`` is channel ``c`` filtered by
      ``kernel[..., c, m]``.

    Raises:
      UsageError: As :func:`conv`; also if the kernel is for another number of channels.

    >>> depthwise_conv(jnp.ones((56, 56, 128)), jnp.ones((3, 3, 128, 1)), padding="SAME").shape
    (56, 56, 128)
    """
    op = "depthwise_conv"
    x, kernel = check_array(op, "x", x), check_array(op, "kernel", kernel)
    check_rank(op, kernel, "(*window, C, multiplier)")
    *window, channels, multiplier = kernel.shape
    if x.shape[-1] != channels:
        raise UsageError(
            f"{op}: x of shape {x.shape} has {x.shape[-1]} channels, but kernel of shape {kernel.shape} takes {channels}"
            + _layout_hint(x, kernel, channels)
        )
    return conv(
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
    x: Shaped[Array, "*batch_and_space channels"],
    depthwise_kernel: Shaped[Array, "*window channels multiplier"],
    pointwise_kernel: Shaped[Array, "..."],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    kernel_dilation: int | Sequence[int] = 1,
    boundary: str = "zero",
    boundary_value: float = 0.0,
    rounding: str = "floor",
    method: str = "auto",
    derivatives: str = "custom",
    precision: lax.PrecisionLike = None,
) -> Shaped[Array, "*batch_and_output features"]:
    """A depthwise convolution, then a matrix product that mixes the channels at each position (Sifre 2014; Xception).

    Args:
      x: ``(*batch, *space, C)``.
      depthwise_kernel: ``(*window, C, multiplier)``.
      pointwise_kernel: ``(C * multiplier, C_out)``.
      strides: This and all further options are those of :func:`conv`; ``method`` is for the depthwise part.

    Returns:
      ``(*batch, *output, C_out)``.

    Raises:
      UsageError: As :func:`depthwise_conv`; also if the two kernels do not match.

    >>> separable_conv(jnp.ones((28, 28, 8)), jnp.ones((3, 3, 8, 2)), jnp.ones((16, 32))).shape
    (26, 26, 32)
    """
    op = "separable_conv"
    pointwise_kernel = check_array(op, "pointwise_kernel", pointwise_kernel)
    features = depthwise_kernel.shape[-2] * depthwise_kernel.shape[-1]
    if pointwise_kernel.ndim != 2 or pointwise_kernel.shape[0] != features:
        raise UsageError(
            f"{op}: pointwise_kernel of shape {pointwise_kernel.shape} must be ({features}, C_out), "
            f"because depthwise_kernel of shape {depthwise_kernel.shape} makes {features} features"
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
    return jnp.matmul(y.astype(dtype), pointwise_kernel.astype(dtype), precision=precision)


def operands(
    op: str, x: jax.Array, kernel: jax.Array, feature_group_count: int
) -> tuple[jax.Array, jax.Array, tuple[int, ...]]:
    """Checks and promotes the two arrays of a convolution; returns ``(N, *space, C)``, the kernel, the batch shape."""
    x, kernel = check_array(op, "x", x), check_array(op, "kernel", kernel)
    rank = check_rank(op, kernel, "(*window, C_in / feature_group_count, C_out)")
    merged, batch = split_batch(op, x, rank, f"kernel of shape {kernel.shape}")
    groups = check_groups(op, kernel, feature_group_count)
    needed = kernel.shape[-2] * groups
    if x.shape[-1] != needed:
        grouped = f" times feature_group_count={groups} takes {needed}" if groups > 1 else f" takes {needed}"
        raise UsageError(
            f"{op}: x of shape {x.shape} has {x.shape[-1]} channels, but kernel of shape {kernel.shape}{grouped}"
            + _layout_hint(x, kernel, needed)
        )
    dtype = jnp.result_type(x, kernel)
    return merged.astype(dtype), kernel.astype(dtype), batch


def check_rank(op: str, kernel: jax.Array, layout: str) -> int:
    """The number of window axes of a kernel, at least 1."""
    if kernel.ndim < 3:
        raise UsageError(
            f"{op}: kernel of shape {kernel.shape} has no window; it must be {layout}, e.g. "
            f"kernel[None, ...] for a window of 1, or kernel[..., None, None] for one channel and one feature"
        )
    return kernel.ndim - 2


def check_groups(op: str, kernel: jax.Array, feature_group_count: int) -> int:
    """The number of groups as an int that divides the features of the kernel."""
    groups = integer(op, "feature_group_count", feature_group_count)
    if groups < 1:
        raise UsageError(f"{op}: feature_group_count={groups} must be at least 1")
    if kernel.shape[-1] % groups:
        raise UsageError(
            f"{op}: feature_group_count={groups} does not divide the {kernel.shape[-1]} features of kernel "
            f"{kernel.shape}; use a multiple of {groups} features"
        )
    return groups


def _layout_hint(x: jax.Array, kernel: jax.Array, needed: int) -> str:
    rank = kernel.ndim - 2
    if x.shape[-1 - rank] == needed:
        return f"; x looks channels-first, use jnp.moveaxis(x, {-1 - rank}, -1)"
    if kernel.shape[1] == x.shape[-1]:
        axes = ", ".join(str(axis) for axis in (*range(2, kernel.ndim), 1, 0))
        return f"; kernel looks like (C_out, C_in, *window), use kernel.transpose({axes})"
    return "; channels come last in x, last but one in kernel"


def effective_kernel(op: str, kernel: jax.Array, mask: jax.Array | None, flip: bool) -> jax.Array:
    """The kernel with its masked entries zeroed and, if asked, its window flipped."""
    if mask is not None:
        mask = jnp.asarray(mask)
        if mask.dtype != bool:
            raise UsageError(f"{op}: mask has dtype {mask.dtype.name}, but must be bool; write mask != 0")
        try:
            mask = jnp.broadcast_to(mask, kernel.shape)
        except ValueError:
            raise UsageError(
                f"{op}: mask of shape {mask.shape} does not broadcast to kernel {kernel.shape}; use (C_in, C_out)"
            ) from None
        kernel = jnp.where(mask, kernel, jnp.zeros((), kernel.dtype))
    return jnp.flip(kernel, range(kernel.ndim - 2)) if flip else kernel


def prepare(
    x: jax.Array, geometry: Windows, boundary: str, boundary_value: float
) -> tuple[jax.Array, Pairs, tuple[int, ...]] | None:
    """``x``, zero padding >= 0 and input dilation that stand for the boundary rule and the crops of ``geometry``.

    Returns None when a crop leaves nothing but zeros.
    """
    pairs, rates = geometry.sliding.reach, geometry.input_dilation
    if boundary == "zero":
        placed = place(x, rates, pairs)
        return placed and (*placed, rates)
    ones = (1,) * len(rates)
    return (
        extend(spread(x, rates), pairs, boundary=boundary, boundary_value=boundary_value),
        ((0, 0),) * len(ones),
        ones,
    )
