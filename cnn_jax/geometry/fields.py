"""Receptive fields as numbers: which part of the input a unit can see, how far apart neighbours look.

Fields are those of the formulas and may stick out of the image, where a unit sees padding.

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
        spans = [layer.interval(unit) for unit in range(period)]
        return self.repeating([self.of_units(range(first, last + 1), first) for first, last in spans], advance)

    def slid(self, kernel: int, stride: int = 1, dilation: int = 1, spread: int = 1, low: int = 0) -> "AxisField":
        """The field behind a window: unit ``i`` sees the units at ``i stride + t dilation - low``, for each ``t``.

        Args:
          kernel: The number of entries of the window.
          stride: Of the window.
          dilation: Of the window.
          spread: The distance between neighbouring inputs, zeros between them: more than 1 in transposed convolutions.
          low: The padding before the spread input.

        >>> AxisField((0,), (0,), 1).slid(3, stride=2, low=1)
        AxisField(starts=(-1,), stops=(1,), advance=2)
        >>> AxisField((0,), (0,), 1).slid(4, spread=2, low=2)  # a transposed convolution of stride 2
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
        """What some units see together; where that is nothing, an empty interval near unit ``around``."""
        return _hull(
            [self.interval(unit) for unit in units] or [(self.interval(around)[0], self.interval(around)[0] - 1)]
        )

    def hull(self, other: "AxisField") -> "AxisField | None":
        """The smallest fields that hold both; None where the two drift apart from unit to unit."""
        if self.jump != other.jump:
            return None
        period = math.lcm(len(self.starts), len(other.starts))
        hulls = [_hull([self.interval(unit), other.interval(unit)]) for unit in range(period)]
        return self.repeating(hulls, period // len(self.starts) * self.advance)

    def same(self, other: "AxisField") -> bool:
        """Whether every unit has the same field in both."""
        period = math.lcm(len(self.starts), len(other.starts))
        return self.jump == other.jump and all(self.interval(unit) == other.interval(unit) for unit in range(period))

    @classmethod
    def repeating(cls, intervals: Sequence[tuple[int, int]], advance: int) -> "AxisField":
        """The fields of units that have these intervals, and then the same again, ``advance`` positions on."""
        starts, stops = zip(*intervals, strict=True)
        return cls(starts, stops, advance)

    @classmethod
    def constant(cls, interval: tuple[int, int]) -> "AxisField":
        """The field of units that all see the same."""
        return cls.repeating([interval], 0)

    @property
    def jump(self) -> Number:
        """How many positions lie between the fields of neighbouring units, on average."""
        return _plain(Fraction(self.advance, len(self.starts)))


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """The fields of a layer's units, in positions of the network's input.

    Attributes:
      axes: Along each spatial axis.

    >>> from cnn_jax.geometry import receptive_field
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

    def slid(self, window: Window, sizes: Sequence[int] | None) -> "ReceptiveField":
        """The field behind a window that slides over the map, whose sizes only some paddings need."""
        rank = len(self.axes)
        numbers = zip(self.axes, *window.over(rank).values(), window.pads(sizes, rank), strict=True)
        return ReceptiveField(tuple(axis.slid(*steps, low) for axis, *steps, (low, _) in numbers))

    def hull(self, other: "ReceptiveField") -> "ReceptiveField | None":
        """The smallest field with both in it; None where the two drift apart from unit to unit."""
        axes = [axis.hull(another) for axis, another in zip(self.axes, other.axes, strict=True)]
        joined = tuple(axis for axis in axes if axis is not None)
        return ReceptiveField(joined) if len(joined) == len(axes) else None

    def texts(self) -> tuple[str, str, str]:
        """Size, jump and first centre as texts; one number where all axes have the same.

        >>> ReceptiveField((AxisField((-1,), (1,), 2), AxisField((0,), (4,), 2))).texts()
        ('3x5', '2', '0x2')
        """
        return _joined(self.size), _joined(self.jump), _joined(self.first_centre)


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


def _hull(intervals: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The smallest interval with all of them in it; the empty ones do not count where there are others."""
    seen = [(start, stop) for start, stop in intervals if start <= stop] or intervals[:1]
    return min(start for start, _ in seen), max(stop for _, stop in seen)


def _plain(number: Fraction) -> Number:
    return int(number) if number.denominator == 1 else number


def _joined(numbers: Sequence[Number]) -> str:
    texts = [f"{float(number):.4g}" if isinstance(number, Fraction) else str(number) for number in numbers]
    return texts[0] if len(set(texts)) == 1 else "x".join(texts)
