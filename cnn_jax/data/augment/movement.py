"""Geometric changes of a batch, once their random numbers are drawn: what they do to pixels, to classes and to boxes.

A :class:`Movement` knows nothing of fields: it is applied to arrays whose axes are named. ``height`` and ``width`` are
those of images; volumes also have a ``depth``, signals only a ``length``. Axes that a movement does not name stay as
they are.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32, Num, Shaped

from cnn_jax.data.augment.arguments import MODES

PLANE = ("height", "width")

Frame = dict[str, int]
"""Name of an axis -> its size."""

Axes = tuple[str, ...]
"""The names of an array's axes between the batch and the channels."""

Boxes = Float[Array, "batch entries 4"]
"""``(top, left, bottom, right)`` in pixels."""


class Movement:
    """One geometric change of each example of a batch."""

    @property
    def sizes(self) -> Frame:
        """The new sizes of the axes whose size changes."""
        return {}

    def pixels(self, array: Float[Array, "batch *sides channels"], axes: Axes) -> Float[Array, "batch *new channels"]:
        """The array after the change, with values between pixels interpolated.

        Args:
          array: Floating point, channels last.
          axes: The names of the axes between batch and channels.
        """
        raise NotImplementedError

    def classes(self, array: Num[Array, "batch *sides"], axes: Axes, *, outside: int) -> Num[Array, "batch *new"]:
        """The array after the change, with the value of the nearest pixel.

        Args:
          array: Class numbers, without channels.
          axes: The names of the axes after the batch.
          outside: The value of what comes from beyond the border.
        """
        raise NotImplementedError

    def boxes(self, boxes: Boxes, frame: Frame) -> Boxes:
        """The boxes of what was in the boxes, not clipped.

        Args:
          boxes: ``(top, left, bottom, right)`` in pixels.
          frame: The sizes before the change.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Mirrored(Movement):
    """Left and right exchanged, or start and end of a signal.

    Attributes:
      chosen: In which examples.
    """

    chosen: Bool[Array, " batch"]

    def _mirrored(self, array: Array, axes: Axes) -> Array:
        """By gathering columns: for a selection of two views XLA on a CPU would compute twice what made the image."""
        for axis in [1 + axes.index(name) for name in ("width", "length") if name in axes]:
            columns = jnp.arange(array.shape[axis])
            columns = jnp.where(self.chosen[:, None], columns[::-1], columns)
            array = _gathered_along(array, axis, columns)
        return array

    def pixels(self, array: Float[Array, "batch *sides channels"], axes: Axes) -> Float[Array, "batch *new channels"]:
        """Mirrored values."""
        return self._mirrored(array, axes)

    def classes(self, array: Num[Array, "batch *sides"], axes: Axes, *, outside: int) -> Num[Array, "batch *new"]:
        """Mirrored values."""
        return self._mirrored(array, axes)

    def boxes(self, boxes: Boxes, frame: Frame) -> Boxes:
        """Mirrored boxes."""
        top, left, bottom, right = jnp.moveaxis(boxes, -1, 0)
        mirrored = jnp.stack([top, frame["width"] - right, bottom, frame["width"] - left], axis=-1)
        return jnp.where(self.chosen[:, None, None], mirrored, boxes)


@dataclasses.dataclass(frozen=True)
class Cropped(Movement):
    """A window of whole pixels, perhaps of padded arrays.

    Attributes:
      starts: Name of an axis -> where the window begins, counted from the padded array's border, for each example.
      lengths: The same names -> how long the window is.
      padding: At both ends of these axes.
      mode: What the padding is: ``"zero"`` or ``"mirror"``.
    """

    starts: Mapping[str, Int32[Array, " batch"]]
    lengths: Frame
    padding: int = 0
    mode: str = "zero"

    @property
    def sizes(self) -> Frame:
        """The window's."""
        return self.lengths

    def _cut(self, array: Array, axes: Axes, outside: int) -> Array:
        if not any(axis in self.starts for axis in axes):
            return array
        names = [*axes, *[""] * (array.ndim - 1 - len(axes))]
        if self.padding:
            around = [(0, 0), *((self.padding,) * 2 if name in self.starts else (0, 0) for name in names)]
            value = {"constant_values": outside} if self.mode == "zero" else {}
            padded = jnp.pad(array, around, mode=MODES[self.mode], **value)
        else:
            padded = array
        sizes = [self.lengths.get(name, size) for name, size in zip(names, array.shape[1:], strict=True)]
        moving = {name: self.starts[name] for name in axes if name in self.starts}

        def crop(starts: dict[str, Array], example: Array) -> Array:
            return jax.lax.dynamic_slice(example, [starts.get(name, 0) for name in names], sizes)

        return computed_once(jax.vmap(crop)(moving, padded))

    def pixels(self, array: Float[Array, "batch *sides channels"], axes: Axes) -> Float[Array, "batch *new channels"]:
        """The values inside the window."""
        return self._cut(array, axes, 0)

    def classes(self, array: Num[Array, "batch *sides"], axes: Axes, *, outside: int) -> Num[Array, "batch *new"]:
        """The values inside the window."""
        return self._cut(array, axes, outside)

    def boxes(self, boxes: Boxes, frame: Frame) -> Boxes:
        """Boxes measured from the window's corner."""
        shifts = [self.padding - self.starts[name] if name in self.starts else 0 for name in PLANE]
        return boxes + _corner_pairs(shifts, boxes)


