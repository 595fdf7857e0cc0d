"""The receptive fields of array entries, and how reshapes, windows and sums change them.

An axis of an array is a product of factors, from the slowest to the fastest: one factor for an axis of a map, three for
a flattened map (rows, columns, channels), two for repeated rows. Some factors run along an axis of the network's input.
If the factors along input axis ``k`` have the indices ``i``, the entry is unit ``sum of i * step`` of the field
``fields[k]``.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cnn_jax.geometry.fields import AxisField, ReceptiveField
from cnn_jax.geometry.windows import Window

Shape = tuple[int, ...]


class Factor(NamedTuple):
    """A factor of an array axis."""

    size: int
    along: int | None = None
    """The axis of the network's input that the factor runs along; None for examples, channels and repetitions."""
    step: int = 1
    """The distance between neighbouring entries, in units."""


Layout = tuple[tuple[Factor, ...], ...]


@dataclasses.dataclass(frozen=True)
class Place:
    """The receptive fields of the entries of an array.

    Attributes:
      layout: The factors of each axis of the array.
      fields: The field of the units along each axis of the network's input. If no factor runs along an axis, all
        entries have the field of unit 0. None if the field is unknown.
      space: The sizes of the axes of the network's input.
    """

    layout: Layout
    fields: tuple[AxisField | None, ...]
    space: Shape

    @classmethod
    def of_input(cls, shape: Sequence[int], rank: int) -> "Place":
        """The place of the input itself, which has one axis before its ``rank`` spatial axes.

        >>> Place.of_input((1, 28, 28, 3), 2).receptive_field.size
        (1, 1)
        """
        layout = tuple((Factor(size, axis - 1 if 1 <= axis <= rank else None),) for axis, size in enumerate(shape))
        return cls(layout, (AxisField((0,), (0,), 1),) * rank, tuple(shape[1 : 1 + rank]))

    @property
    def shape(self) -> Shape:
        """The shape of the array."""
        return tuple(math.prod(factor.size for factor in axis) for axis in self.layout)

    @property
    def receptive_field(self) -> ReceptiveField | None:
        """The field of a unit, or of the units of a flattened map; None if it is unknown."""
        axes = []
        for k, field in enumerate(self.fields):
            found = [
                (axis, factor) for axis, factors in enumerate(self.layout) for factor in factors if factor.along == k
            ]
            flat = len(self.layout) < len(self.fields) + 2
            if found and field is not None and len(found) == 1 and (flat or len(self.running(found[0][0])) > 1):
                field = field.through(_every(found[0][1].step))
            elif found and field is not None:
                field = self.along(found[0][0])
            if field is None:
                return None
            axes.append(field)
        return ReceptiveField(tuple(axes))

    def interval(self, index: Sequence[int]) -> tuple[tuple[int, int], ...] | None:
        """The part of the input that one entry of the array depends on; None if it is unknown.

        Args:
          index: The index of the entry, one int per axis of the array.

        Returns:
          The first and last position along each axis of the input; positions outside it are padding.

        >>> flat = Place.of_input((1, 4, 6, 3), 2).reshaped((1, 72))
        >>> flat.interval((0, 2 * 18 + 5 * 3 + 1))
        ((2, 2), (5, 5))
        """
        units = [0] * len(self.fields)
        for position, factors in zip(index, self.layout, strict=True):
            for factor in reversed(factors):
                position, digit = divmod(position, factor.size)
                if factor.along is not None:
                    units[factor.along] += digit * factor.step
        fields = [field for field in self.fields if field is not None]
        if len(fields) < len(self.fields):
            return None
        return tuple(field.interval(unit) for field, unit in zip(fields, units, strict=True))

    def running(self, axis: int) -> set[int]:
        """The axes of the network's input that an axis of the array runs along."""
        return {factor.along for factor in self.layout[axis] if factor.along is not None}

    def along(self, axis: int) -> AxisField | None:
        """The field of the entries along an array axis; None if the axis does not run along a single input axis."""
        factors = self.layout[axis]
        if len(self.running(axis)) != 1:
            return None
        (k,) = self.running(axis)
        field = self.fields[k]
        elsewhere = any(k in self.running(other) for other in range(len(self.layout)) if other != axis)
        if field is None or elsewhere:
            return None
        lower = math.prod(factor.size for factor in factors[1:])
        period, advance = lower * factors[0].size, 0  # the fields repeat from here on
        if factors[0].along is not None:
            turns = len(field.starts) // math.gcd(len(field.starts), factors[0].step)
            period, advance = lower * turns, turns * factors[0].step // len(field.starts) * field.advance
        units = []
        for entry in range(period):
            unit, rest = 0, entry
            for factor in reversed(factors[1:]):
                rest, index = divmod(rest, factor.size)
                unit += factor.step * index if factor.along is not None else 0
            units.append(unit + (factors[0].step * rest if factors[0].along is not None else 0))
        return AxisField.repeating([field.interval(unit) for unit in units], advance)

    # --- Operations on places ---

    def unknown(self, along: set[int]) -> "Place":
        """The same place with unknown fields along some axes of the input."""
        fields = tuple(None if k in along else field for k, field in enumerate(self.fields))
        layout = tuple(
            tuple(Factor(factor.size) if factor.along in along else factor for factor in axis) for axis in self.layout
        )
        return Place(layout, fields, self.space)

    def only_common(self, shape: Sequence[int]) -> "Place":
        """A place for another shape that keeps only the fields that all entries have in common."""
        running = {k for axis in range(len(self.layout)) for k in self.running(axis)}
        return dataclasses.replace(self.unknown(running), layout=constant_layout(shape))

    def with_axis(self, axis: int, *factors: Factor) -> "Place":
        """The same place with other factors in an axis."""
        return dataclasses.replace(self, layout=(*self.layout[:axis], factors, *self.layout[axis + 1 :]))

    def with_field(self, k: int, field: AxisField | None) -> "Place":
        """The same place with another field along an axis of the input."""
        return dataclasses.replace(self, fields=(*self.fields[:k], field, *self.fields[k + 1 :]))

    def collapsed(self, axis: int) -> "Place":
        """The place after a reduction over an axis, which has size 1 afterwards."""
        place = self
        for factor in self.layout[axis]:
            field = None if factor.along is None else place.fields[factor.along]
            if factor.along is not None and field is not None:
                place = place.with_field(factor.along, field.after_window(factor.size, dilation=factor.step))
        return place.with_axis(axis, Factor(1))._with_unit_zero(self.running(axis))

    def squeezed(self, axis: int) -> "Place":
        """The place without an axis of size 1."""
        layout = (*self.layout[:axis], *self.layout[axis + 1 :])
        return dataclasses.replace(self, layout=layout)._with_unit_zero(self.running(axis))

    def _with_unit_zero(self, along: set[int]) -> "Place":
        """Replaces the field by that of unit 0 for the given input axes that no factor runs along any more."""
        place = self
        for k in along - {k for axis in range(len(self.layout)) for k in self.running(axis)}:
            field = self.fields[k]
            place = place.with_field(k, field and AxisField.constant(field.interval(0)))
        return place

    def moved(self, axis: int, size: int, move: Callable[[AxisField], AxisField]) -> "Place":
        """Changes the field along an axis by ``move``; the axis then has ``size`` entries."""
        running = self.running(axis)
        if not running:
            return self.with_axis(axis, Factor(size))
        field = self.along(axis)
        if field is None:
            return self.unknown(running).with_axis(axis, Factor(size))
        (k,) = running
        return self.with_field(k, move(field)).with_axis(axis, Factor(size, k))

    def after_window(
        self,
        axis: int,
        size: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        dilation: int = 1,
        spread: int = 1,
        low: int = 0,
    ) -> "Place":
        """The place after windows along an axis; see :meth:`AxisField.after_window`."""
        if (kernel, stride, low) == (1, 1, 0) and self.shape[axis] == size:
            return self
        if len(self.layout[axis]) == 1 and spread == 1:  # keeps the units that other axes of the array share
            (factor,) = self.layout[axis]
            field = None if factor.along is None else self.fields[factor.along]
            if factor.along is not None and field is not None:
                windows = field.after_window(kernel, dilation=factor.step * dilation, low=factor.step * low)
                return self.with_field(factor.along, windows).with_axis(
                    axis, factor._replace(size=size, step=factor.step * stride)
                )
        return self.moved(axis, size, lambda field: field.after_window(kernel, stride, dilation, spread, low))

    def reversed(self, axis: int) -> "Place":
        """The place with the entries of an axis in reverse order."""
        size = self.shape[axis]
        backwards = AxisField((size - 1,), (size - 1,), -1)
        return self.moved(axis, size, lambda field: field.through(backwards))

    def windowed(self, window: Window, axes: Sequence[int], shape: Sequence[int]) -> "Place":
        """The place after a window over some axes of the array; ``shape`` is the shape of the result."""
        place, rank = self, len(axes)
        pads = window.pads([self.shape[axis] for axis in axes], rank)
        columns = zip(axes, *window.over(rank).values(), pads, strict=True)
        for axis, kernel, stride, dilation, spread, (low, _) in columns:
            place = place.after_window(
                axis, shape[axis], kernel=kernel, stride=stride, dilation=dilation, spread=spread, low=low
            )
        return place

    def transposed(self, permutation: Sequence[int]) -> "Place":
        """The place with its axes in another order."""
        return dataclasses.replace(self, layout=tuple(self.layout[axis] for axis in permutation))

    def broadcast(self, shape: Sequence[int], axes: Sequence[int]) -> "Place":
        """The place after a broadcast; ``axes`` are the positions of the old axes in the new shape."""
        place = self
        layout = list(constant_layout(shape))
        for axis, target in enumerate(axes):
            if self.shape[axis] == shape[target]:
                layout[target] = self.layout[axis]
            else:
                place = place.with_axis(axis, Factor(1))._with_unit_zero(self.running(axis))
        return dataclasses.replace(place, layout=tuple(layout))

    def reshaped(self, shape: Sequence[int]) -> "Place":
        """The place after a row-major reshape."""
        if self.shape == tuple(shape):
            return self
        place = self
        for axis, factors in enumerate(self.layout):  # an axis with one entry has one unit
            kept = tuple(factor for factor in factors if factor.size != 1)
            place = place.with_axis(axis, *kept)._with_unit_zero(self.running(axis))
        queue = _merged([factor for axis in place.layout for factor in axis])[::-1]
        layout: list[tuple[Factor, ...]] = []
        for size in shape:
            taken: list[Factor] = []
            while size > 1:
                factor = queue.pop() if queue else Factor(1)
                common = math.gcd(size, factor.size)
                if common not in (size, factor.size) or common < 2:
                    return self.only_common(shape)
                rest = factor.size // common
                taken.append(Factor(common, factor.along, factor.step * rest))
                size //= common
                if rest > 1:
                    queue.append(factor._replace(size=rest))
            layout.append(tuple(_merged(taken)) or (Factor(size),))
        return self.only_common(shape) if queue else dataclasses.replace(place, layout=tuple(layout))


