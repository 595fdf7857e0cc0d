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
from collections.abc import Callable, Iterator, Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np
from jaxtyping import UInt64

from cnn_jax.data.fields import Field, Spec
from cnn_jax.data.records import READ_AT_ONCE, Records, labelled_images
from cnn_jax.data.splits import first_line, resolve_split
from cnn_jax.data.text import vocabulary_of
from cnn_jax.data.tfds_features import (
    OUTSIDE,
    BoxesColumn,
    Column,
    MaskColumn,
    MissingLabelError,
    TextColumn,
    Wanted,
    columns,
    dtypes_without_tensorflow,
    listed,
)
from cnn_jax.errors import UsageError, nearest

TFDS_NAME = re.compile(r"\w+(/[\w.-]+)?(:[\d*]+\.[\d*]+\.[\d*]+)?")  # no namespaces: they look on the network


def open_tfds(
    name: str,
    split: str,
    *,
    data_dir: str | PathLike[str] | None,
    image_shape: tuple[int, ...] | None,
    framing: str,
    features: tuple[str, ...] = (),
    train: str = "train",
) -> Records:
    """A split of a TFDS set. Inputs of one size stay as they are; others need ``image_shape``.

    Args:
      name: Of the set.
      split: A split expression.
      data_dir: Where TFDS keeps its sets.
      image_shape: The shape that inputs of different sizes are brought to.
      framing: How images reach it.
      features: The names of the features to read, the network's input first; by default the input and the target that
        TFDS declares.
      train: The split expression whose words are the vocabulary of texts.

    Raises:
      UsageError: For an unknown or unprepared set, a bad split, or features that are not read.
    """
    with quiet_tfds():
        builder = tfds_builder(name, data_dir=data_dir)
        keys = _keys(name, builder.info, features)
        found = columns(name, _declared(builder.info), keys, Wanted(image_shape, framing))
        if not builder.info.splits:
            option = [] if data_dir is None else [f"--data_dir={fspath(data_dir)}"]
            command = shlex.join(["python", "-m", "cnn_jax.data.prepare", name, *option])
            raise UsageError(f"data set {name!r} is not prepared in {builder.data_path}; run: {command}")
        if builder.info.file_format.value != "array_record":
            raise UsageError(
                f"data set {name!r} in {builder.data_path} is stored as {builder.info.file_format.value}, not as "
                f"array_record; move that folder away and run: python -m cnn_jax.data.prepare {name}"
            )
        instructions = _instructions(name, builder, split)
        of_set = functools.partial(_instructions, name, builder)
        found = [_completed(column, of_set, train=train, splits=tuple(builder.info.splits)) for column in found]
    reader = TfdsReader(name, split, instructions, tuple(found), _is_plain(builder.info, keys))
    files = [
        (os.path.basename(file.filename), os.path.getsize(file.filename), file.skip, file.take) for file in instructions
    ]
    stored = [(file.filename, os.stat(file.filename).st_mtime_ns) for file in instructions]
    return Records(
        name,
        split,
        reader,
        sum(file.take for file in instructions),
        reader.spec,
        identity=repr((builder.info.full_name, files)),
        framing=framing,
        origin=repr(stored),
        hashes=_places(instructions),
    )


def _instructions(name: str, builder: Any, split: str) -> tuple[Any, ...]:
    """Which examples of which files a split expression means."""
    resolve_split(name, split, {part: info.shard_lengths for part, info in builder.info.splits.items()})
    return tuple(builder.info.splits[split].file_instructions)


def _completed(
    column: Column, instructions: Callable[[str], tuple[Any, ...]], *, train: str, splits: tuple[str, ...]
) -> Column:
    """A column with what only the examples tell: the words of a text, the classes of a mask, the most boxes."""
    if isinstance(column, BoxesColumn):
        every = (one for part in splits for one in _stored_examples(instructions(part)))
        return dataclasses.replace(column, most=max(1, *(column.count(features) for features in every)))
    if column.field.class_names or not isinstance(column, TextColumn | MaskColumn):
        return column
    if isinstance(column, TextColumn):
        names = vocabulary_of(column.words(features) for features in _stored_examples(instructions(train)))
    else:
        most = 0
        for features in (one for part in splits for one in _stored_examples(instructions(part))):
            classes = column.read(features)[column.name]
            most = max(most, int(classes[classes != OUTSIDE].max(initial=0)))
        names = tuple(map(str, range(most + 1)))
    return dataclasses.replace(column, field=dataclasses.replace(column.field, class_names=names))


