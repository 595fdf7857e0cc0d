"""The features that TFDS declares, as fields: which kind each becomes, and how its stored value is decoded.

TFDS types each value of an example, such as ``tfds.features.Audio``. The first feature that is read is the network's
input. A later image with one channel is a mask, and a later tensor is a target. Boxes are a ``BBoxFeature``, alone or
in a sequence of objects.
"""

import contextlib
import dataclasses
import io
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from cnn_jax.data.boxes import box_fields, placed_boxes
from cnn_jax.data.dataset import IMAGE_DTYPES
from cnn_jax.data.fields import RESERVED, Field
from cnn_jax.data.images import resize_image, resize_mask
from cnn_jax.data.sounds import Sound, fit_sound
from cnn_jax.data.text import encode, tokenize
from cnn_jax.errors import UsageError

OUTSIDE = 255  # class number of the pixels of a mask that are not labelled
_OF_16_BITS = 32768.0
_TENSORS = {1: "signal", 2: "signal", 3: "image", 4: "volume"}  # number of axes -> kind of an input


class MissingLabelError(Exception):
    """An example has no label: TFDS writes -1 for the labels of a split that is published without them."""


@dataclasses.dataclass(frozen=True)
class Column:
    """One feature of a set, read as one field. Subclasses decode the features of one type of TFDS.

    Attributes:
      where: Begins the messages: the data set and the feature.
      key: The feature's name.
      feature: It, as TFDS has it.
      field: What it becomes, named by :attr:`name`.
    """

    where: str
    key: str
    feature: Any
    field: Field

    @property
    def name(self) -> str:
        """The field's name: the feature's, unless batches use that themselves."""
        return f"{self.key}_map" if self.key in RESERVED else self.key

    @property
    def fields(self) -> dict[str, Field]:
        """All fields that are read from the feature."""
        return {self.name: self.field}

    def read(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The values of these fields in one example.

        Args:
          features: Name -> ``Feature`` message of the stored example.
        """
        return {self.name: self.decoded(stored(features[self.key], self.feature.get_serialized_info()))}

    def decoded(self, value: Any) -> Any:
        """The field's value from the stored one."""
        raise NotImplementedError


class ImageColumn(Column):
    """An image, of one size or of any."""

    def decoded(self, value: Any) -> Any:
        """Pixels, or a Pillow image where sizes differ."""
        pixels = self.feature.decode_example_np(value)
        return pixels if None not in self.feature.shape else _as_pillow(pixels, (self.field.shape or ())[-1])


@dataclasses.dataclass(frozen=True)
class MaskColumn(Column):
    """An image of class numbers, brought to the size of the image as that is.

    Attributes:
      framing: As in :class:`~cnn_jax.data.Records`.
    """

    framing: str = "crop"

    def decoded(self, value: Any) -> np.ndarray:
        """Class numbers, (height, width)."""
        classes = self.feature.decode_example_np(value)[..., 0]
        height, width = self.field.shape or ()
        if classes.shape == (height, width):
            return classes
        return np.asarray(resize_mask(Image.fromarray(classes), (width, height), self.framing, fill=OUTSIDE))


class LabelColumn(Column):
    """A class number."""

    def decoded(self, value: int) -> int:
        """It; -1 is what TFDS writes for none."""
        if value < 0:
            raise MissingLabelError(self.where)
        return int(value)


class AudioColumn(Column):
    """Samples of sound; whole numbers are taken as those of 16 bits."""

    def decoded(self, value: Any) -> np.ndarray:
        """Samples from -1 to 1, padded with zeros or cut."""
        samples = np.asarray(self.feature.decode_example_np(value))
        scale = 1.0 if np.issubdtype(samples.dtype, np.floating) else _OF_16_BITS
        sound = Sound((samples.reshape(len(samples), -1) / scale).astype(np.float32), 1)
        length, channels = self.field.shape or ()
        return fit_sound(sound, self.where, rate=1, length=length, channels=channels)[0]


@dataclasses.dataclass(frozen=True)
class VideoColumn(Column):
    """Encoded frames, of one size or of any; a longer video is cut, a shorter one ends in black frames."""

    framing: str = "crop"

    def decoded(self, value: Any) -> np.ndarray:
        """Pixels, (frames, height, width, channels)."""
        frames, height, width, channels = self.field.shape or ()
        video = np.zeros((frames, height, width, channels), np.uint8)
        for frame, encoded in zip(video, value, strict=False):
            image = _as_pillow(self.feature.feature.decode_example_np(encoded), channels)
            resized = resize_image(image, (width, height), self.framing)
            frame[...] = np.asarray(resized).reshape(frame.shape)
        return video


@dataclasses.dataclass(frozen=True)
class TextColumn(Column):
    """A text, as the numbers of its words.

    Attributes:
      length: The number of words that it is padded or cut to.
    """

    length: int = 0

    @property
    def fields(self) -> dict[str, Field]:
        """The words and their number."""
        return {self.name: self.field, self.field.count: Field("count", (), "int32")}

    def read(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The numbers of the words, and how many they are."""
        words = self.words(features)
        tokens, counts = encode([words], self.field.class_names, self.length)
        return {self.name: tokens[0], self.field.count: counts[0]}

    def words(self, features: Mapping[str, Any]) -> list[str]:
        """The words of one stored example."""
        (text,) = features[self.key].bytes_list.value
        return tokenize(text.decode("utf-8", errors="replace"))


class TensorColumn(Column):
    """Numbers of a known shape."""

    def decoded(self, value: Any) -> np.ndarray:
        """Them, in the shape and dtype of the field."""
        return (
            np.asarray(self.feature.decode_example_np(value)).reshape(self.field.shape or ()).astype(self.field.dtype)
        )


@dataclasses.dataclass(frozen=True)
class BoxesColumn(Column):
    """The boxes of an example with their classes, moved as the image is when that is brought to another size.

    TFDS stores corners as ``(top, left, bottom, right)`` in parts of the image's sides.

    Attributes:
      image: The name of the image's feature.
      image_shape: Of the image's field.
      corners: The name under which corners are stored, such as ``objects/bbox``.
      classes: That of the class numbers; of a class for the whole example it is the class of each of its boxes.
      class_names: Of the objects.
      crowd: That of what is not counted, such as ``objects/is_crowd``; empty without.
      framing: As in :class:`~cnn_jax.data.Records`.
      most: The number of entries.
    """

    image: str = ""
    image_shape: tuple[int, ...] = ()
    corners: str = ""
    classes: str = ""
    class_names: tuple[str, ...] = ()
    crowd: str = ""
    framing: str = "crop"
    most: int = 1

    @property
    def fields(self) -> dict[str, Field]:
        """Boxes, their classes, which are not counted, and their number."""
        found = box_fields(self.image_shape, self.class_names, self.most)
        return {name: field for name, field in found.items() if name != "image"}

    def count(self, features: Mapping[str, Any]) -> int:
        """The number of boxes of one stored example."""
        return len(features[self.corners].float_list.value) // 4

    def read(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """The boxes of one example, in pixels of the image as it is read."""
        parts = np.array(features[self.corners].float_list.value, np.float64).reshape(-1, 4)
        classes, crowd = (
            np.array(features[key].int64_list.value, int) if key else np.zeros(len(parts), int)
            for key in (self.classes, self.crowd)
        )
        if (classes < 0).any():
            raise MissingLabelError(self.where)
        classes = np.broadcast_to(classes, len(parts)) if len(classes) == 1 else classes
        with Image.open(io.BytesIO(features[self.image].bytes_list.value[0])) as image:  # reads the header only
            width, height = image.size
        corners, size = parts * [height, width, height, width], (height, width)
        given = classes.tolist(), (crowd > 0).tolist()
        return placed_boxes(corners, *given, size, self.image_shape, self.framing, self.most)


@dataclasses.dataclass(frozen=True)
class Wanted:
    """How the examples of a set are to be read.

    Attributes:
      image_shape: The shape that inputs of different sizes are brought to; None if it is not known.
      framing: How images reach it.
    """

    image_shape: tuple[int, ...] | None
    framing: str = "crop"

    def shape(self, where: str, declared: Sequence[int | None], axes: str) -> tuple[int, ...]:
        """The declared shape of an input, or the wanted one where it is open."""
        known = [size for size in declared if size is not None]
        if len(known) == len(declared):
            return tuple(known)
        count = len(axes.split(", "))
        if self.image_shape is None or len(self.image_shape) != count:
            raise UsageError(
                f"{where} has different sizes {tuple(declared)}; give image_shape=({axes}) to bring them to"
            )
        return self.image_shape


def columns(name: str, features: Mapping[str, Any], keys: Sequence[str], wanted: Wanted) -> list[Column]:
    """How some features of a set are read, the input first.

    Args:
      name: The data set's.
      features: Those that TFDS declares, by name.
      keys: The names of the features that are read.
      wanted: What they are brought to.

    Raises:
      UsageError: There is no such feature, or none of its type can be read.
    """
    found: list[Column] = []
    for key in keys:
        if key not in features:
            raise UsageError(f"data set {name!r} has no feature {key!r}; it has {listed(features)}")
        where, make = f"data set {name!r}: {key}", _MAKERS.get(type(features[key]).__name__)
        if _of_type("BBoxFeature", key, features[key]):
            labels = [other for other in keys if type(features.get(other)).__name__ == "ClassLabel"]
            found.append(_boxes(where, key, features[key], wanted, found, labels, features))
        elif make is None:
            raise UsageError(
                f"{where} is {type(features[key]).__name__}, which is not read; leave it out of data.features (the "
                f"set has {listed(features)})"
            )
        else:
            found.append(make(where, key, features[key], wanted, found))
    of_boxes = {column.classes for column in found if isinstance(column, BoxesColumn)}
    return [column for column in found if column.key not in of_boxes]


def listed(features: Mapping[str, Any]) -> str:
    """Features with their types, as text for users."""
    return ", ".join(f"{key} ({type(feature).__name__})" for key, feature in sorted(features.items()))


def stored(message: Any, info: Any) -> Any:
    """The value of a ``Feature`` message: one, or an array of them.

    Args:
      message: Of one stored feature.
      info: What TFDS says about how it is stored.
    """
    values = getattr(message, message.WhichOneof("kind")).value
    return np.array(values, info.np_dtype) if info.shape else values[0]


@contextlib.contextmanager
def dtypes_without_tensorflow() -> Iterator[None]:
    """Lets TFDS make ``Audio`` and ``Video``, for which it asks TensorFlow for the name of a dtype that NumPy has."""
    from tensorflow_datasets.core.features import audio_feature, video_feature

    numpy_dtypes = types.SimpleNamespace(dtypes=types.SimpleNamespace(as_dtype=np.dtype))
    modules: tuple[Any, ...] = (audio_feature, video_feature)
    before = [module.tf for module in modules]
    try:
        for module in modules:
            module.tf = numpy_dtypes
        yield
    finally:
        for module, tf in zip(modules, before, strict=True):
            module.tf = tf


def _as_pillow(pixels: np.ndarray, channels: int) -> Image.Image:
    image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
    return image.convert("L" if channels == 1 else "RGB")


_Make = Callable[[str, str, Any, Wanted, Sequence[Column]], Column]


def _image(where: str, key: str, feature: Any, wanted: Wanted, others: Sequence[Column]) -> Column:
    dtype = np.dtype(feature.np_dtype).name
    if dtype not in IMAGE_DTYPES:
        raise UsageError(f"{where} has {dtype} images; only {' and '.join(IMAGE_DTYPES)} are supported")
    if others and feature.shape[-1] == 1:
        names = feature.names if getattr(feature, "num_classes", None) else ()
        space = (others[0].field.shape or ())[:2] if others[0].field.kind == "image" else feature.shape[:2]
        if None in space or dtype != "uint8":
            raise UsageError(f"{where}: a mask of {dtype} and {feature.shape} beside {others[0].key} is not read")
        field = Field("mask", tuple(space), dtype, class_names=tuple(names))
        return MaskColumn(where, key, feature, field, wanted.framing)
    shape = wanted.shape(where, feature.shape, "height, width, channels")
    return ImageColumn(where, key, feature, Field("image", shape, dtype))


def _label(where: str, key: str, feature: Any, wanted: Wanted, others: Sequence[Column]) -> Column:
    return LabelColumn(where, key, feature, Field("label", (), "int32", class_names=tuple(feature.names)))


def _audio(where: str, key: str, feature: Any, wanted: Wanted, others: Sequence[Column]) -> Column:
    declared = feature.shape if len(feature.shape) == 2 else (*feature.shape, 1)
    shape = wanted.shape(where, declared, "length, channels")
    field = Field("signal", shape, "float32", rate=feature.sample_rate or None)
    return AudioColumn(where, key, feature, field)


def _video(where: str, key: str, feature: Any, wanted: Wanted, others: Sequence[Column]) -> Column:
    shape = wanted.shape(where, feature.shape, "frames, height, width, channels")
    return VideoColumn(where, key, feature, Field("video", shape, "uint8"), wanted.framing)


def _text(where: str, key: str, feature: Any, wanted: Wanted, others: Sequence[Column]) -> Column:
    if others:
        raise UsageError(f"{where}: a text beside {others[0].key} is not read; leave it out of data.features")
    (length,) = wanted.shape(where, (None,), "length,")
    return TextColumn(where, key, feature, Field("text", (length,), "int32", count=f"{key}_count"), length)


def _tensor(where: str, key: str, feature: Any, wanted: Wanted, others: Sequence[Column]) -> Column:
    shape, dtype = feature.shape, np.dtype(feature.np_dtype)
    if None in shape or dtype.kind not in "biuf":
        raise UsageError(f"{where}: is a tensor of {dtype.name} {shape}; only numbers of one known shape are read")
    if others:
        return TensorColumn(where, key, feature, Field("target", shape, "float32"))
    if len(shape) not in _TENSORS:
        raise UsageError(f"{where}: an input has 1 to 4 axes, not {shape}")
    kind = _TENSORS[len(shape)]
    full = (*shape, 1) if len(shape) == 1 else shape
    whole = kind != "signal" and dtype == np.uint8
    return TensorColumn(where, key, feature, Field(kind, full, "uint8" if whole else "float32"))


def _boxes(
    where: str,
    key: str,
    feature: Any,
    wanted: Wanted,
    others: Sequence[Column],
    labels: Sequence[str],
    features: Mapping[str, Any],
) -> Column:
    """Boxes with classes of their own, with that of the example, or, without any, of the one class that is their name.

    Args:
      labels: The features that are read and are the class of the whole example.
      features: All features of the set, by name.
    """
    (corners, box), *more = _of_type("BBoxFeature", key, feature).items()
    classes = _of_type("ClassLabel", key, feature) or {label: features[label] for label in labels}
    if more or len(classes) > 1:
        raise UsageError(f"{where}: several boxes or classes for each object are not read; leave it out")
    if getattr(box.bbox_format, "value", None) not in (None, "REL_YXYX"):
        raise UsageError(f"{where}: boxes in the format {box.bbox_format.value} are not read, but REL_YXYX")
    if not others or not isinstance(others[0], ImageColumn):
        raise UsageError(f"{where}: boxes need the image that they are in; name it first in data.features")
    inside = {name.rpartition("/")[2]: name for name in _inside(key, feature)}
    crowd = next((inside[name] for name in ("is_crowd", "is_difficult") if name in inside), "")
    class_names = next((tuple(one.names) for one in classes.values()), (key,))
    image_shape = others[0].field.shape or ()
    boxes = box_fields(image_shape, class_names, 1)["boxes"]
    stored_under = corners, next(iter(classes), ""), class_names, crowd
    return BoxesColumn(where, key, feature, boxes, others[0].key, image_shape, *stored_under, wanted.framing)


def _inside(key: str, feature: Any) -> dict[str, Any]:
    """The features that one consists of, by the names under which they are stored."""
    inner = getattr(feature, "feature", feature)  # of a sequence
    if not hasattr(inner, "items"):
        return {key: inner}
    return {f"{key}/{name}": one for name, one in inner.items()}


def _of_type(name: str, key: str, feature: Any) -> dict[str, Any]:
    """Those of them that are of one type."""
    return {path: one for path, one in _inside(key, feature).items() if type(one).__name__ == name}


_MAKERS: Mapping[str, _Make] = {
    "ClassLabel": _label,
    "Image": _image,
    "LabeledImage": _image,
    "Audio": _audio,
    "Video": _video,
    "Text": _text,
    "Tensor": _tensor,
    "Scalar": _tensor,
}
"""Name of a type in ``tfds.features`` -> how it is read. Types that are derived from these may mean something else, as
``BBoxFeature`` does, which is a ``Tensor``. Boxes are read together with their classes, see :class:`BoxesColumn`."""
