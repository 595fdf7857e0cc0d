"""Where examples come from: ``load(name, split)`` reads a data set into memory, ``open_set`` leaves it on disk.

``digits`` comes with scikit-learn, and ``mnist1d`` is generated: nothing to download. ``folder:path``, ``masks:path``,
``boxes:path``, ``captions:path``, ``npz:path``, ``series:path``, ``sounds:path`` and ``text:path`` are the user's own.
Every other name is one of TensorFlow Datasets (TFDS), prepared by ``python -m cnn_jax.data.prepare <name>``. Split
expressions are TFDS's for all of them: ``"train"``, ``"train[:90%]"``, ``"train+validation"``, ``"all"``.
"""

import dataclasses
from collections.abc import Callable
from os import PathLike
from typing import Any

from cnn_jax.data.arrays import load_digits, load_npz
from cnn_jax.data.boxes import open_boxes
from cnn_jax.data.captions import open_captions
from cnn_jax.data.dataset import Dataset
from cnn_jax.data.fields import IGNORED, Spec, with_ignored
from cnn_jax.data.folder import open_folder
from cnn_jax.data.images import RESIZES
from cnn_jax.data.masks import open_masks
from cnn_jax.data.mnist1d import open_mnist1d
from cnn_jax.data.photographs import open_photographs
from cnn_jax.data.records import Records
from cnn_jax.data.series import open_series
from cnn_jax.data.sounds import open_sounds
from cnn_jax.data.text import open_text
from cnn_jax.data.tfds import open_tfds, tfds_spec
from cnn_jax.errors import UsageError, nearest
from cnn_jax.runtime.objects import load_object
from cnn_jax.typed import typed

Source = Callable[..., Dataset | Records]

SOURCES: dict[str, Source] = {
    "digits": lambda _path, split, **_: load_digits(split),
    "mnist1d": lambda _path, split, **_: open_mnist1d(split),
    "photographs": lambda _path, split, *, image_shape, framing, **_: open_photographs(
        split, image_shape=image_shape, framing=framing
    ),
    "npz": lambda path, split, *, ignore_label, image_shape, **_: load_npz(
        path, split, ignore_label=ignore_label, axes=len(image_shape or (0, 0, 0))
    ),
    "folder": lambda path, split, *, image_shape, framing, **_: open_folder(
        path, split, image_shape=image_shape, framing=framing
    ),
    "masks": lambda path, split, *, image_shape, framing, normalize="none", **_: open_masks(
        path, split, image_shape=image_shape, framing=framing, normalize=normalize
    ),
    "boxes": lambda path, split, *, image_shape, framing, invalid_boxes="fix", **_: open_boxes(
        path, split, image_shape=image_shape, framing=framing, invalid=invalid_boxes
    ),
    "captions": lambda path, split, *, image_shape, framing, train, **_: open_captions(
        path, split, image_shape=image_shape, framing=framing, train=train
    ),
    "series": lambda path, split, **_: open_series(path, split),
    "sounds": lambda path, split, *, image_shape, **_: open_sounds(path, split, image_shape=image_shape),
    "text": lambda path, split, *, image_shape, train, **_: open_text(
        path, split, image_shape=image_shape, train=train
    ),
}
"""The part of a name before the colon -> ``source(path, split, *, train, data_dir, image_shape, framing,
ignore_label)``.

It gives a :class:`Dataset` or, for examples that may have to stay on disk, :class:`Records`. A new source is one more
entry; ``**_`` takes the parameters that it does not use."""

WITH_PATH = ("npz", "folder", "masks", "boxes", "captions", "series", "sounds", "text")
"""The sources that read what is at a path."""


