"""TensorFlow Datasets without TensorFlow: the record files that ``python -m cnn_jax.data.prepare`` leaves behind."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import logging
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np
from jaxtyping import UInt64
from PIL import Image

from cnn_jax.data.dataset import IMAGE_DTYPES
from cnn_jax.data.records import Records, labelled_images
from cnn_jax.data.splits import first_line, resolve_split
from cnn_jax.errors import UsageError, nearest

TFDS_NAME = re.compile(r"\w+(/[\w.-]+)?(:[\d*]+\.[\d*]+\.[\d*]+)?")  # no namespaces: they look on the network


def open_tfds(
    name: str,
    split: str,
    *,
    data_dir: str | PathLike[str] | None,
    image_shape: tuple[int, ...] | None,
    framing: str,
) -> Records:
    """A split of a TFDS set of labelled images. Images of one size stay as they are; others need ``image_shape``.

    Raises:
      UsageError: For an unknown or unprepared set, a bad split, or a set that is not images with one label each.
    """
    with quiet_tfds():
        builder = tfds_builder(name, data_dir=data_dir)
        image_key, label_key = _image_and_label_keys(name, builder.info)
        declared = builder.info.features[image_key].shape
        if None not in declared:
            image_shape = declared
        elif image_shape is None or len(image_shape) != 3:
            raise UsageError(
                f"data set {name!r} has images of different sizes {declared}; "
                "give image_shape=(height, width, channels) to bring them to"
            )
        if not builder.info.splits:
            option = [] if data_dir is None else [f"--data_dir={fspath(data_dir)}"]
            command = shlex.join(["python", "-m", "cnn_jax.data.prepare", name, *option])
            raise UsageError(f"data set {name!r} is not prepared in {builder.data_path}; run: {command}")
        resolve_split(name, split, {part: info.shard_lengths for part, info in builder.info.splits.items()})
        if builder.info.file_format.value != "array_record":
            raise UsageError(
                f"data set {name!r} in {builder.data_path} is stored as {builder.info.file_format.value}, not as "
                f"array_record; move that folder away and run: python -m cnn_jax.data.prepare {name}"
            )
        instructions = builder.info.splits[split].file_instructions
    feature = builder.info.features[image_key]
    reader = TfdsReader(
        name, split, tuple(instructions), feature, None not in declared, image_shape[-1], image_key, label_key
    )
    files = [
        (os.path.basename(file.filename), os.path.getsize(file.filename), file.skip, file.take) for file in instructions
    ]
    stored = [(file.filename, os.stat(file.filename).st_mtime_ns) for file in instructions]
    return Records(
        name,
        split,
        reader,
        sum(file.take for file in instructions),
        labelled_images(image_shape, builder.info.features[label_key].names, dtype=np.dtype(feature.np_dtype).name),
        identity=repr((builder.info.full_name, files)),
        framing=framing,
        origin=repr(stored),
        hashes=_places(instructions),
    )


def _places(instructions: Sequence[Any]) -> UInt64[np.ndarray, " n"]:
    """A number for each example that stands for its file and its place in it."""
    places = []
    for file in instructions:
        name = hashlib.blake2b(os.path.basename(file.filename).encode(), digest_size=8).digest()
        places.append(np.frombuffer(name, np.uint64) + np.arange(file.skip, file.skip + file.take, dtype=np.uint64))
    return np.concatenate(places)


def tfds_class_names(name: str, *, data_dir: str | PathLike[str] | None = None) -> tuple[str, ...]:
    """The names of a TFDS set's classes, in order; of many sets that are not prepared, their numbers.

    Raises:
      UsageError: For an unknown set, or one that is not images with one label each.
    """
    with quiet_tfds():
        info = tfds_builder(name, data_dir=data_dir).info
        return tuple(info.features[_image_and_label_keys(name, info)[1]].names)


@dataclasses.dataclass(frozen=True)
class TfdsReader:
    """Reads examples from array_record files; see :data:`~cnn_jax.data.records.Reader`.

    They are decoded here and not by TFDS's data source: twice as fast for MNIST, and other features are left out.
    """

    name: str
    split: str
    instructions: tuple[Any, ...]
    feature: Any
    one_size: bool
    channels: int
    image_key: str
    label_key: str

    @functools.cached_property
    def _records(self) -> Any:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        return ArrayRecordDataSource(self.instructions)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_records"}  # open files do not travel

    def __call__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Images and labels."""
        from tensorflow_datasets.proto import tf_example_pb2

        examples = []
        with quiet_tfds():
            for record in self._records.__getitems__(indices):
                features = tf_example_pb2.Example.FromString(record).features.feature
                pixels = self.feature.decode_example_np(features[self.image_key].bytes_list.value[0])
                label = int(features[self.label_key].int64_list.value[0])
                if label < 0:
                    raise UsageError(
                        f"data set {self.name!r}: split {self.split!r} is published without labels; use another split"
                    )
                examples.append({"image": pixels if self.one_size else self._image(pixels), "label": label})
        return examples

    def _image(self, pixels: np.ndarray) -> Image.Image:
        return Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).convert(
            "L" if self.channels == 1 else "RGB"
        )


def tfds_builder(name: str, *, data_dir: str | PathLike[str] | None = None) -> Any:
    """TFDS's builder of a data set, without a look at the network.

    Args:
      name: Name of a TFDS set, with its configuration and version where wanted.
      data_dir: Where TFDS keeps its sets.

    Returns:
      The ``tfds.core.DatasetBuilder``; its ``info.splits`` is empty when the set is not prepared.

    Raises:
      UsageError: There is no such set, or TFDS cannot open it.
    """
    if not TFDS_NAME.fullmatch(name):
        raise UsageError(
            f"data set {name!r}: give a TFDS name such as 'mnist', 'mnist:3.0.1' or 'cifar10_corrupted/fog_1', "
            "'digits', 'folder:<path>' or 'npz:<path>'"
        )
    import tensorflow_datasets as tfds

    if data_dir is not None:
        data_dir = os.path.expanduser(fspath(data_dir))  # no Path, because it may be an address
    try:
        # A set that cannot be opened without TensorFlow prints a banner; the error says the same in one line.
        with contextlib.redirect_stdout(io.StringIO()):
            return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        raise UsageError(f"unknown data set {name!r}; {nearest(name, known)}") from error
    except (AssertionError, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"data set {name!r}: TFDS cannot open it: {first_line(error)}") from error


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Hides TFDS's log lines, such as advice to install OpenCV; errors are still raised."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _image_and_label_keys(name: str, info: Any) -> tuple[str, str]:
    """The names of the one image and the one class label that TFDS declares as the set's (input, target)."""
    import tensorflow_datasets as tfds

    keys, features = info.supervised_keys, info.features
    plain = features is not None and isinstance(keys, tuple) and all(isinstance(key, str) for key in keys)
    kinds = tuple(type(features[key]) for key in keys) if plain else ()
    if kinds != (tfds.features.Image, tfds.features.ClassLabel):
        declared = "nothing" if not kinds else " -> ".join(kind.__name__ for kind in kinds)
        raise UsageError(
            f"data set {name!r} is not images with one label each (TFDS declares {declared}); choose another"
        )
    image_key, label_key = keys
    dtype = np.dtype(features[image_key].np_dtype).name
    if dtype not in IMAGE_DTYPES:
        raise UsageError(f"data set {name!r} has {dtype} images; only {' and '.join(IMAGE_DTYPES)} are supported")
    return image_key, label_key
