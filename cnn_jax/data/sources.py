"""Where pictures come from: ``load(name, split)`` reads a whole data set into memory.

``digits`` comes with scikit-learn: nothing to download. Every other name is one of TensorFlow Datasets (TFDS), read
from the record files that ``python -m cnn_jax.data.prepare <name>`` leaves behind; reading needs neither TensorFlow nor
a network. Split expressions are TFDS's for both: ``"train"``, ``"train[:90%]"``, ``"train+validation"``, ``"all"``.
"""

import contextlib
import io
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from os import PathLike, fspath
from typing import Any

import numpy as np
from jaxtyping import Int32, Shaped
from rich.console import Console
from rich.progress import Progress

from cnn_jax.data.dataset import IMAGE_DTYPES, Dataset
from cnn_jax.errors import UsageError, nearest

DIGITS_TEST = 300
DIGITS_VALIDATION = 200
TFDS_NAME = re.compile(r"\w+(/[\w.-]+)?(:[\d*]+\.[\d*]+\.[\d*]+)?")  # no namespaces: they look on the network
READ_AT_ONCE = 512
PROGRESS_AFTER_SECONDS = 2.0


def load(name: str, split: str, *, data_dir: str | PathLike[str] | None = None) -> Dataset:
    """Reads one split of a data set into memory.

    Args:
        name: ``"digits"``, or the name of a TFDS set of labelled pictures, with its configuration and version where
            wanted: ``"mnist"``, ``"cifar10:3.0.2"``, ``"cifar10_corrupted/fog_1"``.
        split: a TFDS split expression. ``digits`` has ``train`` (1,297), ``validation`` (200) and ``test`` (300).
        data_dir: where TFDS keeps its sets; by default ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.

    Returns:
        The split's pictures and labels, in the order in which they are stored.

    Raises:
        UsageError: for an unknown or unprepared set, a split that does not exist or is empty, or a set that is not
            pictures of one size with one label each.

    Example:
        >>> digits = load("digits", "train")
        >>> len(digits), digits.image_shape, digits.num_classes
        (1297, (8, 8, 1), 10)
    """
    if name == "digits":
        return _load_digits(split)
    return _load_tfds(name, split, data_dir)


def _load_digits(split: str) -> Dataset:
    """scikit-learn's 1,797 handwritten digits, 8x8 (UCI optical recognition of handwritten digits, test part).

    The grey values 0..16 become ``round(255 / 16 * value)``: 17 different uint8 values, so nothing is lost and full ink
    is 255 as in MNIST. The split is stratified by class and fixed: it depends on no seed of the run's.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    labels = bunch.target.astype(np.int32)
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]

    rest, test = train_test_split(np.arange(len(labels)), test_size=DIGITS_TEST, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=DIGITS_VALIDATION, stratify=labels[rest], random_state=0)
    members = {"train": np.sort(train), "validation": np.sort(validation), "test": np.sort(test)}

    parts = _resolve_split("digits", split, {part: len(indices) for part, indices in members.items()})
    chosen = np.concatenate([members[part][start:stop] for part, start, stop in parts])
    class_names = tuple(str(class_name) for class_name in bunch.target_names)
    return Dataset("digits", split, images[chosen], labels[chosen], class_names)


def _load_tfds(name: str, split: str, data_dir: str | PathLike[str] | None) -> Dataset:
    with quiet_tfds():
        builder = tfds_builder(name, data_dir=data_dir)
        image_key, label_key = _image_and_label_keys(name, builder.info)
        if not builder.info.splits:
            option = "" if data_dir is None else f" --data_dir={fspath(data_dir)}"
            raise UsageError(
                f"data set {name!r} is not prepared in {builder.data_path}; "
                f"run: python -m cnn_jax.data.prepare {name}{option}"
            )
        _resolve_split(name, split, {part: info.num_examples for part, info in builder.info.splits.items()})
        images, labels = _read_records(name, split, builder, image_key, label_key)
    if labels.min() < 0:
        raise UsageError(f"data set {name!r}: split {split!r} is published without labels; use another split")
    return Dataset(name, split, images, labels, tuple(builder.info.features[label_key].names))


def _read_records(
    name: str, split: str, builder: Any, image_key: str, label_key: str
) -> tuple[Shaped[np.ndarray, "n height width channels"], Int32[np.ndarray, " n"]]:
    """The pictures and labels of a split.

    They are decoded here and not by TFDS's data source: twice as fast for MNIST, and other features are left out.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        records = builder.as_data_source(
            split=split, file_format="array_record", deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
    except (NotImplementedError, ValueError) as error:
        raise UsageError(
            f"data set {name!r} in {builder.data_path} is stored as {builder.info.file_format.value}, not as "
            f"array_record; move that folder away and run: python -m cnn_jax.data.prepare {name}"
        ) from error
    feature = builder.info.features[image_key]
    images = np.empty((len(records), *feature.shape), feature.np_dtype)
    labels = np.empty(len(records), np.int32)
    with _progress(f"reading {name} {split}", len(records)) as advance:
        for start in range(0, len(records), READ_AT_ONCE):
            positions = range(start, min(start + READ_AT_ONCE, len(records)))
            for position, record in zip(positions, records.__getitems__(positions), strict=True):
                example = tf_example_pb2.Example.FromString(record).features.feature
                images[position] = feature.decode_example_np(example[image_key].bytes_list.value[0])
                labels[position] = example[label_key].int64_list.value[0]
            advance(len(positions))
    return images, labels


