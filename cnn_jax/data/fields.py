"""Named fields: what each array of an example is, by its kind.

An example is a set of named arrays, such as an image and its label. A :class:`Field` says what one of them means: its
kind, and with it the order of its axes, its dtypes, and how augmentation and preprocessing treat it.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from cnn_jax.errors import UsageError, nearest
from cnn_jax.typed import typed

IGNORED = -1  # the label that is ignored where nothing else is stated
RESERVED = ("index", "mask", "drawn")  # of a batch: numbers in the set, 0 for padding, and inputs drawn by a task


class Kind(NamedTuple):
    """What all fields of one kind share.

    Attributes:
      axes: The axes of one example, in order; None for any.
      dtypes: The dtypes that its arrays may have.
    """

    axes: tuple[str, ...] | None
    dtypes: tuple[str, ...]


KINDS: dict[str, Kind] = {
    "image": Kind(("height", "width", "channels"), ("uint8", "float32")),
    "mask": Kind(("height", "width"), ("uint8", "int32")),
    "weights": Kind(("height", "width"), ("float32",)),
    "label": Kind((), ("int32",)),
    "labels": Kind(("classes",), ("uint8", "float32")),
    "target": Kind(None, ("float32",)),
    "boxes": Kind(("entries", "corners"), ("float32",)),
    "signal": Kind(("length", "channels"), ("float32",)),
    "text": Kind(("entries",), ("int32",)),
    "volume": Kind(("depth", "height", "width", "channels"), ("uint8", "float32")),
    "video": Kind(("frames", "height", "width", "channels"), ("uint8", "float32")),
    "count": Kind((), ("int32",)),
}
"""Name of a kind -> its axes and dtypes.

- ``image``: pixels, uint8 from 0 to 255 or float32 from 0 to 1; channels last, as in all that have them.
- ``mask``: one class number per pixel of the image, or of the volume, video or signal, whose axes it has.
- ``weights``: one number per pixel, such as the weight of its loss, which is moved with the image; 0 from beyond it.
- ``label``: one class number per example, or per entry (see :class:`Field`).
- ``labels``: several classes at once: 1 for each class that applies, 0 for the others, or probabilities.
- ``target``: real numbers of any shape, to be predicted as they are.
- ``boxes``: ``(top, left, bottom, right)`` of each box in pixels, measured from the image's top left corner; pixel
  ``i`` reaches from ``i`` to ``i + 1``, so the whole image is ``(0, 0, height, width)``.