def constant_layout(shape: Sequence[int]) -> Layout:
    """The layout of an array that runs along no axis of the network's input."""
    return tuple((Factor(size),) for size in shape)


def joined(places: Sequence[Place]) -> Place:
    """The place of an elementwise function of several arrays of the same shape."""
    first, *others = _comparable(places)
    for other in others:
        first = _pair(first, other)
    return first


def concatenated(pieces: Sequence[Place | None], sizes: Sequence[int], axis: int, *, padding: bool = False) -> Place:
    """The place of arrays that are concatenated along an axis; None stands for an array without receptive field.

    Args:
      pieces: The places of the arrays, at least one of them not None.
      sizes: The sizes of the arrays along the axis.
      axis: The axis of the concatenation.
      padding: Whether all arrays except the largest are padding, whose fields are ignored, like those of zeros.
    """
    total = sum(sizes)
    offsets = [sum(sizes[:index]) for index in range(len(sizes))]
    found = [
        (place, offset, size) for place, offset, size in zip(pieces, offsets, sizes, strict=True) if place and size
    ]
    if padding:
        found = [max(found, key=lambda piece: piece[2])]
    running = {k for place, *_ in found for k in place.running(axis)}
    shifted = [place.after_window(axis, total, low=offset) for place, offset, _ in found]
    # All pieces must follow one formula, as when an array was split and is concatenated again.
    fields = [place.along(axis) for place in shifted]
    whole = fields[0] is not None and all(field is not None and field.same(fields[0]) for field in fields)
    if not whole or len(running) > 1:
        shifted = [place.unknown(running).with_axis(axis, Factor(total)) for place in shifted]
    return joined(shifted)


