"""Labelled pictures that stay on disk until they are asked for."""

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Int32, Shaped
from PIL import Image
from rich.console import Console
from rich.progress import Progress

from cnn_jax.data.dataset import Dataset
from cnn_jax.data.decoded import Arrays, decoded_once
from cnn_jax.data.pictures import resize_picture

READ_AT_ONCE = 64
SAMPLED = 2000  # of a set on disk, where its statistics or its looks are wanted
PROGRESS_AFTER_SECONDS = 2.0

Reader = Callable[[Sequence[int]], list[tuple[Image.Image | np.ndarray, int]]]
"""The pictures and labels of some examples. An array has the set's ``image_shape``; a Pillow picture of mode ``L`` or
``RGB``, as the set has channels, may have any size. Must be picklable, for worker processes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """A data set on disk, read by number; what does not fit in memory is streamed from it.

    Attributes:
        name: the data set's name.
        split: the split expression.
        reader: reads examples.
        count: number of examples.
        image_shape: ``(height, width, channels)`` that pictures are brought to.
        class_names: one name per class.
        identity: a text that changes when the data change; the fingerprint is its hash.
        framing: how pictures of another size are brought to ``image_shape``: ``"crop"``, ``"fit"`` or ``"stretch"``, as
            in :func:`~cnn_jax.data.read_picture`.
        dtype: of the pixels.
        report: what was found on disk, in a few lines for the user; may be empty.
        origin: with the identity, a text that changes when decoded pictures would; empty: they are never kept.
    """

    name: str
    split: str
    reader: Reader
    count: int
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    identity: str
    framing: str = "crop"
    dtype: str = "uint8"
    report: str = ""
    origin: str = ""

    def __len__(self) -> int:
        return self.count

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def num_bytes(self) -> int:
        """What the pictures would take in memory."""
        return self.count * int(np.prod(self.image_shape)) * np.dtype(self.dtype).itemsize

    def take(
        self, indices: Sequence[int]
    ) -> tuple[Shaped[np.ndarray, "n height width channels"], Int32[np.ndarray, " n"]]:
        """Reads some examples: their pictures and labels."""
        examples = self.reader([int(index) for index in indices])
        images = np.empty((len(examples), *self.image_shape), self.dtype)
        for place, (picture, _) in enumerate(examples):
            images[place] = self._framed(picture)
        return images, np.array([label for _, label in examples], np.int32)

    def _framed(self, picture: Image.Image | np.ndarray) -> np.ndarray:
        if isinstance(picture, np.ndarray):
            return picture
        height, width, _ = self.image_shape
        return np.asarray(resize_picture(picture, (width, height), self.framing)).reshape(self.image_shape)

    def to_memory(self) -> Dataset:
        """Reads everything, in the order in which it is stored; from the user's cache if it was decoded before."""
        made = repr((self.origin, self.identity, self.image_shape, self.framing, self.dtype))
        images, labels = decoded_once(made, len(self), self.num_bytes, self._decode) if self.origin else self._decode()
        return Dataset(self.name, self.split, images, labels, self.class_names, self.report)

    def _decode(self) -> Arrays:
        images, labels = np.empty((self.count, *self.image_shape), self.dtype), np.empty(self.count, np.int32)
        starts = range(0, self.count, READ_AT_ONCE)

        def read(start: int) -> int:
            chosen = range(start, min(start + READ_AT_ONCE, self.count))
            images[chosen.start : chosen.stop], labels[chosen.start : chosen.stop] = self.take(chosen)
            return len(chosen)

        with showing_progress(f"reading {self.name} {self.split}", self.count) as advance:
            for count in in_threads(read, starts):
                advance(count)
        return images, labels

    def fingerprint(self) -> str:
        """A hash of :attr:`identity`."""
        return hashlib.sha256(repr((self.identity, self.image_shape, self.class_names)).encode()).hexdigest()[:16]


def as_records(dataset: Dataset | Records) -> Records:
    """A set in memory as if it were on disk, to be streamed all the same; one on disk as it is."""
    if isinstance(dataset, Records):
        return dataset
    return Records(
        dataset.name,
        dataset.split,
        _MemoryReader(dataset),
        len(dataset),
        dataset.image_shape,
        dataset.class_names,
        identity=dataset.fingerprint(),
        dtype=dataset.dtype,
        report=dataset.report,
    )


@dataclasses.dataclass(frozen=True)
class _MemoryReader:
    dataset: Dataset

    def __call__(self, indices: Sequence[int]) -> list[tuple[Image.Image | np.ndarray, int]]:
        images, labels = self.dataset.take(indices)
        return list(zip(images, labels.tolist(), strict=True))


def sample(found: Dataset | Records, *, most: int = SAMPLED) -> Dataset:
    """Some examples in memory, spread evenly over a set that is left on disk; all of one that is in memory.

    Example:
        >>> from cnn_jax import data
        >>> len(sample(as_records(data.load("digits", "train")), most=100))
        100
    """
    if isinstance(found, Dataset):
        return found
    chosen = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    part = dataclasses.replace(found, reader=_PartReader(found.reader, chosen), count=len(chosen), origin="")
    return part.to_memory()


@dataclasses.dataclass(frozen=True)
class _PartReader:
    reader: Reader
    chosen: np.ndarray

    def __call__(self, indices: Sequence[int]) -> list[tuple[Image.Image | np.ndarray, int]]:
        return self.reader(self.chosen[np.asarray(indices)].tolist())


def in_threads(function: Callable[[int], int], arguments: Sequence[int]) -> Iterator[int]:
    """Results in order, computed on all cores: decoders of pictures let other threads run."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            yield from pool.map(function, arguments)
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def showing_progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on the terminal for what turns out to be slow; yields the function that advances it."""
    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = progress.add_task(description, total=total)
    began = time.monotonic()

    def advance(count: int) -> None:
        progress.advance(task, count)
        if time.monotonic() - began > PROGRESS_AFTER_SECONDS:
            progress.start()

    try:
        yield advance
    finally:
        progress.stop()
