"""Receptive fields: which part of the input a unit can see, how far apart neighbours look, and where the first does.

A field is followed layer by layer: a layer is itself a field in its own input, a sum takes the hull of its paths, and a
layer that sees all of its input the hull of all positions. Fields are those of the formulas and may stick out of the
image, where a unit sees padding.

References:
  Araujo, Norris and Sim, Computing receptive fields of convolutional neural networks, Distill, 2019.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from cnn_jax.errors import UsageError
from cnn_jax.geometry.positions import keeps_positions
from cnn_jax.geometry.windows import PerAxis, Window, adaptive_size, window_of
from cnn_jax.ops.adaptive_pool import windows as adaptive_windows
from cnn_jax.ops.arguments import per_axis

Number = int | Fraction


@dataclasses.dataclass(frozen=True)
class AxisField:
    """The fields of a row of units along one axis.

    They repeat: those of units ``0`` to ``n - 1`` are written down, and unit ``i + n`` sees what unit ``i`` does,
    ``advance`` positions on. Behind convolutions and pools ``n`` is 1; behind transposed ones it is not.

    Attributes:
      starts: The first position that each of the ``n`` units sees.
      stops: The last; one less than the first for a unit that sees nothing.
      advance: Positions in ``n`` units.
    """

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    advance: int

    def interval(self, unit: int) -> tuple[int, int]:
        """The first and last position that a unit sees.

        >>> AxisField((-1,), (1,), 2).interval(5)
        (9, 11)
        """
        turns, phase = divmod(unit, len(self.starts))
        return self.starts[phase] + turns * self.advance, self.stops[phase] + turns * self.advance

    def through(self, layer: "AxisField") -> "AxisField":
        """The field behind a layer whose units have the field ``layer`` in what this one is the field of."""
        period = len(self.starts) // math.gcd(len(self.starts), layer.advance) * len(layer.starts)
        advance = period // len(layer.starts) * layer.advance * self.advance // len(self.starts)
        return self._repeating([self._hull_of(*layer.interval(unit)) for unit in range(period)], advance)

    def _hull_of(self, first: int, last: int) -> tuple[int, int]:
        """What some units in a row see together."""
        intervals = [self.interval(unit) for unit in range(first, last + 1)]
        seen = [(start, stop) for start, stop in intervals if start <= stop]
        if not seen:
            start, _ = self.interval(first)
            return start, start - 1
        return min(start for start, _ in seen), max(stop for _, stop in seen)

    def hull(self, other: "AxisField") -> "AxisField | None":
        """The smallest fields that hold both; None where the two drift apart from unit to unit."""
        if self.jump != other.jump:
            return None
        period = math.lcm(len(self.starts), len(other.starts))
        pairs = [(self.interval(unit), other.interval(unit)) for unit in range(period)]
        hulls = [(min(a[0], b[0]), max(a[1], b[1])) for a, b in pairs]
        return self._repeating(hulls, period // len(self.starts) * self.advance)

    @classmethod
    def _repeating(cls, intervals: Sequence[tuple[int, int]], advance: int) -> "AxisField":
        starts, stops = zip(*intervals, strict=True)
        return cls(starts, stops, advance)

    @property
    def jump(self) -> Number:
        """How many positions lie between the fields of neighbouring units, on average."""
        return _plain(Fraction(self.advance, len(self.starts)))


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """The fields of a layer's units, in positions of the network's input.

    Attributes:
      axes: Along each spatial axis.

    >>> field = receptive_field([(5, 1), (2, 2), (5, 1)])
    >>> field.size, field.jump, field.first_centre, field.interval((3,))
    ((14,), (2,), (Fraction(13, 2),), ((6, 19),))
    """

    axes: tuple[AxisField, ...]

    @classmethod
    def of_input(cls, rank: int) -> "ReceptiveField":
        """That of the input itself: each position sees itself."""
        return cls((AxisField((0,), (0,), 1),) * rank)

    @property
    def size(self) -> tuple[int, ...]:
        """How many positions the unit with the largest field sees, along each axis."""
        return tuple(
            max(stop - start + 1 for start, stop in zip(axis.starts, axis.stops, strict=True)) for axis in self.axes
        )

    @property
    def jump(self) -> tuple[Number, ...]:
        """How many positions lie between the fields of neighbouring units; a fraction where layers enlarge maps."""
        return tuple(axis.jump for axis in self.axes)

    @property
    def first_centre(self) -> tuple[Number, ...]:
        """The middle of the first unit's field: 0 is the first position of the input, and -1/2 its edge."""
        return tuple(_plain(Fraction(axis.starts[0] + axis.stops[0], 2)) for axis in self.axes)

    def interval(self, unit: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """The first and last position that a unit sees along each axis; outside of the image it sees padding.

        Args:
          unit: Its position in the map, one int per axis.
        """
        return tuple(axis.interval(place) for axis, place in zip(self.axes, unit, strict=True))

    def through(self, layer: Sequence[AxisField]) -> "ReceptiveField":
        """The field behind a layer, given along each axis."""
        return ReceptiveField(tuple(axis.through(step) for axis, step in zip(self.axes, layer, strict=True)))

    def of_all(self, sizes: Sequence[int]) -> "ReceptiveField":
        """The field of a unit that sees all positions of the map, whose sizes these are."""
        # Its neighbours, if it had any, would see the same: whole turns of what repeats.
        fields = zip(self.axes, sizes, strict=True)
        return self.through([AxisField((0,), (size - 1,), len(axis.starts)) for axis, size in fields])

    def hull(self, other: "ReceptiveField") -> "ReceptiveField | None":
        """The smallest field with both in it; None where the two drift apart from unit to unit."""
        axes = [axis.hull(another) for axis, another in zip(self.axes, other.axes, strict=True)]
        joined = tuple(axis for axis in axes if axis is not None)
        return ReceptiveField(joined) if len(joined) == len(axes) else None

    def texts(self) -> tuple[str, str, str]:
        """Size, jump and first centre as texts; one number where all axes have the same.

        >>> receptive_field([((3, 5), 2)]).texts()
        ('3x5', '2', '1x2')
        """
        return _joined(self.size), _joined(self.jump), _joined(self.first_centre)


def window_field(window: Window, sizes: Sequence[int] | None, rank: int) -> list[AxisField]:
    """The field of a window in the map that it slides over, whose sizes only some paddings need.

    >>> window_field(Window(3, strides=2, padding=1), None, 1)
    [AxisField(starts=(-1,), stops=(1,), advance=2)]
    >>> window_field(Window(4, padding=2, input_dilation=2), None, 1)  # a transposed convolution of stride 2
    [AxisField(starts=(-1, 0), stops=(0, 1), advance=1)]
    """
    axes = zip(*window.over(rank).values(), window.pads(sizes, rank), strict=True)
    return [_axis_field(kernel, stride, dilation, spread, low) for kernel, stride, dilation, spread, (low, _) in axes]


def _axis_field(kernel: int, stride: int, dilation: int, spread: int, low: int) -> AxisField:
    """Of an input with ``spread - 1`` zeros between neighbours, a window sees every ``spread``-th position."""
    period = spread // math.gcd(spread, stride)
    starts, stops = [], []
    for unit in range(period):
        first = unit * stride - low
        places = [first + tap * dilation for tap in range(kernel)]
        inputs = [place // spread for place in places if place % spread == 0]
        starts.append(inputs[0] if inputs else -(-first // spread))
        stops.append(inputs[-1] if inputs else starts[-1] - 1)
    return AxisField(tuple(starts), tuple(stops), stride * period // spread)


def adaptive_field(sizes: Sequence[int], output_size: Sequence[int]) -> list[AxisField]:
    """The field of a pool that is given its output size.

    >>> adaptive_field((12,), (6,)), adaptive_field((5,), (2,))
    ([AxisField(starts=(0,), stops=(1,), advance=2)], [AxisField(starts=(0, 2), stops=(2, 4), advance=5)])
    """
    fields = []
    for size, outputs in zip(sizes, output_size, strict=True):
        starts, stops = adaptive_windows(size, outputs)
        period = outputs // math.gcd(size, outputs)
        fields.append(
            AxisField(
                tuple(int(start) for start in starts[:period]),
                tuple(int(stop) - 1 for stop in stops[:period]),
                size * period // outputs,
            )
        )
    return fields


@dataclasses.dataclass(frozen=True)
class Flow:
    """What is known of the units at one place of a network.

    Attributes:
      field: None where it cannot be told.
      sizes: Of the map whose positions the units stand for; None where they are not known.
    """

    field: ReceptiveField | None
    sizes: tuple[int, ...] | None

    def joined(self, other: "Flow") -> "Flow":
        """A sum or a concatenation."""
        field = None if self.field is None or other.field is None else self.field.hull(other.field)
        return Flow(field, self.sizes)

    def slid(self, window: Window, rank: int) -> "Flow":
        """Behind a layer with a window."""
        sizes = None if self.sizes is None else window.output_size(self.sizes)
        return Flow(self.field and self.field.through(window_field(window, self.sizes, rank)), sizes)

    def adapted(self, output_size: Sequence[int]) -> "Flow":
        """Behind a pool that is given its output size; the sizes before it must be known."""
        assert self.sizes is not None
        field = self.field and self.field.through(adaptive_field(self.sizes, output_size))
        return Flow(field, tuple(output_size))


def receptive_field(layers: Any, input_size: PerAxis | None = None) -> ReceptiveField:
    """The field of the last of some layers, one after the other.

    Args:
      layers: A layer, or layers: a list, or names to layers. An entry is a layer or function; or a :class:`Window`, or
        a tuple, which stands for ``Window(*tuple)``: (kernel size, strides, padding, kernel dilation). Branches
        (``nn.Parallel``) and skips (``nn.Residual``) may be among them.
      input_size: Spatial sizes, one int for all axes or one per axis; needed only for
        ``padding='SAME'`` with a stride, and for pools that are given their output size.

    Returns:
      One number per spatial axis: those of the layers, or a single one where all windows are given by ints.

    Raises:
      UsageError: An entry has no window and does not work position by position (flattening, global pools); for whole
        networks there is :func:`cnn_jax.geometry.trace`.

    >>> alexnet = [(11, 4, 2), (3, 2), (5, 1, 2), (3, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 2)]
    >>> receptive_field(alexnet).size, receptive_field(alexnet).jump
    ((195,), (32,))
    """
    field = _over(layers, input_size, "receptive_field").field
    if field is None:
        raise UsageError("receptive_field: branches that are joined have different strides, so no one field is theirs")
    return field


def output_size(layers: Any, input_size: PerAxis) -> tuple[int, ...]:
    """The spatial sizes behind some layers.

    Args:
      layers: As for :func:`receptive_field`.
      input_size: One int per axis; or one int for one axis, or for all of those that the layers have.

    Raises:
      UsageError: A window does not fit; an entry as for :func:`receptive_field`.

    >>> output_size([(11, 4, 2), (3, 2)], 224), output_size([Window(3, 2, rounding="ceil")], (112, 110))
    ((27,), (56, 55))
    """
    sizes = _over(layers, input_size, "output_size").sizes
    assert sizes is not None
    return sizes


def _over(layers: Any, input_size: PerAxis | None, function: str) -> Flow:
    if isinstance(layers, tuple) and all(isinstance(entry, int) for entry in layers):
        raise UsageError(f"{function}: layers={layers} is one window; write [{layers}]")
    given = layers if isinstance(layers, list | tuple | Mapping) else [layers]
    given = given if isinstance(given, Mapping) else dict(enumerate(given))
    named = {str(name): _window(function, name, entry) for name, entry in given.items()}
    entries = list(named.values())
    rank = _rank(entries) or (len(input_size) if isinstance(input_size, Sequence) else 1)
    sizes = None if input_size is None else per_axis(function, "input_size", input_size, rank)
    flow = Flow(ReceptiveField.of_input(rank), sizes)
    channels = 1

    def visit(name: str, layer: Any, flow: Flow) -> Flow:
        nonlocal channels
        if hasattr(layer, "flow"):
            return layer.flow(flow, visit=lambda inner, *args: visit(f"{name}/{inner}", *args), join=join)
        window = layer if isinstance(layer, Window) else window_of(layer)
        channels = getattr(layer, "in_features", getattr(layer, "num_features", channels))
        try:
            if window is not None:
                channels = getattr(layer, "out_features", channels)
                return flow.slid(window, rank)
        except UsageError as error:
            raise UsageError(f"{function}: layer {name}: {error}") from error
        given_size = adaptive_size(layer, rank)
        if given_size is not None:
            if flow.sizes is None:
                raise UsageError(
                    f"{function}: layer {name}: what it sees depends on the size of its input; give input_size"
                )
            return flow.adapted(given_size)
        if callable(layer) and keeps_positions(layer, (*(4,) * rank, channels)):
            return flow
        raise UsageError(
            f"{function}: layer {name} ({_name(layer)}) has no window, and does not work position by position; "
            "give a geometry.Window for it, or use geometry.trace or geometry.output_shape(layers, input_shape)"
        )

    def join(name: str, flows: Sequence[Flow]) -> Flow:
        return join_flows(flows)

    for name, layer in named.items():
        flow = visit(name, layer, flow)
    return flow


def _window(function: str, name: Any, entry: Any) -> Any:
    """A tuple as the window that it stands for; a layer as it is."""
    if not isinstance(entry, tuple):
        return entry
    if not 1 <= len(entry) <= 4:
        raise UsageError(
            f"{function}: layer {name}: {entry} must be (kernel size, strides, padding, kernel dilation), or begin so; "
            "give a geometry.Window for more"
        )
    return Window(*entry)


def join_flows(flows: Sequence[Flow]) -> Flow:
    """What is known behind a sum or a concatenation of paths."""
    first, *others = flows
    for other in others:
        first = first.joined(other)
    return first


def _rank(entries: Sequence[Any]) -> int | None:
    """The number of spatial axes that the first layer with one per axis has."""
    found: list[int] = []

    def visit(name: str, layer: Any, x: None) -> None:
        if hasattr(layer, "flow"):
            layer.flow(x, visit=visit, join=lambda name, paths: None)
            return
        window = layer if isinstance(layer, Window) else window_of(layer)
        if window is not None and window.rank is not None:
            found.append(window.rank)

    for entry in entries:
        visit("", entry, None)
    return found[0] if found else None


def _name(layer: Any) -> str:
    return getattr(layer, "__name__", type(layer).__name__)


def _plain(number: Fraction) -> Number:
    return int(number) if number.denominator == 1 else number


def _joined(numbers: Sequence[Number]) -> str:
    texts = [f"{float(number):.4g}" if isinstance(number, Fraction) else str(number) for number in numbers]
    return texts[0] if len(set(texts)) == 1 else "x".join(texts)