- ``signal``: samples along time.
- ``text``: token numbers; 0 is padding.
- ``volume``: pixels in space, as ``image``.
- ``video``: pixels of successive frames, as ``image``.
- ``count``: how many entries of a padded field are real.
"""

INPUT_KINDS = ("image", "volume", "video", "signal")  # with channels last: what preprocessing normalises
NETWORK_INPUTS = (*INPUT_KINDS, "text")
PIXEL_KINDS = ("image", "volume", "video")
CLASS_KINDS = ("label", "labels", "mask")
MAP_KINDS = ("mask", "weights")  # with the axes of the input, but for its channels
PADDED_KINDS = ("boxes", "text")


@typed
@dataclasses.dataclass(frozen=True)
class Field:
    """What one array of an example is.

    Fields of variable length are stored padded. ``boxes`` and ``text`` always are, ``label`` and ``target`` may be:
    then their first axis is that of the entries, ``count`` names the field of kind ``count`` that says how many of them
    are real, and the entries behind those are 0. Fields with the same ``count`` belong together entry by entry, such as
    boxes and the label of each box.

    Attributes:
      kind: One of :data:`KINDS`.
      shape: Of one example; None in a declaration, until it is known.
      dtype: Of the array; empty in a declaration, until it is known.
      class_names: Of ``label``, ``labels`` and ``mask``: one name per class; of ``text``: one name per token, if known.
      count: The name of the field that counts the real entries; empty for a field that is not padded.
      ignored: A class number that means "not labelled", of ``label``, ``labels`` and ``mask``: no loss, no metric. None
        for none. The default of masks is 255 in uint8 and -1 in int32.
      outside: Of a ``mask``: the class number of pixels that augmentation or padding brings in from beyond the border.
        The default is ``ignored``.
      rate: Of a ``signal``: the number of samples per second, if it is known.

    Raises:
      UsageError: The kind is unknown, or shape, dtype or options do not fit it.

    Example:
      >>> Field("image", (28, 28, 1), "uint8").axes
      ('height', 'width', 'channels')
      >>> Field("imgae")
      Traceback (most recent call last):
      cnn_jax.errors.UsageError: Field: unknown kind='imgae'; did you mean 'image'?
    """

    kind: str
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    class_names: tuple[str, ...] = ()
    count: str = ""
    ignored: int | None = None
    outside: int | None = None
    rate: float | int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"Field: unknown kind={self.kind!r}; {nearest(self.kind, KINDS)}")
        if self.dtype and self.dtype not in KINDS[self.kind].dtypes:
            dtypes = " or ".join(KINDS[self.kind].dtypes)
            raise UsageError(f"Field: a field of kind {self.kind!r} is {dtypes}, not {self.dtype}")
        if self.shape is not None and (
            (self.axes is not None and self.kind not in MAP_KINDS and len(self.shape) != len(self.axes))
            or (self.kind in MAP_KINDS and not 1 <= len(self.shape) <= 3)
            or (self.count and not self.shape)
            or (self.kind == "boxes" and self.shape[1:] != (4,))
        ):
            raise UsageError(
                f"Field: a field of kind {self.kind!r} has shape {_in_words(self)} per example, not {self.shape}"
            )
        if self.kind in PADDED_KINDS and not self.count:
            raise UsageError(f"Field: kind {self.kind!r} needs count=<name of the field that counts its entries>")
        if self.count and self.kind not in (*PADDED_KINDS, "label", "target"):
            raise UsageError(f"Field: kind {self.kind!r} has no entries to count; leave count={self.count!r} out")
        if self.ignored is not None and self.kind not in CLASS_KINDS:
            raise UsageError(f"Field: ignored={self.ignored} has no meaning for kind {self.kind!r}; leave it out")
        if self.outside is not None and self.kind != "mask":
            raise UsageError(f"Field: outside={self.outside} has no meaning for kind {self.kind!r}; leave it out")
        if self.rate is not None and (self.kind != "signal" or self.rate <= 0):
            raise UsageError(f"Field: rate={self.rate} must be positive, of a field of kind 'signal'")
        if self.kind == "mask" and self.dtype and self.ignored is None:
            object.__setattr__(self, "ignored", 255 if self.dtype == "uint8" else -1)
        if self.kind == "mask" and self.ignored is not None and self.outside is None:
            object.__setattr__(self, "outside", self.ignored)

    @property
    def axes(self) -> tuple[str, ...] | None:
        """The names of one example's axes; None where there may be any."""
        if self.kind == "label" and self.count:
            return ("entries",)
        return KINDS[self.kind].axes

    @property
    def identity(self) -> tuple[tuple[str, object], ...]:
        """All that was said of the field, for fingerprints."""
        said = dataclasses.asdict(self).items()
        return tuple((name, value) for name, value in said if value not in (None, "", ()))

    def completed(self, array: Shaped[np.ndarray, "n *shape"]) -> "Field":
        """The field with the shape and dtype of its array.

        Args:
          array: The field of ``n`` examples, shape ``(n, *shape)``.

        Raises:
          UsageError: The array does not fit the field.

        Example:
          >>> field = Field("label").completed(np.zeros(3, np.int32))
          >>> field.kind, field.shape, field.dtype
          ('label', (), 'int32')
        """
        shape, dtype = array.shape[1:], array.dtype.name
        if self.shape not in (None, shape) or self.dtype not in ("", dtype):
            declared = " ".join(str(said) for said in (self.dtype, self.shape) if said not in ("", None))
            raise UsageError(f"Field: declared as {declared}, but the array has {dtype} {shape}")
        return dataclasses.replace(self, shape=shape, dtype=dtype)


def _in_words(field: Field) -> str:
    if field.axes is None:
        return "(entries, ...)"
    if field.kind in MAP_KINDS:
        return "(height, width), or that of another input without its channels,"
    return f"({', '.join('4' if axis == 'corners' else axis for axis in field.axes)})"


Spec = Mapping[str, Field]
"""Name -> field, of a set's examples or a batch."""