@dataclasses.dataclass(frozen=True)
class Windowed(Movement):
    """A window with borders between pixels, brought to another size with antialiased linear interpolation.

    Attributes:
      starts: Name of an axis -> where the window begins, in pixels, for each example.
      lengths: The same names -> its length in pixels, for each example.
      sizes_after: The same names -> the size that it is brought to.
    """

    starts: Mapping[str, Float32[Array, " batch"]]
    lengths: Mapping[str, Float32[Array, " batch"]]
    sizes_after: Frame

    @property
    def sizes(self) -> Frame:
        """The size that the window is brought to."""
        return self.sizes_after

    def _along(self, axes: Axes) -> dict[int, tuple[Array, Array, int]]:
        """Axis of one example -> start, length and new size."""
        return {
            number: (self.starts[name], self.lengths[name], self.sizes_after[name])
            for number, name in enumerate(axes)
            if name in self.starts
        }

    def pixels(self, array: Float[Array, "batch *sides channels"], axes: Axes) -> Float[Array, "batch *new channels"]:
        """The window, resized.

        Along each axis a sum over the few pixels that the kernel can reach. ``jax.image.scale_and_translate`` gives the
        same by a product with a dense matrix, which takes a CPU three times as long.
        """
        along = self._along(axes)
        if not along:
            return array

        def window(example: Array, places: list[tuple[Array, Array]]) -> Array:
            for (axis, (_, _, wanted)), (start, length) in zip(along.items(), places, strict=True):
                example = _resized_along(example, axis, start, length, wanted)
            return example

        return computed_once(jax.vmap(window)(array, [(start, length) for start, length, _ in along.values()]))

    def classes(self, array: Num[Array, "batch *sides"], axes: Axes, *, outside: int) -> Num[Array, "batch *new"]:
        """The pixels nearest to the new ones' centres."""
        for axis, (start, length, wanted) in self._along(axes).items():
            centres = start[:, None] + (jnp.arange(wanted) + 0.5) * (length / wanted)[:, None]
            places = jnp.floor(centres).astype(jnp.int32).clip(0, array.shape[1 + axis] - 1)
            array = _gathered_along(array, 1 + axis, places)
        return array

    def boxes(self, boxes: Boxes, frame: Frame) -> Boxes:
        """Boxes measured from the window's corner, in the new pixels."""
        names = [name if name in self.starts else None for name in PLANE]
        starts = _corner_pairs([0 if name is None else self.starts[name] for name in names], boxes)
        zooms = [1 if name is None else self.sizes_after[name] / self.lengths[name] for name in names]
        return (boxes - starts) * _corner_pairs(zooms, boxes)