def _stored_examples(instructions: tuple[Any, ...]) -> Iterator[Any]:
    """The features of all examples, one example at a time."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource
    from tensorflow_datasets.proto import tf_example_pb2

    records = ArrayRecordDataSource(instructions)
    for first in range(0, len(records), READ_AT_ONCE):
        for record in records.__getitems__(range(first, min(first + READ_AT_ONCE, len(records)))):
            yield tf_example_pb2.Example.FromString(record).features.feature


def _places(instructions: Sequence[Any]) -> UInt64[np.ndarray, " n"]:
    """A number for each example that stands for its file and its place in it."""
    places = []
    for file in instructions:
        name = hashlib.blake2b(os.path.basename(file.filename).encode(), digest_size=8).digest()
        places.append(np.frombuffer(name, np.uint64) + np.arange(file.skip, file.skip + file.take, dtype=np.uint64))
    return np.concatenate(places)


def tfds_spec(
    name: str,
    *,
    data_dir: str | PathLike[str] | None = None,
    features: tuple[str, ...] = (),
    image_shape: tuple[int, ...] | None = None,
) -> Spec:
    """What is known about the examples of a TFDS set that need not be prepared: names of classes may be numbers.

    Raises:
      UsageError: For an unknown set, or features that are not read.
    """
    with quiet_tfds():
        info = tfds_builder(name, data_dir=data_dir).info
        keys = _keys(name, info, features)
        if _is_plain(info, keys):
            return {"image": Field("image"), "label": Field("label", (), "int32", tuple(info.features[keys[1]].names))}
        found = columns(name, _declared(info), keys, Wanted(image_shape))
    return {field: about for column in found for field, about in column.fields.items()}


@dataclasses.dataclass(frozen=True)
class TfdsReader:
    """Reads examples from array_record files; see :data:`~cnn_jax.data.records.Reader`.

    They are decoded here and not by TFDS's data source: twice as fast for MNIST, and other features are left out.

    Attributes:
      name: Of the set.
      split: The split expression.
      instructions: Which examples of which files.
      columns: The features that are read.
      plain: Whether they are an image and a label, which are then called so.
    """

    name: str
    split: str
    instructions: tuple[Any, ...]
    columns: tuple[Column, ...]
    plain: bool

    @property
    def spec(self) -> dict[str, Field]:
        """The fields of the examples."""
        if self.plain:
            image, label = (column.field for column in self.columns)
            return labelled_images(image.shape or (), label.class_names, dtype=image.dtype)
        return {name: field for column in self.columns for name, field in column.fields.items()}

    @functools.cached_property
    def _records(self) -> Any:
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        return ArrayRecordDataSource(self.instructions)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_records"}  # open files do not travel

    def __call__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The fields of some examples."""
        from tensorflow_datasets.proto import tf_example_pb2

        examples = []
        with quiet_tfds():
            for record in self._records.__getitems__(indices):
                features = tf_example_pb2.Example.FromString(record).features.feature
                try:
                    values = [column.read(features) for column in self.columns]
                except MissingLabelError as error:
                    raise UsageError(
                        f"data set {self.name!r}: split {self.split!r} is published without labels; use another split"
                    ) from error
                examples.append({name: value for one in values for name, value in one.items()})
        return (
            [dict(zip(("image", "label"), one.values(), strict=True)) for one in examples] if self.plain else examples
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
        with contextlib.redirect_stdout(io.StringIO()), dtypes_without_tensorflow():
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


def _keys(name: str, info: Any, features: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the features that are read: those that are asked for, or TFDS's (input, target)."""
    keys = features or info.supervised_keys
    if not isinstance(keys, tuple) or not all(isinstance(key, str) for key in keys):
        raise UsageError(
            f"data set {name!r}: TFDS does not declare one input and one target of it; name the features to read in "
            f"data.features, the input first: it has {listed(_declared(info))}"
        )
    return keys


def _declared(info: Any) -> dict[str, Any]:
    """The features of a set by name."""
    return dict(info.features.items()) if info.features else {}


def _is_plain(info: Any, keys: Sequence[str]) -> bool:
    """Whether features are an image and a label."""
    import tensorflow_datasets as tfds

    declared = _declared(info)
    return [type(declared.get(key)) for key in keys] == [tfds.features.Image, tfds.features.ClassLabel]