@typed
def open_set(
    name: str,
    split: str,
    *,
    data_dir: str | PathLike[str] | None = None,
    image_shape: tuple[int, ...] | None = None,
    framing: str = "crop",
    ignore_label: int = IGNORED,
    normalize: str = "none",
    invalid_boxes: str = "fix",
    train: str = "train",
    features: tuple[str, ...] = (),
) -> Dataset | Records:
    """One split of a data set, left on disk where it is there as files.

    Args:
      name: ``"digits"``; ``"mnist1d"``, short signals; ``"photographs"``, two of them in pieces; ``"folder:path"``:
        images in one subfolder per class, or such folders in ``train``, ``val`` and ``test``; ``"masks:path"``:
        images or volumes with masks; ``"boxes:path"``: images with boxes; ``"captions:path"``: images with
        captions; ``"npz:path"``: NumPy arrays; ``"series:path"``, ``"sounds:path"``, ``"text:path"``: lines of
        values, WAV files, lines of text; or the name of a TFDS set, with its configuration and version where
        wanted: ``"mnist"``, ``"cifar10:3.0.2"``, ``"cifar10_corrupted/fog_1"``.
      split: A TFDS split expression. ``digits`` has ``train`` (1,297), ``validation`` (200) and ``test`` (300); where
        a source has no parts, ``train``, ``validation`` and ``test`` are 80, 10 and 10 % of each class.
      data_dir: Where TFDS keeps its sets; by default ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.
      image_shape: ``(height, width, channels)`` to which images of different sizes are brought. Sources of other kinds
        of inputs have theirs: ``(length, channels)`` of sounds, ``(length,)`` of texts.
      framing: How: ``"crop"`` cuts the middle out, ``"fit"`` fills up, ``"stretch"`` changes the aspect.
      ignore_label: A class number that means "not labelled", see :class:`~cnn_jax.data.Field`. -1 for what the set
        itself declares; in a ``.npz`` file of images and labels it is -1.
      normalize: ``"each"`` brings every NIfTI volume of ``masks:path`` to mean 0 and standard deviation 1.
      invalid_boxes: What happens to boxes of ``boxes:path`` that are not valid: ``"fix"``, ``"drop"``, ``"refuse"``.
      train: The split that is trained on, from which the vocabulary of texts is made.
      features: The names of the features of a TFDS set to read, the network's input first; by default the input and
        the target that TFDS declares.

    Returns:
      The split, in the order in which it is stored; a folder's is mixed.

    Raises:
      UsageError: For an unknown or unprepared set, a split that does not exist or is empty, or features of TFDS that
        are not read.

    Example:
      >>> open_set("digits", "test").image_shape
      (8, 8, 1)
    """
    if framing not in RESIZES:
        raise UsageError(f"data set {name!r}: unknown framing={framing!r}; {nearest(framing, RESIZES)}")
    prefix, _, path = name.partition(":")
    if prefix in WITH_PATH and not path:
        raise UsageError(f"data set {name!r} has no path; write it behind the colon, as {prefix}:path")
    if normalize != "none" and prefix != "masks":
        raise UsageError(f"data.normalize={normalize!r} is for volumes of masks:path and not for {name!r}; use 'none'")
    if features and not _is_tfds(prefix):
        raise UsageError(f"data.features={features} names features of a TFDS set, which {name!r} is not; leave it out")
    options: dict[str, Any] = {"data_dir": data_dir, "image_shape": image_shape, "framing": framing}
    if prefix.endswith(".py"):
        found = load_object(name, what=f"data.name={name!r}")(split, **options)
    elif prefix in SOURCES:
        further = {"masks": {"normalize": normalize}, "boxes": {"invalid_boxes": invalid_boxes}}.get(prefix, {})
        found = SOURCES[prefix](path, split, ignore_label=ignore_label, train=train, **further, **options)
    else:
        found = open_tfds(name, split, features=features, train=train, **options)
    if ignore_label == IGNORED:
        return found
    return dataclasses.replace(found, spec=with_ignored(name, found.spec, ignore_label))


@typed
def known_spec(name: str, split: str, **options: Any) -> Spec:
    """What is known about the examples of a data set. A TFDS set need not be prepared for that.

    Args:
      name: As for :func:`open_set`, as are ``split``, which is opened where the source is not TFDS, and the options.

    Returns:
      Name -> field. Of a TFDS set the shape of the images is not known, and names of classes may be numbers.

    Raises:
      UsageError: As :func:`open_set`.

    Example:
      >>> known_spec("digits", "test")["label"].class_names[:3]
      ('0', '1', '2')
    """
    if not _is_tfds(name.partition(":")[0]):
        return open_set(name, split, **options).spec
    known = ("data_dir", "features", "image_shape")
    return tfds_spec(name, **{key: value for key, value in options.items() if key in known})


def _is_tfds(prefix: str) -> bool:
    return prefix not in SOURCES and not prefix.endswith(".py")


@typed
def load(
    name: str,
    split: str,
    *,
    data_dir: str | PathLike[str] | None = None,
    image_shape: tuple[int, ...] | None = None,
    framing: str = "crop",
    train: str = "train",
) -> Dataset:
    """Reads one split of a data set into memory; arguments and errors as :func:`open_set` has them.

    Example:
      >>> digits = load("digits", "train")
      >>> len(digits), digits.image_shape, digits.num_classes
      (1297, (8, 8, 1), 10)
    """
    found = open_set(name, split, data_dir=data_dir, image_shape=image_shape, framing=framing, train=train)
    return found if isinstance(found, Dataset) else found.to_memory()