def check_fields(where: str, fields: Mapping[str, Shaped[np.ndarray, "..."]], spec: Mapping[str, Field | str]) -> Spec:
    """The complete spec of some arrays, which are checked against it.

    Args:
      where: Begins the messages.
      fields: The arrays, each with ``n`` examples.
      spec: The same names -> field, whose shape and dtype may be missing, or kind. A kind that is stored padded is
        counted by ``<name>_count``.

    Raises:
      UsageError: Names, numbers of examples, shapes, dtypes or values do not fit; the message names the field.

    Example:
      >>> check_fields("mine", {"height": np.zeros((2, 1), np.float32)}, {"height": "target"})["height"].shape
      (1,)
    """
    if set(fields) != set(spec):
        raise UsageError(f"{where}: fields {_listed(fields)}, but spec {_listed(spec)}; give both the same names")
    if not fields:
        raise UsageError(f"{where}: has no fields")
    lengths = {name: len(array) if array.ndim else 0 for name, array in fields.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UsageError(f"{where}: fields of different numbers of examples ({counts}); give one entry per example")
    complete: dict[str, Field] = {}
    for name, array in fields.items():
        field = spec[name]
        try:
            if isinstance(field, str):
                field = Field(field, count=f"{name}_count" if field in PADDED_KINDS else "")
            complete[name] = field.completed(array)
        except UsageError as error:
            raise UsageError(f"{where}: {name}: {str(error).removeprefix('Field: ')}") from error
    check_spec(where, complete)
    check_values(where, fields, complete)
    return complete


def check_values(where: str, fields: Mapping[str, Shaped[np.ndarray, "..."]], spec: Spec) -> None:
    """Rejects class numbers out of range, counts beyond the entries, and numbers that are not finite.

    Args:
      where: Begins the messages.
      fields: The arrays, each with ``n`` examples.
      spec: Of the same names.

    Raises:
      UsageError: There are such values; the message names the field.
    """
    for name in spec:
        _check_values(f"{where}: {name}", fields, spec, name)


def with_ignored(name: str, spec: Spec, ignore_label: int) -> dict[str, Field]:
    """A spec whose labels and masks ignore a stated class number instead of their own.

    Args:
      name: The data set's, for the message.
      spec: Of the examples.
      ignore_label: The class number that means "not labelled"; -1 to leave the spec as it is.

    Raises:
      UsageError: No field has classes.

    Example:
      >>> with_ignored("mine", {"label": Field("label", class_names=("a", "b"))}, 255)["label"].ignored
      255
    """
    changed = dict(spec)
    if ignore_label == IGNORED:
        return changed
    for key, field in spec.items():
        if field.kind in CLASS_KINDS:
            outside = ignore_label if field.kind == "mask" and field.outside == field.ignored else field.outside
            changed[key] = dataclasses.replace(field, ignored=ignore_label, outside=outside)
    if changed == dict(spec) and not any(field.kind in CLASS_KINDS for field in spec.values()):
        raise UsageError(f"data set {name!r}: ignore_label={ignore_label}, but it has no labels; leave it out")
    return changed


def check_spec(where: str, spec: Spec) -> None:
    """Rejects reserved names, and entries whose count is missing or which do not fit each other.

    Raises:
      UsageError: The spec is like that; the message names the field.
    """
    for name, field in spec.items():
        if name in RESERVED:
            raise UsageError(f"{where}: {name!r} is a name that batches use themselves; call the field otherwise")
        if field.count and (field.count not in spec or spec[field.count].kind != "count"):
            raise UsageError(f"{where}: {name} is padded, but there is no field {field.count!r} of kind 'count'")
        for other, sibling in spec.items():
            if field.count and sibling.count == field.count and (field.shape or ())[:1] != (sibling.shape or ())[:1]:
                raise UsageError(f"{where}: {name} and {other} share {field.count!r}, but not their number of entries")


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(names) or "none"


def _check_values(where: str, fields: Mapping[str, np.ndarray], spec: Spec, name: str) -> None:
    field, values = spec[name], fields[name]
    if field.kind == "labels" and field.class_names and field.shape != (len(field.class_names),):
        raise UsageError(f"{where}: {values.shape[1]} classes, but {len(field.class_names)} class_names")
    if field.count:
        counts, most = fields[field.count], values.shape[1]
        if len(counts) and not (counts.min() >= 0 and counts.max() <= most):
            raise UsageError(f"{where}: {field.count} from {counts.min()} to {counts.max()} of {most} entries")
        values = values[np.arange(most) < counts[:, None]]
    if field.ignored is not None:
        values = values[values != field.ignored]
    if not values.size:
        return
    if field.kind in ("label", "mask", "text"):
        low, high, most = int(values.min()), int(values.max()), len(field.class_names) - 1
        if (field.class_names or field.kind == "label") and not 0 <= low <= high <= most:
            wrong = low if low < 0 else high
            stated = "" if wrong == IGNORED else f" or set ignore_label={wrong}"
            raise UsageError(
                f"{where}: class numbers from {low} to {high}, but {most + 1} class_names allow 0 to {most}"
                + (
                    f"; if {wrong} means not labelled, declare Field(ignored={wrong}){stated}"
                    if field.ignored is None
                    else f", and {field.ignored} for what is not labelled"
                )
            )
        if low < 0:
            raise UsageError(f"{where}: numbers from {low} to {high}; give numbers from 0")
    elif field.kind == "labels":
        if not (values.min() >= 0 and values.max() <= 1):
            raise UsageError(f"{where}: values from {values.min():g} to {values.max():g}; give 0 or 1 for each class")
    elif field.kind in ("target", "boxes", "signal", "weights"):
        if not np.isfinite(values).all():
            raise UsageError(f"{where}: holds values that are not finite; remove these examples")
        if field.kind == "boxes" and not (values[..., :2] <= values[..., 2:]).all():
            raise UsageError(f"{where}: give (top, left, bottom, right), with top <= bottom and left <= right")
    elif field.kind == "count" and values.min() < 0:
        raise UsageError(f"{where}: a count of {values.min()}; give numbers from 0")


class Described:
    """What sets in memory and on disk tell of their examples, from ``name`` and ``spec``."""

    name: str
    spec: Spec

    def field(self, *kinds: str) -> str:
        """The name of the first field of one of these kinds.

        Args:
          kinds: Of :data:`KINDS`; an earlier one is preferred to a later one.

        Raises:
          UsageError: There is none.
        """
        for kind in kinds:
            for name, field in self.spec.items():
                if field.kind == kind:
                    return name
        held = ", ".join(f"{name} ({field.kind})" for name, field in self.spec.items())
        raise UsageError(f"data set {self.name!r} has no field of kind {' or '.join(kinds)}; it has {held}")

    @property
    def spec_identity(self) -> tuple[tuple[str, tuple[tuple[str, object], ...]], ...]:
        """All that was said of the fields, by name in order, for fingerprints."""
        return tuple((name, field.identity) for name, field in sorted(self.spec.items()))

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class, of the label, the labels or the mask; empty where there are none."""
        kinds = [field for kind in CLASS_KINDS for field in self.spec.values() if field.kind == kind]
        return next((field.class_names for field in kinds if field.class_names), ())

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def input_name(self) -> str:
        """The name of the field that a network is given: the one image, volume, video, signal or text of an example.

        Of several, it is the one that is called by its kind, such as ``'image'``, or else the only image. A text beside
        another input is not the input.

        Raises:
          UsageError: There is none, or it is unclear which of several it is.
        """
        inputs = [name for name, field in self.spec.items() if field.kind in INPUT_KINDS]
        named = [name for name in inputs if name == self.spec[name].kind]
        images = [name for name in inputs if self.spec[name].kind == "image"]
        named = named or (images if len(images) == 1 else [])
        if len(inputs) > 1 and len(named) != 1:
            raise UsageError(
                f"data set {self.name!r} has several fields that could be the network's input: {', '.join(inputs)}; "
                f"call one of them {self.spec[inputs[0]].kind!r}"
            )
        return named[0] if named else self.field(*NETWORK_INPUTS)

    @property
    def input_kind(self) -> str:
        """The kind of the input: ``'image'``, ``'volume'``, ``'video'``, ``'signal'`` or ``'text'``."""
        return self.spec[self.input_name].kind

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one image, such as ``(height, width, channels)``; or volume, video, signal, text."""
        return self.spec[self.input_name].shape or ()

    @property
    def dtype(self) -> str:
        """The dtype of the images."""
        return self.spec[self.input_name].dtype


def is_labelled_images(spec: Spec) -> bool:
    """Whether examples are an image and its label and nothing else."""
    return {name: field.kind for name, field in spec.items()} == {"image": "image", "label": "label"} and (
        spec["label"] == Field("label", (), "int32", spec["label"].class_names)
    )
