"""A diagram of a network: its feature maps as blocks, drawn to scale, from the input down to the output."""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from cnn_jax.errors import UsageError
from cnn_jax.geometry import Row, blocks, total
from cnn_jax.report.figures.style import (
    BLUE,
    GREY,
    INK,
    MARGIN,
    VERMILLION,
    WIDTH,
    all_fitted,
    fitted,
    place,
    styled,
    tint,
    write,
)
from cnn_jax.typed import typed

_NAMES, _SHAPES = 1.42, 1.02  # the widths of the text columns on the left and right, in inches
_TALLEST, _SLANT, _LINE, _GAP = 0.9, 0.36, 0.34, 0.1
_COLOURS = {"input": GREY, "weights": BLUE, "pool": VERMILLION}
_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclasses.dataclass(frozen=True)
class _Block:
    """A layer, a block of layers, or several equal consecutive layers, drawn as one block."""

    names: tuple[str, ...]
    role: str
    shape: tuple[int, ...]
    window: str
    parameters: int


@typed
@styled
def network(rows: Sequence[Row], input_shape: Sequence[int], *, title: str = "") -> Figure:
    """Draws a network's feature maps as blocks whose sides show their height, width and channels.

    Sides are proportional to the square roots of these numbers. Activations, normalisations and dropout are not drawn.
    A block of layers is drawn as its output. Equal consecutive layers with similar names are drawn once. The totals are
    below.

    Args:
      rows: The rows returned by :func:`cnn_jax.geometry.trace`.
      input_shape: The shape of one input, channels last, with one or two spatial axes.
      title: The title above the diagram.

    Returns:
      A figure with one axes for each block, the input first.

    Raises:
      UsageError: The input has no spatial axis, or more than two.

    Example:
      >>> conv = Row("c1", "Conv", (28, 28, 6), (5, 5), (1, 1), "VALID", parameters=156)
      >>> len(network([conv], (32, 32, 1)).axes)
      2
    """
    if not 2 <= len(input_shape) <= 3:
        raise UsageError(
            f"network: input_shape={tuple(input_shape)} has {len(input_shape) - 1} spatial axes; it must have 1 or 2"
        )
    drawn = [_Block(("input",), "input", tuple(input_shape), "", 0), *_merged(_drawn(rows))]
    solids = [_sides(block.shape) for block in drawn]
    longest = max(math.sqrt(channels) + _SLANT * math.sqrt(width) for _, width, channels in solids)
    tallest = max(math.sqrt(height) + _SLANT * math.sqrt(width) for height, width, _ in solids)
    room = WIDTH - _NAMES - _SHAPES - 2 * MARGIN
    scale = min(room / longest, _TALLEST / tallest)
    heights = [
        max(_LINE, scale * (math.sqrt(height) + _SLANT * math.sqrt(width))) + _GAP for height, width, _ in solids
    ]

    top = 0.4 if title else 0.06
    figure = Figure(figsize=(WIDTH, top + sum(heights) + 0.75))
    write(figure, MARGIN, MARGIN, fitted(title, 72 * (WIDTH - 2 * MARGIN), size=10, weight="bold"), weight="bold")
    names = all_fitted([_name(block) for block in drawn], 72 * _NAMES - 4, weight="bold")
    for block, name, sides, height in zip(drawn, names, solids, heights, strict=True):
        axes = place(figure, MARGIN + _NAMES, top, room, height - _GAP)
        _draw(axes, sides, room / scale, (height - _GAP) / scale, _COLOURS[block.role])
        _describe(figure, block, name, top + (height - _GAP - _LINE) / 2)
        top += height
    _legend(figure, top + 0.06, total(rows))
    return figure


def _drawn(rows: Sequence[Row]) -> Iterator[_Block]:
    """The blocks and layers to draw: those with multiply-adds and pools, but not activations or ``Flatten``."""
    for row in blocks(rows):
        if row.multiply_adds or row.kernel_size or "pool" in row.kind.lower():
            role = "weights" if row.multiply_adds else "pool"
            yield _Block((row.name,), role, row.output_shape, _window(row), row.parameters)


def _merged(blocks: Iterator[_Block]) -> Iterator[_Block]:
    def alike(block: _Block) -> tuple:
        return block.role, block.shape, block.window, re.sub(r"(\d+|[a-z])$", "", block.names[0])

    for _, group in groupby(blocks, key=alike):
        same = list(group)
        names = tuple(name for block in same for name in block.names)
        yield dataclasses.replace(same[0], names=names, parameters=sum(block.parameters for block in same))


def _window(row: Row) -> str:
    if not row.kernel_size:
        if row.kind == "block":
            return ""
        return "fully connected" if row.multiply_adds else "whole map"
    strides = row.strides or ()
    step = "" if set(strides) <= {1} else f", stride {strides[0] if len(set(strides)) == 1 else strides}"
    return _TIMES.join(map(str, row.kernel_size)) + step


def _sides(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The height, width and channels of a shape; missing spatial axes have size 1."""
    *space, channels = shape
    height, width = (1, 1) if not space else (space[0], 1) if len(space) == 1 else space
    return height, width, channels


def _draw(axes: Axes, sides: tuple[int, int, int], room: float, high: float, colour: str) -> None:
    """Draws a block in oblique projection, on axes that are ``room`` units wide and ``high`` units high."""
    height, depth, length = (math.sqrt(side) for side in sides)
    slant = _SLANT * depth
    left, bottom = (room - length - slant) / 2, (high - height - slant) / 2
    front = [(0, 0), (length, 0), (length, height), (0, height)]
    lid = [(0, height), (length, height), (length + slant, height + slant), (slant, height + slant)]
    end = [(length, 0), (length + slant, slant), (length + slant, height + slant), (length, height)]
    for corners, share in ((front, 0.55), (lid, 0.25), (end, 0.8)):
        points = [(left + x, bottom + y) for x, y in corners]
        axes.add_patch(Polygon(points, facecolor=tint(colour, share), edgecolor="white", linewidth=0.4))
    axes.set_xlim(0, room)
    axes.set_ylim(0, high)


def _name(block: _Block) -> str:
    """The name of a block; for several layers the names of the first and the last, such as ``conv1_1 – 2``."""
    first, *rest = block.names
    if not rest:
        return first
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, rest[-1], strict=False)))
    return f"{first} \N{EN DASH} {rest[-1][shared:]}"


def _describe(figure: Figure, block: _Block, name: str, top: float) -> None:
    several = len(block.names) > 1
    write(figure, MARGIN, top, name, size=9, weight="bold")
    if block.window:
        below = f"{len(block.names)} {_TIMES} {block.window}" if several else block.window
    else:
        below = f"{len(block.names)} blocks" if several else "block" if block.role == "weights" else ""
    write(figure, MARGIN, top + 0.17, below, color=GREY, size=8)
    right = WIDTH - MARGIN
    write(figure, right, top, _TIMES.join(map(str, block.shape)), align="right", size=9, color=INK)
    if block.parameters:
        write(figure, right, top + 0.17, f"{block.parameters:,}", align="right", color=GREY, size=8)


def _legend(figure: Figure, top: float, sums: Row) -> None:
    counts = f"{sums.parameters:,} parameters, {sums.multiply_adds:,} multiply-adds"
    write(figure, MARGIN, top, counts, size=8)
    top += 0.22
    write(figure, MARGIN, top, "layers with weights", color=BLUE, size=8)
    write(figure, MARGIN + 1.25, top, "pools", color=VERMILLION, size=8)
    numbers = "below shapes: parameters; sides: roots of height, width and channels"
    write(figure, MARGIN, top + 0.19, numbers, color=GREY, size=8)