def tfds_builder(name: str, *, data_dir: str | PathLike[str] | None = None) -> Any:
    """TFDS's builder of a data set, without a look at the network.

    Args:
        name: name of a TFDS set, with its configuration and version where wanted.
        data_dir: where TFDS keeps its sets.

    Returns:
        The ``tfds.core.DatasetBuilder``; its ``info.splits`` is empty when the set is not prepared.

    Raises:
        UsageError: when there is no such set, or TFDS cannot open it.
    """
    if not TFDS_NAME.fullmatch(name):
        raise UsageError(
            f"data set {name!r}: give a TFDS name such as 'mnist', 'mnist:3.0.1' or 'cifar10_corrupted/fog_1'"
        )
    import tensorflow_datasets as tfds

    try:
        # A set that cannot be opened without TensorFlow prints a banner; the error says the same in one line.
        with contextlib.redirect_stdout(io.StringIO()):
            return tfds.builder(name, data_dir=None if data_dir is None else fspath(data_dir))
    except tfds.core.DatasetNotFoundError as error:
        known = ["digits", *tfds.list_builders(with_community_datasets=False)]
        raise UsageError(f"unknown data set {name!r}; {nearest(name, known)}") from error
    except (AssertionError, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"data set {name!r}: TFDS cannot open it: {_first_line(error)}") from error


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Keeps TFDS's advice, to install OpenCV and the like, from the user's terminal; errors still raise."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _image_and_label_keys(name: str, info: Any) -> tuple[str, str]:
    """The names of the one picture and the one class label that TFDS declares as the set's (input, target)."""
    import tensorflow_datasets as tfds

    keys, features = info.supervised_keys, info.features
    plain = features is not None and isinstance(keys, tuple) and all(isinstance(key, str) for key in keys)
    kinds = tuple(type(features[key]) for key in keys) if plain else ()
    if kinds != (tfds.features.Image, tfds.features.ClassLabel):
        declared = "nothing" if not kinds else " -> ".join(kind.__name__ for kind in kinds)
        raise UsageError(
            f"data set {name!r} is not pictures with one label each (TFDS declares {declared}); choose another"
        )
    image_key, label_key = keys
    shape, dtype = features[image_key].shape, np.dtype(features[image_key].np_dtype).name
    if None in shape:
        raise UsageError(
            f"data set {name!r} has pictures of different sizes {shape}; only sets of one size fit in memory"
        )
    if dtype not in IMAGE_DTYPES:
        raise UsageError(f"data set {name!r} has {dtype} pictures; only {' and '.join(IMAGE_DTYPES)} are supported")
    return image_key, label_key


def _resolve_split(name: str, split: str, sizes: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """The (part, start, stop) that a TFDS split expression names, given the number of examples of every part."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.splits import AbstractSplit

    infos = {
        part: tfds.core.SplitInfo(name=part, shard_lengths=[size], num_bytes=0, filename_template=None)
        for part, size in sizes.items()
    }
    known = ", ".join(f"{part!r} ({size})" for part, size in sizes.items())
    try:
        instructions = AbstractSplit.from_spec(split).to_absolute(infos)
    except (NotImplementedError, ValueError) as error:
        raise UsageError(
            f"data set {name!r}: no split {split!r} ({_first_line(error)}); known: {known}, "
            "slices as 'train[:90%]', sums with '+'"
        ) from error
    parts = [
        (part.splitname, part.from_ or 0, sizes[part.splitname] if part.to is None else part.to)
        for part in instructions
    ]
    if not all(start < stop for _, start, stop in parts):
        raise UsageError(f"data set {name!r}: split {split!r} is empty; known: {known}")
    return parts


@contextlib.contextmanager
def _progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
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


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".: ")
