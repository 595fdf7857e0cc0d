"""Window positions: padding names, boundary rules, rounding, output sizes, and errors for windows that do not fit.

Convolution and pooling share this module. :func:`slide` converts the caller's padding (names, ints, pairs) to numbers.
:func:`pad` extends an array by a boundary rule. Per axis, with input size ``n``, window ``k`` at dilation ``d``,
effective window ``K = (k - 1) d + 1`` and stride ``s``, the windows of a padded axis start at ``0, s, 2s, ...`` and
there are ``(n + low + high - K) / s + 1`` windows. ``rounding`` controls what happens if ``s`` does not divide.

==============  =====================================================================================================
padding         low and high padding of one axis
==============  =====================================================================================================
``VALID``       none
``SAME``        gives ``ceil(n / s)`` windows; an odd entry goes to the high side (TensorFlow, lax)
``SAME_LOWER``  the same, but an odd entry goes to the low side (ONNX)
``HALF``        ``K // 2`` on both sides: keeps the size if ``K`` is odd and ``s`` is 1
``FULL``        ``K - 1`` on both sides: every window that overlaps the input
``CAUSAL``      ``K - 1`` on the low side: an output depends on no later input
int, or pairs   as given, for every axis or one per axis; negative numbers crop
==============  =====================================================================================================

References:
  Dumoulin and Visin, A guide to convolution arithmetic for deep learning, 2016.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError, nearest
from cnn_jax.ops.arguments import (
    INEXACT,
    AnyArray,
    Number,
    by,
    check_array,
    check_filled,
    check_number,
    check_option,
    integer,
)
from cnn_jax.ops.wide import in_float32

Pair = tuple[int, int]
Pairs = tuple[Pair, ...]
Padding = str | int | Sequence[str | int | Sequence[int]]

PADDINGS = ("VALID", "SAME", "SAME_LOWER", "HALF", "FULL", "CAUSAL")
ROUNDINGS = ("strict", "floor", "ceil")
# Names from the image-processing literature, and NumPy's names for them.
BOUNDARIES = {
    "zero": "constant",
    "constant": "constant",
    "replicate": "edge",
    "mirror": "reflect",
    "symmetric": "symmetric",
    "periodic": "wrap",
}


class Sliding(NamedTuple):
    """The positions of a sliding window: one entry per spatial axis."""

    output: tuple[int, ...]
    """The number of windows."""
    padding: Pairs
    """The requested (low, high) padding; negative if it crops."""
    overhang: tuple[int, ...]
    """How far a last, partial window (``rounding='ceil'``) extends beyond the padded input; 0 without one."""

    @property
    def reach(self) -> Pairs:
        """The padding with the overhang added on the high side, so that every window is complete."""
        return tuple((low, high + over) for (low, high), over in zip(self.padding, self.overhang, strict=True))


def dilated(sizes: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    """The sizes after a dilation, which inserts ``dilation - 1`` entries between neighbours.

    >>> dilated((3, 5), (1, 2))
    (3, 9)
    """
    return tuple((size - 1) * rate + 1 for size, rate in zip(sizes, dilation, strict=True))


def slide(
    op: str,
    sizes: Sequence[int],
    window: Sequence[int],
    *,
    strides: Sequence[int],
    padding: Padding,
    dilation: Sequence[int] | None = None,
    input_dilation: Sequence[int] | None = None,
    rounding: str = "floor",
    noun: str = "kernel",
) -> Sliding:
    """Converts padding and rounding to numbers and checks that every window fits.

    Args:
      op: The calling op; error messages start with it.
      sizes: Spatial sizes of the input.
      window: Sizes of the window.
      strides: One int >= 1 per axis, like both dilations (see :func:`cnn_jax.ops.arguments.per_axis`).
      padding: The padding as the user gave it; see the table of this module. A sequence may mix names, ints and pairs.
      dilation: The dilation of the window, 1 by default.
      input_dilation: The dilation of the input, 1 by default; padding is added around the dilated input.
      rounding: What to do if the stride does not divide the axis: ``'strict'`` raises an error, ``'floor'`` ignores the
        remainder, ``'ceil'`` adds a last, partial window if that window starts inside the input or its low padding (as
        in Caffe and PyTorch).
      noun: The op's word for its window, for error messages.

    Raises:
      UsageError: The window does not fit; padding or rounding is unknown; a crop leaves nothing; the stride leaves a
        remainder under ``rounding='strict'``.

    >>> slide("conv", (28, 28), (5, 5), strides=(2, 2), padding="SAME")
    Sliding(output=(14, 14), padding=((1, 2), (1, 2)), overhang=(0, 0))
    >>> slide("max_pool", (112,), (3,), strides=(2,), padding="VALID", rounding="ceil")
    Sliding(output=(56,), padding=((0, 0),), overhang=(1,))
    """
    check_option(op, "rounding", rounding, ROUNDINGS)
    ones = (1,) * len(window)
    extents = dilated(sizes, input_dilation or ones)
    reaches = dilated(window, dilation or ones)
    pairs = _resolve(op, padding, extents, reaches, strides)
    _check_fit(op, padding, pairs, extents, reaches, sizes, window, noun)

    output, overhang = [], []
    for axis, (extent, reach, stride, (low, high)) in enumerate(zip(extents, reaches, strides, pairs, strict=True)):
        count, over, rest = count_windows(extent, reach, stride, low, high, rounding)
        if rest and rounding == "strict":
            raise UsageError(
                f"{op}: stride {stride} does not divide ({extent + low + high} - {reach}) on spatial axis {axis} "
                f"(input {extent} padded by {low} and {high}, {noun} {reach}): {rest} left over; "
                f"pad by {stride - rest} more, crop {rest}, or use rounding='floor'"
            )
        output.append(count)
        overhang.append(over)
    return Sliding(tuple(output), pairs, tuple(overhang))


def count_windows(
    extent: int, reach: int, stride: int, low: int, high: int, rounding: str = "floor"
) -> tuple[int, int, int]:
    """For one axis: the number of windows, the overhang of a partial last window, and the remainder of the stride."""
    steps, rest = divmod(extent + low + high - reach, stride)
    if rest and rounding == "ceil" and (steps + 1) * stride < extent + low:
        return steps + 2, stride - rest, rest
    return steps + 1, 0, rest


def _resolve(
    op: str, padding: Padding, extents: Sequence[int], reaches: Sequence[int], strides: Sequence[int]
) -> Pairs:
    entries = per_axis_padding(op, padding, len(extents))
    return tuple(pair(op, *axis) for axis in zip(entries, extents, reaches, strides, strict=True))


def per_axis_padding(op: str, padding: Padding, rank: int) -> list[Any]:
    """Returns one entry (a name, an int, or a pair) for each axis."""
    if not isinstance(padding, Sequence) or isinstance(padding, str):
        return [padding] * rank
    if len(padding) != rank:
        hint = f"write (({padding[0]}, {padding[1]}),)" if rank == 1 and len(padding) == 2 else "give one per axis"
        raise UsageError(f"{op}: padding={padding!r} has {len(padding)} entries for {rank} spatial axes; {hint}")
    return list(padding)


def pair(op: str, entry: Any, extent: int, reach: int, stride: int) -> Pair:
    """Converts a name, an int or a pair to the (low, high) padding of one axis."""
    if isinstance(entry, str):
        match entry:
            case "VALID":
                return 0, 0
            case "SAME" | "SAME_LOWER":
                total = max((-(-extent // stride) - 1) * stride + reach - extent, 0)
                small, large = total // 2, total - total // 2
                return (small, large) if entry == "SAME" else (large, small)
            case "HALF":
                return reach // 2, reach // 2
            case "FULL":
                return reach - 1, reach - 1
            case "CAUSAL":
                return reach - 1, 0
            case "CIRCULAR":
                raise UsageError(f"{op}: unknown padding='CIRCULAR'; use padding='SAME' with boundary='periodic'")
            case _:
                raise UsageError(f"{op}: unknown padding={entry!r}; {nearest(entry.upper(), PADDINGS)}")
    if isinstance(entry, Sequence):
        if len(entry) != 2:
            raise UsageError(f"{op}: padding {entry!r} of one axis has {len(entry)} numbers; write (low, high)")
        return integer(op, "padding", entry[0]), integer(op, "padding", entry[1])
    if isinstance(entry, float) or not hasattr(entry, "__index__"):
        raise UsageError(
            f"{op}: padding={entry!r} is not a valid padding for an axis; use a name such as 'SAME', "
            f"an int, or (low, high)"
        )
    number = integer(op, "padding", entry)
    return number, number


def _check_fit(
    op: str,
    padding: Padding,
    pairs: Pairs,
    extents: Sequence[int],
    reaches: Sequence[int],
    sizes: Sequence[int],
    window: Sequence[int],
    noun: str,
) -> None:
    for axis, (extent, (low, high)) in enumerate(zip(extents, pairs, strict=True)):
        if extent + min(low, 0) + min(high, 0) < 1:
            raise UsageError(
                f"{op}: padding ({low}, {high}) crops all of spatial axis {axis}, which has size {extent}; "
                f"crop at most {extent - 1}"
            )
    missing = max(
        reach - extent - low - high for extent, reach, (low, high) in zip(extents, reaches, pairs, strict=True)
    )
    if missing > 0:
        shown = f"{noun} {by(window)}" + (f" (dilated {by(reaches)})" if tuple(reaches) != tuple(window) else "")
        where = f"input {by(sizes)}" + (f" (dilated {by(extents)})" if tuple(extents) != tuple(sizes) else "")
        name = padding if isinstance(padding, str) else repr(padding)
        more = "" if not any(map(any, pairs)) else " more"
        raise UsageError(
            f"{op}: {shown} does not fit {where} with padding {name}; "
            f"pad by at least {-(-missing // 2)}{more} or use padding='SAME'"
        )


def check_boundary(op: str, boundary: str, boundary_value: Number) -> None:
    """Raises a ``UsageError`` for an unknown boundary, or for a value that the boundary does not use."""
    renamed = {theirs: ("NumPy", ours) for ours, theirs in BOUNDARIES.items()} | {"circular": ("PyTorch", "periodic")}
    if boundary in renamed and boundary not in BOUNDARIES:
        library, ours = renamed[boundary]
        raise UsageError(f"{op}: unknown boundary={boundary!r}; {library}'s {boundary!r} is {ours!r} here")
    check_option(op, "boundary", boundary, BOUNDARIES)
    check_number(op, "boundary_value", boundary_value)
    if boundary != "constant" and not (isinstance(boundary_value, int | float) and boundary_value == 0):
        raise UsageError(
            f"{op}: boundary_value={boundary_value!r} has no effect with boundary={boundary!r}; use boundary='constant'"
        )


def pad(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    widths: Sequence[int | Sequence[int]],
    *,
    boundary: str = "zero",
    boundary_value: Number = 0.0,
) -> Shaped[Array, "*batch_and_padded channels"]:
    """Extends the spatial axes of an array by a boundary rule; negative widths crop.

    Widths may be larger than the array, because every rule extends an array to any length. For an array ``a b c d``:

    =============  ============================  ==============
    boundary       two entries on each side      NumPy's name
    =============  ============================  ==============
    ``zero``       ``0 0 | a b c d | 0 0``       ``constant``
    ``constant``   ``v v | a b c d | v v``       ``constant``
    ``replicate``  ``a a | a b c d | d d``       ``edge``
    ``mirror``     ``c b | a b c d | c b``       ``reflect``
    ``symmetric``  ``b a | a b c d | d c``       ``symmetric``
    ``periodic``   ``c d | a b c d | a b``       ``wrap``
    =============  ============================  ==============

    Args:
      x: ``(*batch, *space, C)``; bfloat16, float16, float32, float64 or complex.
      widths: One int or (low, high) pair per spatial axis; these are the axes just before the channels.
      boundary: One of the names in the table.
      boundary_value: The value ``v`` of ``'constant'``.

    Returns:
      ``(*batch, *padded, C)`` in the dtype of ``x``.

    Raises:
      UsageError: Unknown boundary, more widths than axes, or a crop that leaves nothing.

    >>> x = jnp.array([1.0, 2.0, 3.0, 4.0])[:, None]
    >>> pad(x, [(2, 1)], boundary="mirror")[:, 0]
    Array([3., 2., 1., 2., 3., 4., 3.], dtype=float32)
    >>> pad(x, [(-1, 2)], boundary="periodic")[:, 0]
    Array([2., 3., 4., 1., 2.], dtype=float32)
    """
    x = check_array("pad", "x", x, empty=True, dtypes=INEXACT)
    check_boundary("pad", boundary, boundary_value)
    if not isinstance(widths, Sequence):
        raise UsageError(f"pad: widths={widths!r} must have one int or (low, high) pair per spatial axis")
    if len(widths) >= x.ndim:
        raise UsageError(
            f"pad: {len(widths)} widths, but x of shape {x.shape} has only {x.ndim - 1} axes before its channels"
        )
    check_filled("pad", "x", x, range(x.ndim - 1 - len(widths), x.ndim))
    named = next((width for width in widths if isinstance(width, str)), None)
    if named is not None:
        raise UsageError(
            f"pad: widths={widths!r} contains the name {named!r}, which only convolutions accept; give ints or pairs"
        )
    pairs = tuple(pair("pad", width, 0, 0, 1) for width in widths)
    for size, (low, high) in zip(x.shape[x.ndim - 1 - len(pairs) :], pairs, strict=False):
        if size + low + high < 1:
            raise UsageError(f"pad: widths ({low}, {high}) crop all of an axis of size {size}; crop less")
    return extend(x, pairs, boundary=boundary, boundary_value=boundary_value)


def extend(
    x: Shaped[Array, "..."], pairs: Pairs, *, boundary: str, boundary_value: Number = 0.0
) -> Shaped[Array, "..."]:
    """:func:`pad` for checked arguments; ``pairs`` are for the axes just before the last."""
    if not any(map(any, pairs)):
        return x
    before = (0, 0)
    around = [before] * (x.ndim - 1 - len(pairs)) + [(max(low, 0), max(high, 0)) for low, high in pairs] + [before]
    options = {"constant_values": boundary_value} if boundary == "constant" else {}
    mode = BOUNDARIES[boundary]
    if boundary in ("zero", "constant"):
        x = jnp.pad(x, around, mode=mode, **options)
    else:  # entries are repeated, so their gradients are sums
        x = in_float32(lambda x: jnp.pad(x, around, mode=mode), x)
    # Cropping comes last, because some rules copy entries that a crop removes.
    crop = [before] * (x.ndim - 1 - len(pairs)) + [(max(-low, 0), max(-high, 0)) for low, high in pairs] + [before]
    return x[tuple(slice(low, size - high) for size, (low, high) in zip(x.shape, crop, strict=True))]


def spread(x: Shaped[Array, "..."], rates: Sequence[int]) -> Shaped[Array, "..."]:
    """Inserts ``rate - 1`` zeros between neighbours on the spatial axes, which are the axes just before the last."""
    if all(rate == 1 for rate in rates):
        return x
    gaps = [0] * (x.ndim - 1 - len(rates)) + [rate - 1 for rate in rates] + [0]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, gap) for gap in gaps])
