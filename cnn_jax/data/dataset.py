"""The one form in which pictures with labels reach everything else: NumPy arrays in memory, checked once."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Shaped

from cnn_jax.errors import UsageError

IMAGE_DTYPES = ("uint8", "float32")


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled pictures in memory.

    Attributes:
        name: the data set's name, e.g. ``"mnist"``.
        split: the split expression that was read, e.g. ``"train[:55000]"``.
        images: uint8 (0..255) or float32 (0..1), shape ``(n, height, width, channels)``.
        labels: int32 class numbers, shape ``(n,)``.
        class_names: one name per class; their number is the number of classes, whether all occur or not.
        report: what was found on disk, in a few lines for the user; may be empty.

    Raises:
        UsageError: when there is no picture, or shapes, dtypes and labels do not fit each other.

    Example:
        >>> digits = Dataset("two", "train", np.zeros((2, 8, 8, 1), np.uint8), np.array([0, 1], np.int32), ("0", "1"))
        >>> len(digits), digits.num_classes, digits.image_shape
        (2, 2, (8, 8, 1))
    """

    name: str
    split: str
    images: Shaped[np.ndarray, "..."]
    labels: Shaped[np.ndarray, "..."]
    class_names: tuple[str, ...]
    report: str = ""

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.ndim != 4:
            raise UsageError(
                f"Dataset {self.name!r}: images have shape {images.shape}; give (n, height, width, channels), "
                "grey pictures as images[..., None]"
            )
        if images.dtype.name not in IMAGE_DTYPES:
            raise UsageError(
                f"Dataset {self.name!r}: images are {images.dtype}; convert to uint8 (0..255) or float32 (0..1)"
            )
        if len(images) == 0:
            raise UsageError(f"Dataset {self.name!r}: split {self.split!r} has no pictures")
        if labels.shape != (len(images),) or labels.dtype != np.int32:
            raise UsageError(
                f"Dataset {self.name!r}: labels are {labels.dtype} of shape {labels.shape}; "
                f"give int32 of shape ({len(images)},), one per picture"
            )
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise UsageError(
                f"Dataset {self.name!r}: labels run from {labels.min()} to {labels.max()}, but {self.num_classes} "
                f"class_names allow 0 to {self.num_classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(height, width, channels)`` of one picture."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    @property
    def dtype(self) -> str:
        """Of the pixels."""
        return self.images.dtype.name

    @property
    def num_bytes(self) -> int:
        """What the pictures take in memory."""
        return self.images.nbytes

    def take(
        self, indices: Sequence[int]
    ) -> tuple[Shaped[np.ndarray, "n height width channels"], Int32[np.ndarray, " n"]]:
        """Some examples: their pictures and labels."""
        return self.images[np.asarray(indices)], self.labels[np.asarray(indices)]

    def to_memory(self) -> "Dataset":
        """Itself; :class:`~cnn_jax.data.Records` are read."""
        return self

    def of_classes(self, classes: Sequence[int]) -> "Dataset":
        """The pictures of some classes alone, numbered anew in the given order.

        Raises:
            UsageError: when a class does not exist, or none of its pictures are there.

        Example:
            >>> images, labels = np.zeros((3, 8, 8, 1), np.uint8), np.arange(3, dtype=np.int32)
            >>> three = Dataset("three", "train", images, labels, ("a", "b", "c"))
            >>> two = three.of_classes((2, 0))
            >>> two.class_names, two.labels.tolist()
            (('c', 'a'), [1, 0])
        """
        names = chosen_classes(self.name, self.class_names, classes)
        chosen = np.isin(self.labels, classes)
        new_numbers = np.full(self.num_classes, -1, np.int32)
        new_numbers[list(classes)] = np.arange(len(classes))
        return Dataset(self.name, self.split, self.images[chosen], new_numbers[self.labels[chosen]], names)

    def part(self, start: int, stop: int) -> "Dataset":
        """The pictures from ``start`` up to ``stop``, in the order in which they are stored.

        Raises:
            UsageError: when there are not so many.

        Example:
            >>> two = Dataset("two", "train", np.zeros((2, 8, 8, 1), np.uint8), np.zeros(2, np.int32), ("0",))
            >>> len(two.part(1, 2))
            1
        """
        if not 0 <= start < stop <= len(self):
            raise UsageError(
                f"Dataset {self.name!r}: no pictures {start} to {stop} are among the {len(self)} of {self.split!r}"
            )
        return dataclasses.replace(self, images=self.images[start:stop], labels=self.labels[start:stop])

    def fingerprint(self) -> str:
        """A hash of the contents (pictures, labels, class names), the same on every machine and in every process.

        Example:
            >>> one = Dataset("one", "train", np.zeros((1, 1, 1, 1), np.uint8), np.zeros(1, np.int32), ("0",))
            >>> one.fingerprint()
            'bb99480ecc7a00ff'
        """
        return self._fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:  # asked for several times a run, and by every trial of a sweep
        digest = hashlib.sha256()
        digest.update(repr((self.images.shape, self.images.dtype.name, self.class_names)).encode())
        for array in (self.images, self.labels):
            little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(np.ascontiguousarray(little_endian).data)
        return digest.hexdigest()[:16]


def chosen_classes(name: str, class_names: Sequence[str], classes: Sequence[int]) -> tuple[str, ...]:
    """The names of some of a set's classes.

    Args:
        name: of the set, for the message.
        class_names: of all of its classes.
        classes: the numbers of those that are chosen, in their new order.

    Raises:
        UsageError: when a class does not exist.

    Example:
        >>> chosen_classes("three", ("a", "b", "c"), (2, 0))
        ('c', 'a')
    """
    for number in classes:
        if not 0 <= number < len(class_names):
            raise UsageError(f"Dataset {name!r}: class {number} is not one of 0 to {len(class_names) - 1}")
    return tuple(class_names[number] for number in classes)