@dataclasses.dataclass(frozen=True)
class Warped(Movement):
    """Every pixel taken from a place of its own, with linear interpolation.

    Attributes:
      plane: Rows and columns that the pixels of the ``(height, width)`` plane come from; None where nothing has one.
      along: Name of another axis -> the places that its pixels come from.
      mode: What lies beyond the border: ``"zero"`` or ``"mirror"``.
      forward: Where the points ``(row, column)`` of the plane go, measured in pixels from its corner; None where no
        formula says it: boxes then become those of the pixels that come from inside them.
    """

    plane: Float[Array, "batch 2 height width"] | None
    along: Mapping[str, Float[Array, "batch size"]]
    mode: str
    forward: Callable[[Float[Array, "batch points 2"]], Float[Array, "batch points 2"]] | None = None

    def pixels(self, array: Float[Array, "batch *sides channels"], axes: Axes) -> Float[Array, "batch *new channels"]:
        """Linearly interpolated values."""
        return self._sampled(array, axes, _interpolated, _interpolated_along)

    def classes(self, array: Num[Array, "batch *sides"], axes: Axes, *, outside: int) -> Num[Array, "batch *new"]:
        """The values of the nearest pixels."""
        nearest = functools.partial(_nearest, outside=outside)
        along = functools.partial(_nearest_along, outside=outside)
        return self._sampled(array[..., None], axes, nearest, along)[..., 0]

    def _sampled(self, array: Array, axes: Axes, plane: Callable[..., Array], along: Callable[..., Array]) -> Array:
        if axes[-2:] == PLANE and self.plane is not None:
            if len(axes) == 2:
                array = plane(array, self.plane, self.mode)
            else:  # slices or frames, all alike: as if they were channels
                shape = array.shape
                stacked = jnp.moveaxis(array, 1, -2).reshape(shape[0], *shape[2:4], -1)
                flat = plane(stacked, self.plane, self.mode)
                array = jnp.moveaxis(flat.reshape(*flat.shape[:3], shape[1], shape[4]), -2, 1)
        for axis, name in enumerate(axes, 1):
            if name in self.along:
                array = along(array, axis, self.along[name], self.mode)
        return array

    def boxes(self, boxes: Boxes, frame: Frame) -> Boxes:
        """The bounding boxes of the moved corners, or of the pixels that come from inside the boxes."""
        if self.plane is None:
            return boxes
        if self.forward is None:
            return jax.vmap(_boxes_of_pixels)(boxes, self.plane)
        count, entries, _ = boxes.shape
        corners = jnp.stack([boxes[..., [row, column]] for row in (0, 2) for column in (1, 3)], axis=2)
        moved = self.forward(corners.reshape(count, -1, 2)).reshape(count, entries, 4, 2)
        return jnp.concatenate([moved.min(axis=2), moved.max(axis=2)], axis=-1)


def _corner_pairs(values: list, boxes: Boxes) -> Array:
    """Numbers for rows and columns as (top, left, bottom, right), to be combined with boxes."""
    rows, columns = (jnp.broadcast_to(jnp.asarray(value, boxes.dtype), boxes.shape[:1]) for value in values)
    return jnp.stack([rows, columns, rows, columns], axis=-1)[:, None]


def _resized_along(image: Array, axis: int, start: Array, window: Array, wanted: int) -> Array:
    """A window of one axis of an image, resized."""
    side = image.shape[axis]
    zoom = window / wanted
    reach = jnp.maximum(zoom, 1)  # of the kernel, in pixels
    centres = start + (jnp.arange(wanted) + 0.5) * zoom - 0.5
    taps = math.ceil(2 * max(1, side / wanted))
    pixels = jnp.floor(centres - reach)[:, None] + 1 + jnp.arange(taps)
    weights = jnp.maximum(0, 1 - jnp.abs(pixels - centres[:, None]) / reach)
    weights = jnp.where((pixels >= 0) & (pixels < side), weights, 0)
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(image.dtype)
    places = pixels.clip(0, side - 1).astype(jnp.int32)
    shape = [wanted if number == axis else 1 for number in range(image.ndim)]
    parts = (weights[:, tap].reshape(shape) * jnp.take(image, places[:, tap], axis, mode="clip") for tap in range(taps))
    return functools.reduce(jnp.add, parts)


def _interpolated(images: Array, coordinates: Float[Array, "batch 2 height width"], mode: str) -> Array:
    """Bilinear interpolation at fractional rows and columns, one field of them for each image."""
    sides = images.shape[1:3]
    coordinates = computed_once(coordinates)
    below = jnp.floor(coordinates)
    part = (coordinates - below).astype(images.dtype)
    corner = below.astype(jnp.int32)

    def weighted(row: int, column: int) -> Array:
        weight = (part[:, 0] if row else 1 - part[:, 0]) * (part[:, 1] if column else 1 - part[:, 1])
        rows, columns = corner[:, 0] + row, corner[:, 1] + column
        if mode == "zero":
            inside = (rows >= 0) & (rows < sides[0]) & (columns >= 0) & (columns < sides[1])
            weight = jnp.where(inside, weight, 0)
        return weight[..., None] * _gathered(images, _place(rows, sides[0], mode), _place(columns, sides[1], mode))

    return computed_once(weighted(0, 0) + weighted(0, 1) + weighted(1, 0) + weighted(1, 1))


