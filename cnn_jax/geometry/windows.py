"""How a layer looks at its input: the window it slides, read off the layer's own attributes.

Nothing here knows the layers of ``cnn_jax.nn``: any module is understood that has ``kernel_size`` or ``window_shape``,
``strides`` and ``padding``, and where it has them ``kernel_dilation`` (or ``dilation``), ``input_dilation`` and
``rounding``. One whose attributes mean something else says so in a property ``window``, a :class:`Window`.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from flax import nnx

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import per_axis
from cnn_jax.ops.padding import Padding, Pairs, dilated, pair, per_axis_padding, slide

PerAxis = int | Sequence[int]


@dataclasses.dataclass(frozen=True)
class Window:
    """A sliding window, of a convolution or a pool alike.

    Attributes:
      kernel_size: One int, which stands for every axis, or one per axis; as do the others.
      strides: 1 by default.
      padding: A name, numbers or pairs, as for :func:`cnn_jax.ops.conv`; none by default.
      kernel_dilation: 1 by default.
      input_dilation: Greater than 1 for transposed convolutions, whose stride it is; padding goes around it.
      rounding: Where the stride does not divide: ``'strict'``, ``'floor'`` or ``'ceil'``.
      transposed: Whether this is a transposed convolution on every axis, also where its stride is 1; for :meth:`taps`.

    >>> Window(11, strides=4, padding=2).output_size((224, 224))
    (55, 55)
    """

    kernel_size: PerAxis
    strides: PerAxis = 1
    padding: Padding = "VALID"
    kernel_dilation: PerAxis = 1
    input_dilation: PerAxis = 1
    rounding: str = "floor"
    transposed: bool = False

    @property
    def rank(self) -> int | None:
        """The number of spatial axes, or None where a single int stands for all of them."""
        return None if isinstance(self.kernel_size, int) else len(self.kernel_size)

    def over(self, rank: int) -> dict[str, tuple[int, ...]]:
        """Every number written out for ``rank`` axes.

        >>> Window(3, strides=(2, 1)).over(2)["kernel_size"]
        (3, 3)
        """
        names = ("kernel_size", "strides", "kernel_dilation", "input_dilation")
        return {name: per_axis("Window", name, getattr(self, name), rank) for name in names}

    def output_size(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """The number of windows along each axis.

        Raises:
          UsageError: The window does not fit.
        """
        numbers = self.over(len(sizes))
        return slide(
            "window",
            sizes,
            numbers["kernel_size"],
            strides=numbers["strides"],
            padding=_numbered(self.padding, dilated(numbers["kernel_size"], numbers["kernel_dilation"])),
            dilation=numbers["kernel_dilation"],
            input_dilation=numbers["input_dilation"],
            rounding=self.rounding,
        ).output

    def taps(self, sizes: Sequence[int], output: Sequence[int]) -> int:
        """How many pairs of a window's entry and an input there are, padding included, in all windows together.

        Every window meets an input, or padding, with each of its entries. Where the input is spread out, in transposed
        convolutions, the zeros between its neighbours do not count: it is each input that meets every entry, if only
        beyond the output's edge. So a transposed convolution counts what the convolution does that it transposes.

        Args:
          sizes: Of the input.
          output: The number of windows along each axis.

        >>> Window(3, padding=1).taps((4, 4), (4, 4)), Window(3, padding=2, input_dilation=2).taps((4, 4), (9, 9))
        (144, 144)
        """
        counts = []
        for size, number, kernel, stride, dilation, spread, (low, _) in zip(
            sizes, output, *self.over(len(sizes)).values(), self.pads(sizes, len(sizes)), strict=True
        ):
            if spread == 1 and not self.transposed:
                counts.append(number * kernel)
                continue
            counts.append(
                sum(
                    (place * spread + low - tap * dilation) % stride == 0
                    for place in range(size)
                    for tap in range(kernel)
                )
            )
        return math.prod(counts)

    def pads(self, sizes: Sequence[int] | None, rank: int) -> Pairs:
        """The (low, high) padding of each axis; only ``'SAME'`` with a stride depends on the sizes of the input.

        Raises:
          UsageError: It depends on the sizes, and they are None.

        >>> Window(3, padding="SAME").pads(None, 1), Window(3, strides=2, padding="SAME").pads((224,), 1)
        (((1, 1),), ((0, 1),))
        """
        numbers = self.over(rank)
        reaches, strides = dilated(numbers["kernel_size"], numbers["kernel_dilation"]), numbers["strides"]
        entries = per_axis_padding("window", _numbered(self.padding, reaches), rank)
        if sizes is None:
            if any(str(entry).startswith("SAME") and s > 1 for entry, s in zip(entries, strides, strict=True)):
                raise UsageError(
                    f"the padding of a window with padding={self.padding!r} and strides={self.strides} depends on the "
                    "size of its input; give input_size"
                )
            sizes = (1,) * rank  # any other padding is the same for every size
        extents = dilated(sizes, numbers["input_dilation"])
        return tuple(pair("window", *axis) for axis in zip(entries, extents, reaches, strides, strict=True))


def window_of(layer: Any) -> Window | None:
    """The window that a layer slides over its input, or None for a layer that has none, or hides it.

    >>> from cnn_jax import nn
    >>> window_of(nn.MaxPool((3, 3), strides=2)).strides
    (2, 2)
    """
    own = getattr(layer, "window", None)
    if isinstance(own, Window):
        return own
    if isinstance(layer, nnx.ConvTranspose):
        return transposed_window(
            layer.kernel_size, layer.strides or 1, layer.padding, layer.kernel_dilation or 1, layer.transpose_kernel
        )
    size = getattr(layer, "kernel_size", None) or getattr(layer, "window_shape", None)
    if not size:
        return None
    return Window(
        kernel_size=size,
        strides=getattr(layer, "strides", None) or 1,
        padding=getattr(layer, "padding", "VALID"),
        kernel_dilation=getattr(layer, "kernel_dilation", None) or getattr(layer, "dilation", None) or 1,
        input_dilation=getattr(layer, "input_dilation", None) or 1,
        rounding=getattr(layer, "rounding", "floor"),
    )


def adaptive_size(layer: Any, rank: int) -> tuple[int, ...] | None:
    """The output size of a pool that is given one, or None for any other layer, and for maps of another rank.

    >>> from cnn_jax import nn
    >>> adaptive_size(nn.AdaptiveAvgPool(6), 2), adaptive_size(nn.AdaptiveAvgPool((6,)), 2)
    ((6, 6), None)
    """
    size = getattr(layer, "output_size", None)
    if size is None or (isinstance(size, Sequence) and len(size) != rank):
        return None
    return per_axis("window", "output_size", size, rank)


def transposed_window(
    kernel_size: PerAxis, strides: PerAxis, padding: Padding, kernel_dilation: PerAxis, transpose_kernel: bool
) -> Window:
    """The window of Flax's transposed convolution; its padding names are those of the convolution that it transposes.

    >>> transposed_window((4,), 2, "SAME", 1, False).output_size((7,))
    (14,)
    """
    window = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
    rank = len(window)
    spread = per_axis("ConvTranspose", "strides", strides, rank)
    if isinstance(padding, str):
        pairs = []
        reaches = dilated(window, per_axis("ConvTranspose", "kernel_dilation", kernel_dilation, rank))
        for reach, stride in zip(reaches, spread, strict=True):
            low, excess = reach - 1, max(reach - stride, 0)  # by how much the output is more than stride times as large
            if padding == "SAME" and excess:
                low = -(-(reach + stride - 2) // 2)
            elif padding == "CIRCULAR":
                low -= (excess + transpose_kernel) // 2
            total = reach + stride - 2 + (excess if padding == "VALID" else 0)
            pairs.append((low, total - low))
        padding = tuple(pairs)
    return Window(window, 1, padding, kernel_dilation, spread, transposed=True)


def _numbered(padding: Padding, reaches: Sequence[int]) -> Padding:
    """Padding without Flax's two names that also say the boundary: both are as wide as 'SAME' at stride 1."""
    if padding in ("CIRCULAR", "REFLECT"):
        return tuple(((reach - 1) // 2, reach // 2) for reach in reaches)
    return padding
