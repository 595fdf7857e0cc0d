"""The canonical form of a convolution: what every method computes, and how the caller's arguments are brought to it.

Canonical are: ``x`` of shape ``(N, *space, C_in)``, a kernel of the same dtype, every option a tuple with one entry per
spatial axis, a zero boundary, and padding that is never negative.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import (
    INEXACT,
    AnyArray,
    Number,
    Shape,
    as_array,
    as_dtype,
    check_array,
    integer,
    per_axis,
    split_batch,
    wider,
)
from cnn_jax.ops.padding import Padding, Pairs, Sliding, extend, slide, spread


class Windows(NamedTuple):
    """All static options of a sliding window, checked, one entry per spatial axis."""

    window: tuple[int, ...]
    strides: tuple[int, ...]
    input_dilation: tuple[int, ...]
    kernel_dilation: tuple[int, ...]
    sliding: Sliding


def windows(
    op: str,
    sizes: Sequence[int],
    window: Sequence[int],
    *,
    strides: int | Sequence[int],
    padding: Padding,
    input_dilation: int | Sequence[int],
    kernel_dilation: int | Sequence[int],
    rounding: str,
) -> Windows:
    """Checks the options of a convolution as the user wrote them; see :func:`slide` for the arguments and errors."""
    rank = len(window)
    strides = per_axis(op, "strides", strides, rank)
    input_dilation = per_axis(op, "input_dilation", input_dilation, rank)
    kernel_dilation = per_axis(op, "kernel_dilation", kernel_dilation, rank)
    sliding = slide(
        op,
        sizes,
        window,
        strides=strides,
        padding=padding,
        dilation=kernel_dilation,
        input_dilation=input_dilation,
        rounding=rounding,
    )
    return Windows(tuple(window), strides, input_dilation, kernel_dilation, sliding)


def operands(op: str, x: AnyArray, kernel: AnyArray, feature_group_count: int) -> tuple[jax.Array, jax.Array, Shape]:
    """Checks and promotes the two arrays of a convolution; returns ``(N, *space, C)``, the kernel, the batch shape."""
    x, kernel = (
        check_array(op, "x", x, empty=True, dtypes=INEXACT),
        check_array(op, "kernel", kernel, dtypes=INEXACT),
    )
    rank = check_rank(op, kernel, "(*window, C_in / feature_group_count, C_out)")
    merged, batch = split_batch(op, x, rank, f"kernel of shape {kernel.shape}")
    groups = check_groups(op, kernel, feature_group_count)
    needed = kernel.shape[-2] * groups
    if x.shape[-1] != needed:
        grouped = f" times feature_group_count={groups} takes {needed}" if groups > 1 else f" takes {needed}"
        grouped += f" ({groups} does not divide {x.shape[-1]})" if x.shape[-1] % groups else ""
        raise UsageError(
            f"{op}: x of shape {x.shape} has {x.shape[-1]} channels, but kernel of shape {kernel.shape}{grouped}"
            + layout_hint(x, kernel, needed, groups=groups)
        )
    dtype = jnp.result_type(x, kernel)
    return as_dtype(merged, dtype), as_dtype(kernel, dtype), batch


def check_rank(op: str, kernel: AnyArray, layout: str, *, name: str = "kernel") -> int:
    """The number of window axes of a kernel, at least 1."""
    if kernel.ndim < 3:
        raise UsageError(
            f"{op}: {name} of shape {kernel.shape} has no window; it must be {layout}, e.g. "
            f"{name}[None, ...] for a window of 1, or {name}[..., None, None] for one channel and one feature"
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


def layout_hint(
    x: jax.Array,
    kernel: jax.Array,
    needed: int,
    *,
    name: str = "x",
    channels_first: int = 1,
    groups: int = 1,
    order: tuple[int, int] = (1, 0),
) -> str:
    """The end of an error line about channels: which of the two arrays looks channels-first, if one does.

    A kernel that is as wide as ``x`` has channels may be just that. It looks channels-first if its axes make sense in
    that order and not as they are: windows mostly have one size on all axes, and they fit into the input.

    Args:
      x: ``(*batch, *space, C)``.
      kernel: ``(*window, ., .)``.
      needed: The number of channels that the kernel is for.
      name: What the caller calls ``x``.
      channels_first: Where a channels-first kernel, as PyTorch's, has the channels of ``x``, or those of a group.
      groups: The number of groups.
      order: The first two axes of such a kernel in the order in which the op has them as its last two.
    """
    rank = kernel.ndim - 2
    if looks_channels_first(x, needed, rank):
        return f"; {name} looks channels-first, use jnp.moveaxis({name}, {-1 - rank}, -1)"
    window, swapped, space = kernel.shape[:rank], kernel.shape[2:], x.shape[-1 - rank : -1]
    as_it_is = _uniform(window) and all(reach <= size for reach, size in zip(window, space, strict=True))
    if groups * kernel.shape[channels_first] == x.shape[-1] and _uniform(swapped) and not as_it_is:
        axes = ", ".join(str(axis) for axis in (*range(2, kernel.ndim), *order))
        return f"; kernel looks channels-first, use kernel.transpose({axes})"
    return f"; {name} is (*batch, *space, channels), kernel (*window, C_in / groups, C_out)"


def looks_channels_first(x: AnyArray, needed: int, rank: int) -> bool:
    """Whether an input with a wrong number of channels has the right one where channels-first arrays have it.

    Not if its space is a square as it is, and would be none: ``(8, 6, 6, 3)`` for 6 channels has a wrong number.

    >>> looks_channels_first(jnp.ones((8, 3, 32, 32)), 3, 2), looks_channels_first(jnp.ones((8, 6, 6, 3)), 6, 2)
    (True, False)
    """
    last, first = x.shape[-1 - rank : -1], x.shape[-rank:]
    return x.ndim > rank and last[0] == needed != x.shape[-1] and (_uniform(first) or not _uniform(last))


def _uniform(sizes: Sequence[int]) -> bool:
    return len(set(sizes)) == 1


def effective_kernel(op: str, kernel: jax.Array, mask: AnyArray | None, flip: bool) -> jax.Array:
    """The kernel with its masked entries zeroed and, if asked, its window flipped."""
    if mask is not None:
        mask = as_array(op, "mask", mask)
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


def place(
    x: Shaped[Array, "batch *space channels"], dilation: Sequence[int], pairs: Pairs
) -> tuple[Shaped[Array, "batch *kept channels"], Pairs] | None:
    """``x`` and paddings such that dilating, then padding by ``pairs``, needs no negative padding.

    XLA's CPU backend computes wrong float32 convolutions for some negative paddings (openxla/xla#48713), so what they
    would crop is sliced away here; where the cut falls between two dilated neighbours, zeros of the gap come back as
    padding. Returns None when nothing of ``x`` is left.
    """
    index, padding = [slice(None)], []
    for size, rate, (low, high) in zip(x.shape[1:-1], dilation, pairs, strict=True):
        front, back = math.ceil(max(0, -low) / rate), math.ceil(max(0, -high) / rate)
        if front + back >= size:
            return None
        index.append(slice(front, size - back))
        padding.append((low + front * rate, high + back * rate))
    return x[tuple(index)], tuple(padding)


def prepare(
    x: jax.Array, geometry: Windows, boundary: str, boundary_value: Number
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


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype in which sums are formed: at least float32."""
    return wider(dtype, jnp.float32)


def inverted(kernel: Shaped[Array, "..."], groups: int) -> Shaped[Array, "..."]:
    """The kernel of the adjoint: flipped along its window, inputs and outputs exchanged within each group."""
    *window, per_group, features = kernel.shape
    kernel = jnp.flip(kernel, range(len(window))).reshape(*window, per_group, groups, features // groups)
    return jnp.moveaxis(kernel, -1, -3).swapaxes(-1, -2).reshape(*window, features // groups, groups * per_group)
