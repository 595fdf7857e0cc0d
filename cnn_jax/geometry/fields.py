"""Receptive fields as numbers: the part of the input that a unit depends on, and the distance between neighbours.

Fields follow the standard formulas. They may extend beyond the image, where a unit reads padding.

References:
  Araujo, Norris and Sim, Computing receptive fields of convolutional neural networks, Distill, 2019.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

from cnn_jax.geometry.windows import Window
from cnn_jax.ops.adaptive_pool import windows as adaptive_windows

Number = int | Fraction


@dataclasses.dataclass(frozen=True)
class AxisField:
    """The receptive fields of a row of units along one axis.

    The fields are periodic. Units ``0`` to ``n - 1`` are stored, and unit ``i + n`` has the field of unit ``i``,
    shifted by ``advance`` positions. After convolutions and pools ``n`` is 1. After transposed convolutions it is
    larger.

    Attributes:
      starts: The first position in the field of each of the ``n`` units.
      stops: The last position in each field; one less than the first position if the field is empty.
      advance: The shift of the field after ``n`` units, in positions.
    """

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    advance: int

    def interval(self, unit: int) -> tuple[int, int]:
        """The first and last position in the field of a unit.

        >>> AxisField((-1,), (1,), 2).interval(5)
        (9, 11)
        """
        turns, phase = divmod(unit, len(self.starts))
        return self.starts[phase] + turns * self.advance, self.stops[phase] + turns * self.advance

    def through(self, layer: "AxisField") -> "AxisField":
        """The composition of two fields: the field after a layer whose field in the current units is ``layer``."""
        period = len(self.starts) // math.gcd(len(self.starts), layer.advance) * len(layer.starts)
        advance = period // len(layer.starts) * layer.advance * self.advance // len(self.starts)
        spans = [layer.interval(unit) for unit in range(period)]
        return self.repeating([self.of_units(range(first, last + 1), first) for first, last in spans], advance)

    def after_window(
        self, kernel: int, stride: int = 1, dilation: int = 1, spread: int = 1, low: int = 0
    ) -> "AxisField":
        """The field after a window: unit ``i`` reads the units at ``i stride + t dilation - low``, for each ``t``.

        Args:
          kernel: The number of entries of the window.
          stride: The stride of the window.
          dilation: The dilation of the window.
          spread: The dilation of the input, with zeros between neighbours; above 1 in transposed convolutions.
          low: The padding before the dilated input.

        >>> AxisField((0,), (0,), 1).after_window(3, stride=2, low=1)
        AxisField(starts=(-1,), stops=(1,), advance=2)
        >>> AxisField((0,), (0,), 1).after_window(4, spread=2, low=2)  # a transposed convolution of stride 2
        AxisField(starts=(-1, 0), stops=(0, 1), advance=1)
        """
        turn = spread * len(self.starts)
        period = turn // math.gcd(turn, stride)
        intervals = []
        for unit in range(period):
            first = unit * stride - low
            taps = [first + tap * dilation for tap in range(kernel)]
            inputs = [tap // spread for tap in taps if tap % spread == 0]
            intervals.append(self.of_units(inputs, -(-first // spread)))
        return self.repeating(intervals, period * stride // turn * self.advance)

    def of_units(self, units: Iterable[int], around: int = 0) -> tuple[int, int]:
        """The union of the fields of some units; if it is empty, an empty interval near unit ``around``."""
        return _hull(
            [self.interval(unit) for unit in units] or [(self.interval(around)[0], self.interval(around)[0] - 1)]
        )

    def hull(self, other: "AxisField") -> "AxisField | None":
        """The smallest fields that contain both; None if the distance between the two grows from unit to unit."""
        if self.jump != other.jump:
            return None
        period = math.lcm(len(self.starts), len(other.starts))
        hulls = [_hull([self.interval(unit), other.interval(unit)]) for unit in range(period)]
        return self.repeating(hulls, period // len(self.starts) * self.advance)

    def same(self, other: "AxisField") -> bool:
        """Whether every unit has the same field in both objects."""
        period = math.lcm(len(self.starts), len(other.starts))
        return self.jump == other.jump and all(self.interval(unit) == other.interval(unit) for unit in range(period))

    @classmethod
    def repeating(cls, intervals: Sequence[tuple[int, int]], advance: int) -> "AxisField":
        """The periodic fields of units with these intervals, shifted by ``advance`` positions per period."""
        starts, stops = zip(*intervals, strict=True)
        return cls(starts, stops, advance)

    @classmethod
    def constant(cls, interval: tuple[int, int]) -> "AxisField":
        """The field of units that all have the same interval."""
        return cls.repeating([interval], 0)

    @property
    def jump(self) -> Number:
        """The average distance between the fields of neighbouring units, in positions."""
        return _plain(Fraction(self.advance, len(self.starts)))


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of a layer's units, in positions of the network's input.

    Attributes:
      axes: The fields along each spatial axis.

    >>> from cnn_jax.geometry import receptive_field
    >>> field = receptive_field([(5, 1), (2, 2), (5, 1)])
    >>> field.size, field.jump, field.first_centre, field.interval((3,))
    ((14,), (2,), (Fraction(13, 2),), ((6, 19),))
    """

    axes: tuple[AxisField, ...]

    @classmethod
    def of_input(cls, rank: int) -> "ReceptiveField":
        """The field of the input itself: each position is its own field."""
        return cls((AxisField((0,), (0,), 1),) * rank)

    @property
    def size(self) -> tuple[int, ...]:
        """The size of the largest field along each axis, in positions."""
        return tuple(
            max(stop - start + 1 for start, stop in zip(axis.starts, axis.stops, strict=True)) for axis in self.axes
        )

    @property
    def jump(self) -> tuple[Number, ...]:
        """The distance between the fields of neighbouring units, in positions; a fraction if layers enlarge maps."""
        return tuple(axis.jump for axis in self.axes)

    @property
    def first_centre(self) -> tuple[Number, ...]:
        """The centre of the first unit's field: 0 is the first position of the input, and -1/2 is its edge."""
        return tuple(_plain(Fraction(axis.starts[0] + axis.stops[0], 2)) for axis in self.axes)

    def interval(self, unit: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """The first and last position in a unit's field along each axis; positions outside the image are padding.

        Args:
          unit: The position of the unit in the map, one int per axis.
        """
        return tuple(axis.interval(place) for axis, place in zip(self.axes, unit, strict=True))

    def through(self, layer: Sequence[AxisField]) -> "ReceptiveField":
        """The field after a layer with the given field along each axis."""
        return ReceptiveField(tuple(axis.through(step) for axis, step in zip(self.axes, layer, strict=True)))

    def after_window(self, window: Window, sizes: Sequence[int] | None) -> "ReceptiveField":
        """The field after a sliding window; ``sizes`` of the map are needed only for some paddings."""
        rank = len(self.axes)
        numbers = zip(self.axes, *window.over(rank).values(), window.pads(sizes, rank), strict=True)
        return ReceptiveField(tuple(axis.after_window(*steps, low) for axis, *steps, (low, _) in numbers))

    def hull(self, other: "ReceptiveField") -> "ReceptiveField | None":
        """The smallest field that contains both; None if the distance between the two grows from unit to unit."""
        axes = [axis.hull(another) for axis, another in zip(self.axes, other.axes, strict=True)]
        joined = tuple(axis for axis in axes if axis is not None)
        return ReceptiveField(joined) if len(joined) == len(axes) else None

    def texts(self) -> tuple[str, str, str]:
        """Size, jump and first centre as strings; a single number if all axes have the same.

        >>> ReceptiveField((AxisField((-1,), (1,), 2), AxisField((0,), (4,), 2))).texts()
        ('3x5', '2', '0x2')
        """
        return _joined_text(self.size), _joined_text(self.jump), _joined_text(self.first_centre)


def adaptive_field(sizes: Sequence[int], output_size: Sequence[int]) -> list[AxisField]:
    """The field of an adaptive pool.

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


def _hull(intervals: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The smallest interval that contains all intervals; empty intervals are ignored unless all are empty."""
    seen = [(start, stop) for start, stop in intervals if start <= stop] or intervals[:1]
    return min(start for start, _ in seen), max(stop for _, stop in seen)


def _plain(number: Fraction) -> Number:
    return int(number) if number.denominator == 1 else number


def _joined_text(numbers: Sequence[Number]) -> str:
    texts = [f"{float(number):.4g}" if isinstance(number, Fraction) else str(number) for number in numbers]
    return texts[0] if len(set(texts)) == 1 else "x".join(texts)