def _nearest(images: Array, coordinates: Float[Array, "batch 2 height width"], mode: str, *, outside: int) -> Array:
    """The pixels nearest to fractional rows and columns."""
    sides = images.shape[1:3]
    rows, columns = jnp.moveaxis(jnp.floor(coordinates + 0.5).astype(jnp.int32), 1, 0)
    values = _gathered(images, _place(rows, sides[0], mode), _place(columns, sides[1], mode))
    if mode == "mirror":
        return values
    inside = (rows >= 0) & (rows < sides[0]) & (columns >= 0) & (columns < sides[1])
    return jnp.where(inside[..., None], values, jnp.asarray(outside, images.dtype))


def _interpolated_along(array: Array, axis: int, coordinates: Float[Array, "batch size"], mode: str) -> Array:
    """Linear interpolation at fractional places of one axis."""
    side = array.shape[axis]
    below = jnp.floor(coordinates)
    part = (coordinates - below).astype(array.dtype)

    def weighted(places: Array, weights: Array) -> Array:
        if mode == "zero":
            weights = jnp.where((places >= 0) & (places < side), weights, 0)
        return _spread(weights, axis, array.ndim) * _gathered_along(array, axis, _place(places, side, mode))

    first = below.astype(jnp.int32)
    return weighted(first, 1 - part) + weighted(first + 1, part)


def _nearest_along(
    array: Array, axis: int, coordinates: Float[Array, "batch size"], mode: str, *, outside: int
) -> Array:
    """The values nearest to fractional places of one axis."""
    side = array.shape[axis]
    places = jnp.floor(coordinates + 0.5).astype(jnp.int32)
    values = _gathered_along(array, axis, _place(places, side, mode))
    if mode == "mirror":
        return values
    inside = _spread((places >= 0) & (places < side), axis, array.ndim)
    return jnp.where(inside, values, jnp.asarray(outside, array.dtype))


def _boxes_of_pixels(boxes: Float[Array, "entries 4"], plane: Float[Array, "2 height width"]) -> Array:
    """The bounding boxes of the pixels whose centres come from inside the boxes; without area where there is none."""
    rows, columns = plane + 0.5
    top, left, bottom, right = (edge[:, None, None] for edge in boxes.T)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    in_rows, in_columns = inside.any(axis=2), inside.any(axis=1)
    found = inside.any(axis=(1, 2))
    first = [jnp.argmax(line, axis=1) for line in (in_rows, in_columns)]
    last = [line.shape[1] - jnp.argmax(line[:, ::-1], axis=1) for line in (in_rows, in_columns)]
    return jnp.where(found[:, None], jnp.stack([*first, *last], axis=-1), 0).astype(boxes.dtype)


def computed_once(array: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """Keeps XLA from fusing, and so computing anew, what is costly into each of its uses.

    The barrier does it on accelerators. On a CPU it is gone before operations are fused, but there a gather, which may
    use an element many times, is not fused with what is costly.
    """
    return jnp.take(jax.lax.optimization_barrier(array), jnp.arange(array.shape[1]), axis=1, mode="clip")


def _place(positions: Array, side: int, mode: str) -> Array:
    """Positions beyond the border brought inside: to the border, or as by a mirror standing on its pixels."""
    if mode == "zero":
        return positions.clip(0, side - 1)
    period = max(1, 2 * (side - 1))
    positions = positions % period
    return jnp.minimum(positions, period - positions)


def _gathered(images: Array, rows: Array, columns: Array) -> Array:
    return jax.vmap(lambda image, row, column: image[row, column])(images, rows, columns)


def _gathered_along(array: Array, axis: int, places: Array) -> Array:
    return jax.vmap(functools.partial(jnp.take, axis=axis - 1, mode="clip"))(array, places)


def _spread(values: Array, axis: int, rank: int) -> Array:
    """Values of shape (batch, size) along one axis of an array."""
    return values.reshape([values.shape[0], *(values.shape[1] if number == axis else 1 for number in range(1, rank))])