def _comparable(places: Sequence[Place]) -> list[Place]:
    """Brings places to a form in which their axes have the same factors, or none that run along the input."""
    result = list(places)
    for axis in range(len(places[0].layout)):
        kinds = {place.layout[axis] for place in result if place.running(axis)}
        if len(kinds) > 1:
            size = places[0].shape[axis]
            result = [
                place.moved(axis, size, lambda field: field) if place.running(axis) else place for place in result
            ]
    return result


def _pair(a: Place, b: Place) -> Place:
    layout = []
    unknown: set[int] = set()
    for axis in range(len(a.layout)):
        if a.running(axis) and b.running(axis) and a.layout[axis] != b.layout[axis]:
            unknown |= a.running(axis) | b.running(axis)
        layout.append(a.layout[axis] if a.running(axis) else b.layout[axis])
    sides = [
        {k: [axis for axis in range(len(layout)) if k in one.running(axis)] for k in range(len(one.fields))}
        for one in (a, b)
    ]
    fields: list[AxisField | None] = []
    still: set[int] = set()  # the input axes along which all entries have the same field
    for k, (left, right) in enumerate(zip(a.fields, b.fields, strict=True)):
        field = None
        if left is not None and right is not None and k not in unknown:
            if sides[0][k] == sides[1][k]:
                field = left.hull(right)
            elif not sides[0][k] or not sides[1][k]:
                constant, moving, mover = (left, right, b) if not sides[0][k] else (right, left, a)
                field = _containing(constant, moving, mover, k)
                still.add(k)
        fields.append(field)
    place = Place(tuple(layout), tuple(fields), a.space)
    still |= {k for k, field in enumerate(fields) if field is None}
    stripped = tuple(
        tuple(Factor(factor.size) if factor.along in still else factor for factor in factors)
        for factors in place.layout
    )
    return dataclasses.replace(place, layout=stripped)


def _containing(constant: AxisField, moving: AxisField, place: Place, k: int) -> AxisField | None:
    """The union of a constant and a moving field: the constant field if it contains the other, else None."""
    low, high = constant.interval(0)
    own = [factor for factors in place.layout for factor in factors if factor.along == k]
    units = [0]
    for factor in own:
        units = [unit + factor.step * index for unit in units for index in range(factor.size)]
    start, stop = moving.of_units(units)
    if max(start, 0) < max(low, 0) or min(stop, place.space[k] - 1) > min(high, place.space[k] - 1):
        return None
    return AxisField.constant((min(low, start), max(high, stop)))


def _merged(factors: Sequence[Factor]) -> list[Factor]:
    """Merges adjacent factors that are equivalent to one factor."""
    result: list[Factor] = []
    for factor in factors:
        last = result[-1] if result else None
        if last and last.along == factor.along and (factor.along is None or last.step == factor.size * factor.step):
            result[-1] = Factor(last.size * factor.size, factor.along, factor.step)
        elif factor.size != 1:
            result.append(factor)
    return result


def _every(step: int) -> AxisField:
    """The field of every ``step``-th unit."""
    return AxisField((0,), (0,), step)
