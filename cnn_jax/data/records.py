"""Data sets that stay on disk until their examples are asked for."""

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt64
from PIL import Image

from cnn_jax.data.dataset import Arrays, Dataset
from cnn_jax.data.decoded import decoded_once
from cnn_jax.data.fields import Described, Field, Spec, check_spec, check_values, is_labelled_images
from cnn_jax.data.images import resize_image
from cnn_jax.errors import UsageError
from cnn_jax.runtime.terminal import Console, printable, progress_bar
from cnn_jax.typed import typed

READ_AT_ONCE = 64
SAMPLED = 2000  # of a set on disk, where its statistics or its looks are wanted
SAMPLED_BYTES = 2**28  # of them at most, whatever the size of one, such as a volume
PART_BYTES = 2**22  # of examples that are read only to be counted or measured
PROGRESS_AFTER_SECONDS = 2.0

Reader = Callable[[Sequence[int]], list[dict[str, Any]]]
"""Reads some examples by their numbers: name of a field -> its value in one example. The value is an array of the
field's shape and dtype, or a number; that of an ``image`` may also be a Pillow image of any size, of mode ``L`` or
``RGB`` as the field has channels. Must be picklable, for worker processes."""


@typed
@dataclasses.dataclass(frozen=True, eq=False)
class Records(Described):
    """A data set on disk, read by number; what does not fit in memory is streamed from it.

    Attributes:
      name: The data set's name.
      split: The split expression.
      reader: Reads examples.
      count: The number of examples.
      spec: Name -> :class:`~cnn_jax.data.Field`, with shape and dtype.
      identity: A text that changes when the data change; the fingerprint is its hash.
      framing: How images of another size are brought to the field's shape: ``"crop"``, ``"fit"`` or ``"stretch"``, as
        in :func:`~cnn_jax.data.read_image`.
      report: What was found on disk, in a few lines for the user; may be empty.
      origin: With the identity, a text that changes when decoded images would; empty: they are never kept.
      hashes: A number for each example, the same where the content is, such as a hash of its file; None if not known.

    Raises:
      UsageError: The spec has a field without shape or dtype, or its fields do not fit each other.
    """

    name: str
    split: str
    reader: Reader
    count: int
    spec: Spec
    identity: str
    framing: str = "crop"
    report: str = ""
    origin: str = ""
    hashes: UInt64[np.ndarray, " n"] | None = None

    def __post_init__(self) -> None:
        for name, field in self.spec.items():
            if field.shape is None or not field.dtype:
                raise UsageError(f"Records {self.name!r}: {name} needs shape and dtype, which are not known from disk")
        check_spec(f"Records {self.name!r}", self.spec)

    def __len__(self) -> int:
        return self.count

    @property
    def num_bytes(self) -> int:
        """What the arrays would take in memory."""
        return sum(array.nbytes for array in self._arrays(1).values()) * self.count

    def take(self, indices: Sequence[int] | Shaped[np.ndarray, " n"]) -> Arrays:
        """Reads some examples.

        Args:
          indices: Their numbers.

        Returns:
          Name of a field -> its array, one entry per example in the order of ``indices``.

        Raises:
          UsageError: An example cannot be read, or a label is out of range.
        """
        examples = self.reader([int(index) for index in indices])
        arrays = self._arrays(len(examples))
        for place, example in enumerate(examples):
            for name, array in arrays.items():
                array[place] = self._framed(name, example[name])
        check_values(f"Records {self.name!r}", arrays, self.spec)
        return arrays

    def _arrays(self, count: int) -> Arrays:
        return {name: np.empty((count, *(field.shape or ())), field.dtype) for name, field in self.spec.items()}

    def _framed(self, name: str, value: Any) -> Any:
        if not isinstance(value, Image.Image):
            return value
        height, width, channels = self.spec[name].shape or ()
        return np.asarray(resize_image(value, (width, height), self.framing)).reshape(height, width, channels)

    def to_memory(self) -> Dataset:
        """Reads everything, in the order in which it is stored; from the user's cache if it was decoded before."""
        made = repr((self.origin, self.identity, self.spec_identity, self.framing))
        arrays = decoded_once(made, len(self), self.num_bytes, self._decode) if self.origin else self._decode()
        return Dataset(self.name, self.split, arrays, self.spec, self.report)

    def _decode(self) -> Arrays:
        arrays = self._arrays(self.count)
        at_once = min(READ_AT_ONCE, -(-self.count // (os.cpu_count() or 1)))
        starts = range(0, self.count, at_once)

        def read(start: int) -> int:
            chosen = range(start, min(start + at_once, self.count))
            for name, part in self.take(chosen).items():
                arrays[name][chosen.start : chosen.stop] = part
            return len(chosen)

        with showing_progress(f"reading {self.name} {self.split}", self.count) as advance:
            for count in in_threads(read, starts):
                advance(count)
        return arrays

    def fingerprint(self) -> str:
        """A hash of :attr:`identity` and the spec."""
        if is_labelled_images(self.spec):  # as before there were other fields, so that old runs can be continued
            described: tuple[Any, ...] = (self.identity, self.image_shape, self.class_names)
        else:
            described = (self.identity, self.spec_identity)
        return hashlib.sha256(repr(described).encode()).hexdigest()[:16]


def labelled_images(
    image_shape: tuple[int, ...], class_names: Sequence[str], *, dtype: str = "uint8"
) -> dict[str, Field]:
    """The spec of images with one label each: the fields ``image`` and ``label``.

    Args:
      image_shape: ``(height, width, channels)``.
      class_names: One name per class.
      dtype: Of the pixels.

    Example:
      >>> list(labelled_images((28, 28, 1), ("cat", "dog")))
      ['image', 'label']
    """
    return {
        "image": Field("image", tuple(image_shape), dtype),
        "label": Field("label", (), "int32", class_names=tuple(class_names)),
    }


@typed
def with_field(
    found: Dataset | Records, name: str, field: Field, derive: Callable[[Mapping[str, Any]], np.ndarray]
) -> Dataset | Records:
    """A set with one more field, computed from the others of each example.

    Args:
      found: The set.
      name: Of the new field.
      field: What it is, with shape and dtype.
      derive: Its value, from the other fields of one example. For a set on disk it must be picklable, and its ``repr``
        must say what it does.

    Example:
      >>> digits = Dataset("three", "train", {"ink": np.arange(3, dtype=np.float32)}, {"ink": "target"})
      >>> double = with_field(digits, "twice", Field("target", (), "float32"), lambda example: 2 * example["ink"])
      >>> double.fields["twice"].tolist()
      [0.0, 2.0, 4.0]
    """
    spec = {**found.spec, name: field}
    if isinstance(found, Records):
        identity = repr((found.identity, derive))
        return dataclasses.replace(
            found, reader=_DerivingReader(found.reader, name, derive), spec=spec, identity=identity
        )
    examples = ({key: array[number] for key, array in found.fields.items()} for number in range(len(found)))
    values = np.stack([derive(example) for example in examples]).astype(field.dtype)
    return dataclasses.replace(found, fields={**found.fields, name: values}, spec=spec)


@dataclasses.dataclass(frozen=True)
class _DerivingReader:
    reader: Reader
    name: str
    derive: Callable[[Mapping[str, Any]], np.ndarray]

    def __call__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        return [{**example, self.name: self.derive(example)} for example in self.reader(indices)]


@typed
def as_records(dataset: Dataset | Records) -> Records:
    """A set in memory as if it were on disk, to be streamed all the same; one on disk as it is."""
    if isinstance(dataset, Records):
        return dataset
    return Records(
        dataset.name,
        dataset.split,
        _MemoryReader(dataset),
        len(dataset),
        dataset.spec,
        identity=dataset.fingerprint(),
        report=dataset.report,
        hashes=dataset.hashes,
    )


@dataclasses.dataclass(frozen=True)
class _MemoryReader:
    dataset: Dataset

    def __call__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        arrays = self.dataset.take(indices)
        return [{name: array[place] for name, array in arrays.items()} for place in range(len(indices))]


@typed
def sample(found: Dataset | Records, *, most: int = SAMPLED) -> Dataset:
    """Some examples in memory, spread evenly over a set that is left on disk; all of one that is in memory.

    Args:
      found: The set.
      most: How many examples of one on disk. Of large ones, such as volumes, there are fewer: 256 MiB, at least one.

    Example:
      >>> from cnn_jax import data
      >>> len(sample(as_records(data.load("digits", "train")), most=100))
      100
    """
    if isinstance(found, Dataset):
        return found
    fitting = max(1, SAMPLED_BYTES * len(found) // max(1, found.num_bytes))
    return _chosen(found, _spread(found, min(most, fitting))).to_memory()


def sampled_parts(found: Dataset | Records, *, most: int, at_once: int) -> Iterator[Dataset]:
    """Examples spread evenly over a set on disk, or all of one in memory, in parts of at most 4 MiB.

    Args:
      found: The set.
      most: How many examples of a set on disk.
      at_once: The most examples of a part.

    Example:
      >>> from cnn_jax import data
      >>> [len(part) for part in sampled_parts(data.load("digits", "test"), most=10, at_once=200)]
      [200, 100]
    """
    each = max(1, found.num_bytes // len(found))
    at_once = max(1, min(at_once, PART_BYTES // each))
    if isinstance(found, Dataset):
        for start in range(0, len(found), at_once):
            yield found.part(start, min(start + at_once, len(found)))
        return
    chosen = _spread(found, most)
    for start in range(0, len(chosen), at_once):
        yield _chosen(found, chosen[start : start + at_once]).to_memory()


def _spread(found: Records, most: int) -> Shaped[np.ndarray, " chosen"]:
    return np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)


def _chosen(found: Records, chosen: Shaped[np.ndarray, " chosen"]) -> Records:
    reader = _PartReader(found.reader, chosen)
    return dataclasses.replace(found, reader=reader, count=len(chosen), origin="", hashes=None)


@dataclasses.dataclass(frozen=True)
class _PartReader:
    reader: Reader
    chosen: np.ndarray

    def __call__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        return self.reader(self.chosen[np.asarray(indices)].tolist())


def in_threads(function: Callable[[int], int], arguments: Sequence[int]) -> Iterator[int]:
    """Results in order, computed on all cores: image decoders let other threads run."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            yield from pool.map(function, arguments)
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def showing_progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on the terminal for what turns out to be slow; yields the function that advances it."""
    console = Console(stderr=True)
    progress = progress_bar(console, transient=True, disable=not console.is_terminal)
    task = progress.add_task(printable(description), total=total)
    began = time.monotonic()

    def advance(count: int) -> None:
        progress.advance(task, count)
        if time.monotonic() - began > PROGRESS_AFTER_SECONDS:
            progress.start()

    try:
        yield advance
    finally:
        progress.stop()
