"""A data set in memory: named NumPy arrays, checked once against their spec."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, Shaped, UInt64

from cnn_jax.data.fields import INPUT_KINDS, Described, Field, check_fields, is_labelled_images
from cnn_jax.errors import UsageError
from cnn_jax.typed import typed

IMAGE_DTYPES = ("uint8", "float32")

Arrays = dict[str, Shaped[np.ndarray, "n ..."]]
"""Some examples: name of a field -> its array, one entry per example."""


@typed
@dataclasses.dataclass(frozen=True, eq=False)
class Dataset(Described):
    """Examples in memory.

    Attributes:
      name: The data set's name, e.g. ``"mnist"``.
      split: The split expression that was read, e.g. ``"train[:55000]"``.
      fields: Name -> array of all ``n`` examples, shape ``(n, ...)``.
      spec: The same names -> :class:`~cnn_jax.data.Field`, or a kind where nothing else is to be said.
      report: What was found on disk, in a few lines for the user; may be empty.

    Raises:
      UsageError: There are no examples, or arrays and spec do not fit each other; the message names the field.

    Example:
      >>> fields = {"image": np.zeros((2, 8, 8, 3), np.uint8), "tumour": np.zeros((2, 8, 8), np.uint8)}
      >>> scans = Dataset("scans", "train", fields, {"image": "image", "tumour": "mask"})
      >>> len(scans), scans.image_shape, scans.spec["tumour"].outside
      (2, (8, 8, 3), 255)
    """

    name: str
    split: str
    fields: Mapping[str, Shaped[np.ndarray, "..."]]
    spec: Mapping[str, Any]  # a Field of each once the set is made
    report: str = ""

    def __post_init__(self) -> None:
        where = f"Dataset {self.name!r}"
        object.__setattr__(self, "fields", dict(self.fields))
        object.__setattr__(self, "spec", check_fields(where, self.fields, self.spec))
        if len(self) == 0:
            raise UsageError(f"{where}: split {self.split!r} has no examples")

    @classmethod
    @typed
    def of_images(
        cls,
        name: str,
        split: str,
        images: Shaped[np.ndarray, "..."],
        labels: Shaped[np.ndarray, "..."],
        class_names: Sequence[str],
        report: str = "",
    ) -> "Dataset":
        """Images with one label each: the fields ``image`` and ``label``.

        Args:
          name: The data set's name.
          split: The split expression that was read.
          images: uint8 (0..255) or float32 (0..1), shape ``(n, height, width, channels)``.
          labels: Int32 class numbers, shape ``(n,)``.
          class_names: One name per class; their number is the number of classes, whether all occur or not.
          report: What was found on disk.

        Raises:
          UsageError: As the class.

        Example:
          >>> images, labels = np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1], np.int32)
          >>> digits = Dataset.of_images("two", "train", images, labels, ("0", "1"))
          >>> len(digits), digits.num_classes, digits.image_shape
          (2, 2, (8, 8, 1))
        """
        spec = {"image": Field("image"), "label": Field("label", class_names=tuple(class_names))}
        return cls(name, split, {"image": images, "label": labels}, spec, report)

    def __len__(self) -> int:
        return len(next(iter(self.fields.values())))

    @property
    def images(self) -> Shaped[np.ndarray, "n height width channels"]:
        """The field of kind ``image``."""
        return self.fields[self.field("image")]

    @property
    def inputs(self) -> Shaped[np.ndarray, "n ..."]:
        """What a network is given of each example, see :attr:`input_name`."""
        return self.fields[self.input_name]

    @property
    def labels(self) -> Int32[np.ndarray, "n *entries"]:
        """The field of kind ``label``: class numbers, shape ``(n,)``."""
        return self.fields[self.field("label")]

    @property
    def num_bytes(self) -> int:
        """What the arrays take in memory."""
        return sum(array.nbytes for array in self.fields.values())

    def take(self, indices: Sequence[int] | Shaped[np.ndarray, " n"]) -> Arrays:
        """Some examples.

        Args:
          indices: Their numbers.

        Example:
          >>> digits = Dataset("three", "train", {"ink": np.arange(3, dtype=np.float32)}, {"ink": "target"})
          >>> digits.take([2, 0])["ink"].tolist()
          [2.0, 0.0]
        """
        chosen = np.asarray(indices)
        return {name: array[chosen] for name, array in self.fields.items()}

    def to_memory(self) -> "Dataset":
        """Itself; :class:`~cnn_jax.data.Records` are read."""
        return self

    def of_classes(self, classes: Sequence[int]) -> "Dataset":
        """The examples of some classes alone, numbered anew in the given order.

        Args:
          classes: Class numbers of the field of kind ``label``.

        Raises:
          UsageError: A class does not exist or is there twice, none of its examples are there, or the set has no label.

        Example:
          >>> images, labels = np.zeros((3, 8, 8, 1), np.uint8), np.arange(3, dtype=np.int32)
          >>> three = Dataset.of_images("three", "train", images, labels, ("a", "b", "c"))
          >>> two = three.of_classes((2, 0))
          >>> two.class_names, two.labels.tolist()
          (('c', 'a'), [1, 0])
        """
        label = self.field("label")
        if self.spec[label].count:
            raise UsageError(f"Dataset {self.name!r}: classes are chosen by one label per example")
        names = chosen_classes(self.name, self.spec[label].class_names, classes)
        if self.spec[label].ignored in classes:
            raise UsageError(f"Dataset {self.name!r}: class {self.spec[label].ignored} is ignored; do not choose it")
        new_numbers = np.full(len(self.spec[label].class_names), -1, np.int32)
        new_numbers[list(classes)] = np.arange(len(classes))
        fields = self.take(np.flatnonzero(np.isin(self.labels, classes)))
        fields[label] = new_numbers[fields[label]]
        spec = {**self.spec, label: dataclasses.replace(self.spec[label], class_names=names, ignored=None)}
        return dataclasses.replace(self, fields=fields, spec=spec)

    def part(self, start: int, stop: int) -> "Dataset":
        """The examples from ``start`` up to ``stop``, in the order in which they are stored.

        Args:
          start: The number of the first.
          stop: The number after that of the last.

        Raises:
          UsageError: There are not so many.

        Example:
          >>> two = Dataset("two", "train", {"ink": np.zeros(2, np.float32)}, {"ink": "target"})
          >>> len(two.part(1, 2))
          1
        """
        if not 0 <= start < stop <= len(self):
            raise UsageError(
                f"Dataset {self.name!r}: no examples {start} to {stop} are among the {len(self)} of {self.split!r}"
            )
        return dataclasses.replace(self, fields={name: array[start:stop] for name, array in self.fields.items()})

    @functools.cached_property
    def hashes(self) -> UInt64[np.ndarray, " n"]:
        """A number for each example that depends on its input alone, such as the image, and not on labels.

        Example:
          >>> images, labels = np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1], np.int32)
          >>> len(set(Dataset.of_images("same", "train", images, labels, ("0", "1")).hashes.tolist()))
          1
        """
        inputs = [array for name, array in self.fields.items() if self.spec[name].kind in (*INPUT_KINDS, "text")]
        flat = [
            np.ascontiguousarray(array).reshape(len(self), -1).view(np.uint8)
            for array in inputs or self.fields.values()
        ]
        rows = flat[0] if len(flat) == 1 else np.concatenate(flat, axis=1)
        return np.frombuffer(b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows), np.uint64)

    def fingerprint(self) -> str:
        """A hash of the contents (arrays and spec), the same on every machine and in every process.

        Example:
          >>> images, labels = np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1, np.int32)
          >>> Dataset.of_images("one", "train", images, labels, ("0",)).fingerprint()
          'bb99480ecc7a00ff'
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:  # asked for several times a run, and by every trial of a sweep
        digest = hashlib.sha256()
        if is_labelled_images(self.spec):  # as before there were other fields, so that old runs can be continued
            head: tuple[Any, ...] = (self.images.shape, self.images.dtype.name, self.class_names)
        else:
            head = (len(self), *self.spec_identity)
        digest.update(repr(head).encode())
        for name in sorted(self.fields):
            array = self.fields[name]
            little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(np.ascontiguousarray(little_endian).data)
        return digest.hexdigest()[:16]


@typed
def chosen_classes(name: str, class_names: Sequence[str], classes: Sequence[int]) -> tuple[str, ...]:
    """The names of some of a set's classes.

    Args:
      name: The set's, for the message.
      class_names: Of all of its classes.
      classes: The numbers of those that are chosen, in their new order.

    Raises:
      UsageError: A class does not exist, or is there twice.

    Example:
      >>> chosen_classes("three", ("a", "b", "c"), (2, 0))
      ('c', 'a')
    """
    for number in classes:
        if not 0 <= number < len(class_names):
            raise UsageError(f"Dataset {name!r}: class {number} is not one of 0 to {len(class_names) - 1}")
        if list(classes).count(number) > 1:
            raise UsageError(f"Dataset {name!r}: class {number} is chosen twice in classes={tuple(classes)}")
    return tuple(class_names[number] for number in classes)
