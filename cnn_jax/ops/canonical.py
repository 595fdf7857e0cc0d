"""The canonical form of a convolution, which every method computes, and the conversion of arguments to it.

In canonical form ``x`` has the shape ``(N, *space, C_in)``, the kernel has the same dtype, every option is a tuple with
one entry per spatial axis, the boundary is zero, and no padding is negative.
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
)
from cnn_jax.ops.padding import Padding, Pairs, Sliding, extend, slide, spread


class Windows(NamedTuple):
    """All checked static options of a sliding window, with one entry per spatial axis."""

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
    """Checks the options of a convolution as the user gave them; for the arguments and errors see :func:`slide`."""
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
    """Checks and promotes two arrays; returns ``x`` as ``(N, *space, C)``, the kernel and the batch shape."""
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
    """Returns the number of window axes of a kernel, which must be at least 1."""
    if kernel.ndim < 3:
        raise UsageError(
            f"{op}: {name} of shape {kernel.shape} has no window; it must be {layout}, e.g. "
            f"{name}[None, ...] for a window of 1, or {name}[..., None, None] for one channel and one feature"
        )
    return kernel.ndim - 2


def check_groups(op: str, kernel: jax.Array, feature_group_count: int) -> int:
    """Returns the number of groups as an int, which must divide the number of features of the kernel."""
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
    """The end of an error message about channels: it says which of the two arrays looks channels-first, if one does.

    The size of a kernel axis may equal the number of channels of ``x`` by chance. A kernel looks channels-first only if
    its axes are plausible in that order and implausible as given. A plausible window has the same size on all axes and
    fits into the input.

    Args:
      x: ``(*batch, *space, C)``.
      kernel: ``(*window, ., .)``.
      needed: The number of channels that the kernel requires.
      name: The name of ``x`` in the calling op.
      channels_first: The axis of a channels-first kernel (as in PyTorch) that has the channels of ``x``, or of a group.
      groups: The number of groups.
      order: The first two axes of a channels-first kernel, in the order in which they are the last two axes in the op.
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
    """Whether an input with a wrong number of channels has the right number on the channels-first axis.

    False if its spatial sizes are equal with channels last and differ with channels first. ``(8, 6, 6, 3)`` for 6
    channels simply has a wrong number of channels.

    >>> looks_channels_first(jnp.ones((8, 3, 32, 32)), 3, 2), looks_channels_first(jnp.ones((8, 6, 6, 3)), 6, 2)
    (True, False)
    """
    last, first = x.shape[-1 - rank : -1], x.shape[-rank:]
    return x.ndim > rank and last[0] == needed != x.shape[-1] and (_uniform(first) or not _uniform(last))


def _uniform(sizes: Sequence[int]) -> bool:
    return len(set(sizes)) == 1


def effective_kernel(op: str, kernel: jax.Array, mask: AnyArray | None, flip: bool) -> jax.Array:
    """The kernel with its masked entries set to zero and, with ``flip``, its window flipped."""
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
    """Crops ``x`` so that dilating it and then padding it by ``pairs`` needs no negative padding.

    XLA's CPU backend computes wrong float32 convolutions for some negative paddings (openxla/xla#48713), so the entries
    that they would crop are sliced off here. If the crop ends between two dilated neighbours, the remaining zeros
    between them become padding. Returns the cropped ``x`` and its paddings, or None if nothing of ``x`` is left.
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
    """Applies the boundary rule and the crops of ``geometry``.

    Returns:
      ``x``, zero paddings that are not negative, and the remaining input dilation; None if a crop leaves only zeros.
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


def inverted(kernel: Shaped[Array, "..."], groups: int) -> Shaped[Array, "..."]:
    """The kernel of the adjoint: its window is flipped, and inputs and outputs are exchanged within each group."""
    *window, per_group, features = kernel.shape
    kernel = jnp.flip(kernel, range(len(window))).reshape(*window, per_group, groups, features // groups)
    return jnp.moveaxis(kernel, -1, -3).swapaxes(-1, -2).reshape(*window, features // groups, groups * per_group)
