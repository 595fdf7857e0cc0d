"""The window that a layer slides over its input, from the layer's attributes.

This module does not depend on the layers of ``cnn_jax.nn``. It supports any module that has ``kernel_size`` or
``window_shape``, ``strides`` and ``padding``, and optionally ``kernel_dilation`` (or ``dilation``), ``input_dilation``
and ``rounding``. A layer whose attributes have other meanings defines a property ``window`` that returns a
:class:`Window`.
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
    """The sliding window of a convolution or a pool.

    Attributes:
      kernel_size: The sizes of the window: one int for all axes, or one per axis, like the other numbers.
      strides: The strides, 1 by default.
      padding: A name, numbers or pairs, as in :func:`cnn_jax.ops.conv`; none by default.
      kernel_dilation: The dilation of the window, 1 by default.
      input_dilation: The dilation of the input, which is the stride of a transposed convolution; 1 by default. Padding
        is added around the dilated input.
      rounding: What to do if the stride does not divide the axis: ``'strict'``, ``'floor'`` or ``'ceil'``; see
        :func:`cnn_jax.ops.conv`.
      transposed: Whether this is a transposed convolution, even if its stride is 1; used by :meth:`taps`.

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
        """The number of spatial axes; None if one int applies to all axes."""
        return None if isinstance(self.kernel_size, int) else len(self.kernel_size)

    def over(self, rank: int) -> dict[str, tuple[int, ...]]:
        """All numbers as tuples with ``rank`` entries.

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
            padding=numbered_padding(self.padding, dilated(numbers["kernel_size"], numbers["kernel_dilation"])),
            dilation=numbers["kernel_dilation"],
            input_dilation=numbers["input_dilation"],
            rounding=self.rounding,
        ).output

    def taps(self, sizes: Sequence[int], output: Sequence[int]) -> int:
        """Counts the pairs of a window entry and an input in all windows, including padding.

        Every window entry is paired with an input or with padding. In transposed convolutions, the zeros between
        dilated inputs do not count. Instead each input is paired with every window entry, even beyond the edge of the
        output. The count of a transposed convolution is therefore that of the convolution that it transposes.

        Args:
          sizes: The spatial sizes of the input.
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
          UsageError: The padding depends on the sizes, which are None.

        >>> Window(3, padding="SAME").pads(None, 1), Window(3, strides=2, padding="SAME").pads((224,), 1)
        (((1, 1),), ((0, 1),))
        """
        numbers = self.over(rank)
        reaches, strides = dilated(numbers["kernel_size"], numbers["kernel_dilation"]), numbers["strides"]
        entries = per_axis_padding("window", numbered_padding(self.padding, reaches), rank)
        if sizes is None:
            if any(str(entry).startswith("SAME") and s > 1 for entry, s in zip(entries, strides, strict=True)):
                raise UsageError(
                    f"the padding of a window with padding={self.padding!r} and strides={self.strides} depends on the "
                    "size of its input; give input_size"
                )
            sizes = (1,) * rank  # no other padding depends on the size
        extents = dilated(sizes, numbers["input_dilation"])
        return tuple(pair("window", *axis) for axis in zip(entries, extents, reaches, strides, strict=True))


def window_of(layer: Any) -> Window | None:
    """The window that a layer slides over its input; None if it has none or does not expose it.

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
    """The output size of an adaptive pool; None for other layers and for maps of another rank.

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
    """The window of Flax's transposed convolution, whose padding names refer to the convolution that it transposes.

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
            low, excess = reach - 1, max(reach - stride, 0)  # excess: output size minus stride times input size
            if padding == "SAME" and excess:
                low = -(-(reach + stride - 2) // 2)
            elif padding == "CIRCULAR":
                low -= (excess + transpose_kernel) // 2
            total = reach + stride - 2 + (excess if padding == "VALID" else 0)
            pairs.append((low, total - low))
        padding = tuple(pairs)
    return Window(window, 1, padding, kernel_dilation, spread, transposed=True)


def numbered_padding(padding: Padding, reaches: Sequence[int]) -> Padding:
    """Replaces Flax's two padding names that also set the boundary; both are as wide as 'SAME' at stride 1."""
    if padding in ("CIRCULAR", "REFLECT"):
        return tuple(((reach - 1) // 2, reach // 2) for reach in reaches)
    return padding
