"""The fields of a batch while they are augmented: each is changed by its kind, all by the same random numbers."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Shaped

from cnn_jax.data.augment.arguments import check_images
from cnn_jax.data.augment.movement import PLANE, Frame, Movement
from cnn_jax.data.fields import INPUT_KINDS, KINDS, MAP_KINDS, PIXEL_KINDS, Spec
from cnn_jax.errors import UsageError
from cnn_jax.typed import typed

MOVED_KINDS = (*INPUT_KINDS, *MAP_KINDS, "boxes")  # by geometric augmentations


@typed
@dataclasses.dataclass(frozen=True)
class Fields:
    """The arrays of a batch with their spec: what the augmentations take where there is more than images.

    Attributes:
      arrays: Name -> array, shape ``(batch, ...)``. Images, volumes, video and signals are floating point.
      spec: Name -> :class:`~cnn_jax.data.Field`. Kind, count and the class number of what comes from outside are used;
        shapes may have changed.

    Example:
      >>> import jax
      >>> from cnn_jax.data import Field
      >>> from cnn_jax.data.augment import flip
      >>> spec = {"photo": Field("image"), "class_of": Field("mask")}
      >>> fields = Fields({"photo": jnp.zeros((1, 1, 3, 3)), "class_of": jnp.arange(3).reshape(1, 1, 3)}, spec)
      >>> flip(jax.random.key(0), fields, probability=1).arrays["class_of"][0, 0].tolist()
      [2, 1, 0]
    """

    arrays: Mapping[str, Any]
    spec: Spec

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def of_kinds(self, *kinds: str) -> list[str]:
        """The names of the fields of some kinds."""
        return [name for name, field in self.spec.items() if field.kind in kinds]

    def replaced(self, arrays: Mapping[str, Any], spec: Spec | None = None) -> "Fields":
        """The fields with some arrays, and some entries of the spec, replaced.

        Args:
          arrays: Name -> new array.
          spec: Name -> new field; None for none.
        """
        return Fields({**self.arrays, **arrays}, {**self.spec, **(spec or {})})

    def axes(self, name: str) -> tuple[str, ...]:
        """The names of the axes along which a field extends in space or time."""
        kind, rank = self.spec[name].kind, self.arrays[name].ndim - 1
        if kind in MAP_KINDS:
            solid = "frames" if self.of_kinds("video") and not self.of_kinds("volume") else "depth"
            return {1: ("length",), 2: PLANE, 3: (solid, *PLANE)}[rank]
        return (KINDS[kind].axes or ())[:-1] if kind in INPUT_KINDS else ()  # without the channels

    def frame(self, augmentation: str) -> Frame:
        """The sizes of all axes that are moved, which must be the same in all fields.

        Args:
          augmentation: Begins the messages.

        Raises:
          UsageError: They are not the same, or no field can be moved.
        """
        frame: Frame = {}
        for name in self.of_kinds(*INPUT_KINDS, *MAP_KINDS):
            for axis, size in zip(self.axes(name), self.arrays[name].shape[1:], strict=False):
                if frame.setdefault(axis, size) != size and axis != "frames":
                    raise UsageError(
                        f"{augmentation}: {name} has {axis} {size}, another field {frame[axis]}; fields that are moved "
                        "together must have one size"
                    )
        if self.of_kinds("boxes") and "height" not in frame:
            raise UsageError(f"{augmentation}: boxes need the image that they are in")
        if not frame:
            raise UsageError(f"{augmentation}: there is no image, mask, volume, video or signal to move")
        return frame

    def moved(self, movement: Movement, frame: Frame) -> "Fields":
        """All fields after a geometric change.

        Images, volumes, video, signals and weights are interpolated. Masks take the nearest pixel, and
        ``field.outside`` from beyond the border. Boxes move with their pixels and are clipped; those that are left
        without area are removed, with the other entries of the same count. Other fields stay as they are.

        Args:
          movement: The change.
          frame: The sizes before it, from :meth:`frame`.
        """
        new: dict[str, Array] = {}
        kept: dict[str, Any] = {}
        after = {**frame, **movement.sizes}
        for name, field in self.spec.items():
            array = jnp.asarray(self.arrays[name])
            if field.kind in INPUT_KINDS:
                new[name] = movement.pixels(array, self.axes(name))
            elif field.kind == "mask":
                outside = dataclasses.replace(field, dtype=array.dtype.name).outside  # whose default is by the dtype
                new[name] = movement.classes(array, self.axes(name), outside=0 if outside is None else outside)
            elif field.kind == "weights":
                new[name] = movement.pixels(array[..., None], self.axes(name))[..., 0]
            elif field.kind == "boxes":
                limits = jnp.array([after["height"], after["width"]] * 2, array.dtype)
                new[name] = movement.boxes(array, frame).clip(0, limits)
                visible = (new[name][..., 2:] > new[name][..., :2]).all(axis=-1)
                kept[field.count] = kept.get(field.count, True) & visible
        return self.replaced(new).with_entries(kept)

    def with_entries(self, kept: Mapping[str, Bool[Array, "batch entries"]]) -> "Fields":
        """The fields without some of their entries; those that are left come first, and behind them are zeros.

        Args:
          kept: Name of a count -> which of the entries that it counts are kept.
        """
        new = {}
        for count, chosen in kept.items():
            chosen = chosen & (jnp.arange(chosen.shape[1]) < jnp.asarray(self.arrays[count])[:, None])
            order = jnp.argsort(~chosen, axis=1, stable=True)
            number = chosen.sum(axis=1, dtype=jnp.int32)
            new[count] = number
            for name in (name for name, field in self.spec.items() if field.count == count):
                array = jnp.asarray(self.arrays[name])
                shape = (..., *[None] * (array.ndim - 2))
                sorted_entries = jnp.take_along_axis(array, order[shape], axis=1)
                real = (jnp.arange(chosen.shape[1]) < number[:, None])[shape]
                new[name] = jnp.where(real, sorted_entries, jnp.zeros((), array.dtype))
        return self.replaced(new)


Images = TypeVar("Images", Array, Fields)
"""Images alone, an array of shape ``(batch, height, width, channels)``, or all fields of a batch."""


def batch_frame(augmentation: str, images: Shaped[Array, "..."] | Fields) -> Frame:
    """The sizes of the axes that a geometric augmentation moves.

    Args:
      augmentation: Begins the messages.
      images: Floating point, shape ``(batch, height, width, channels)``, or fields.

    Raises:
      UsageError: The images or fields cannot be augmented.
    """
    if isinstance(images, Fields):
        for name in images.of_kinds(*INPUT_KINDS):
            if not jnp.issubdtype(images.arrays[name].dtype, jnp.floating):
                raise UsageError(f"{augmentation}: {name} is {images.arrays[name].dtype}; give floating point")
        return images.frame(augmentation)
    check_images(augmentation, images)
    return {"height": images.shape[1], "width": images.shape[2]}


def moved(images: Images, movement: Movement, frame: Frame) -> Images:
    """Images, or all fields of a batch, after a geometric change.

    Args:
      images: The images or fields.
      movement: The change.
      frame: The sizes before it, from :func:`batch_frame`.
    """
    if isinstance(images, Fields):
        return images.moved(movement, frame)  # type: ignore[return-value]
    return movement.pixels(images, PLANE)


def by_kind(function: Callable[..., Any]) -> Callable[..., Any]:
    """Marks an augmentation that takes :class:`Fields` as well as images."""
    function.by_kind = True  # type: ignore[attr-defined]
    return function


def photometric(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets a function of images that moves no pixels take the fields of a batch, too.

    All fields of kind image, volume and video are changed by the same numbers of each example; the slices of a volume
    and the frames of a video as one large image. Masks, boxes and all others stay as they are.

    Args:
      function: ``function(key, images, *, options) -> images``.

    Returns:
      The function, which also takes and returns :class:`Fields`.

    Example:
      >>> import jax
      >>> from cnn_jax.data import Field
      >>> @photometric
      ... def darker(key, images, *, factor=0.5):
      ...     return factor * images
      >>> batch = {"film": jnp.ones((1, 5, 4, 4, 3))}
      >>> float(darker(jax.random.key(0), Fields(batch, {"film": Field("video")})).arrays["film"].max())
      0.5
    """

    @functools.wraps(function)
    def of_images_or_fields(key: Any, images: Any, **options: Any) -> Any:
        if not isinstance(images, Fields):
            return function(key, images, **options)
        new = {}
        for name in images.of_kinds(*PIXEL_KINDS):
            array = jnp.asarray(images.arrays[name])
            flat = array if array.ndim == 4 else array.reshape(len(array), -1, *array.shape[3:])
            new[name] = function(key, flat, **options).reshape(array.shape)
        if not new:
            raise UsageError(f"{function.__name__}: there is no image, volume or video to change")
        return images.replaced(new)

    return by_kind(of_images_or_fields)
