"""Images with captions in a folder: ``captions:path``, with a file of lines ``file,caption``, as Flickr8k has it.

An example is one caption with its image, so an image with five captions gives five examples, all in the same part of
the data. The fields are ``image``, ``caption`` and ``caption_count``. The vocabulary are the words of the
training captions. Other words of validation and test captions are ``<unknown>``, which no network writes, so such
captions are never right; the report says how many there are.
"""

import csv
import dataclasses
import functools
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32

from cnn_jax.data.fields import Field
from cnn_jax.data.images import decode_image, files_in, is_image
from cnn_jax.data.named_files import part_of_file
from cnn_jax.data.records import Records
from cnn_jax.data.splits import members_of_split, mixed_order, stratified_parts
from cnn_jax.data.text import UNKNOWN, encode, read_lines, tokenize, vocabulary_of
from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import user_path

SUFFIXES = (".csv", ".tsv", ".txt")
_NUMBERED = re.compile(r"#\d+$")
_HEADINGS = ("file", "filename", "file_name", "image", "image_name", "img", "name", "path")


@dataclasses.dataclass(frozen=True)
class Caption:
    """One caption of an image.

    Attributes:
      image: The path of the image.
      words: The words of the caption.
      part: Of the data set; empty where the file does not say it.
    """

    image: Path
    words: tuple[str, ...]
    part: str


def open_captions(
    path: str, split: str, *, image_shape: tuple[int, ...] | None, framing: str = "crop", train: str = "train"
) -> Records:
    """A split of a folder of images with captions: the fields ``image``, ``caption`` and ``caption_count``.

    Args:
      path: Of the folder. It has images, also in folders inside it, and a ``.csv``, ``.tsv`` or ``.txt`` file of lines
        ``file,caption``, or ``file<tab>caption``; or one such file for each part, whose names begin or end with
        ``train``, ``val``, ``test``. A number behind the name of the file, as in ``dog.jpg#2``, is left out, and so is
        a first line with the headings of the columns.
      split: A split expression. Where names of files do not say the parts, these are 80, 10 and 10 % of the images, by
        a hash of their names. Where there is no part for validation, it is a tenth of the training images, which are
        then left out of these.
      image_shape: ``(height, width, channels)`` to which the images are brought.
      framing: As in :class:`~cnn_jax.data.Records`.
      train: The split expression whose words are the vocabulary.

    Raises:
      UsageError: The folder is not like that, a file or an image is missing, or a caption is empty; the message has the
        name of the file and the number of the line.
    """
    name = f"captions:{path}"
    root = user_path(path).absolute()
    if not root.is_dir():
        raise UsageError(f"data set {name!r}: there is no folder {root}")
    if image_shape is None or len(image_shape) != 3 or image_shape[-1] not in (1, 3):
        raise UsageError(f"data set {name!r} has images; input_shape={image_shape} must be (height, width, 1 or 3)")
    captions = _read(name, root, tuple((str(file), *_stamp(file)) for file in sorted(files_in(root))))
    members = _members(captions, root)
    vocabulary = vocabulary_of(captions[number].words for number in members_of_split(name, train, members))
    chosen = tuple(captions[number] for number in members_of_split(name, split, members))
    length = max(len(caption.words) for caption in captions) + 1
    tokens, counts = encode([caption.words for caption in chosen], vocabulary, length)
    images = sorted({caption.image for caption in chosen})
    digests = {image: hashlib.blake2b(_content(image), digest_size=8).hexdigest() for image in images}
    identity = repr([(caption.image.name, digests[caption.image], caption.words) for caption in chosen])
    return Records(
        name,
        split,
        CaptionReader(tuple(caption.image for caption in chosen), tokens, counts, image_shape[-1]),
        len(chosen),
        {
            "image": Field("image", tuple(image_shape), "uint8"),
            "caption": Field("text", (length,), "int32", vocabulary, count="caption_count"),
            "caption_count": Field("count", (), "int32"),
        },
        identity=hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest(),
        framing=framing,
        report=_report(name, split, images, tokens, vocabulary),
        hashes=np.array([int(digests[caption.image], 16) for caption in chosen], np.uint64),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class CaptionReader:
    """Reads images with one caption each; see :data:`~cnn_jax.data.records.Reader`."""

    images: tuple[Path, ...]
    tokens: Int32[np.ndarray, "n length"]
    counts: Int32[np.ndarray, " n"]
    channels: int

    def __call__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Images of their own sizes, token numbers and numbers of words."""
        return [
            {
                "image": decode_image(_content(self.images[n]), self.images[n], channels=self.channels),
                "caption": self.tokens[n],
                "caption_count": self.counts[n],
            }
            for n in indices
        ]


@functools.lru_cache(maxsize=8)
def _read(name: str, root: Path, files: tuple[tuple[Any, ...], ...]) -> tuple[Caption, ...]:
    """The captions of a folder, whose files and their times are given."""
    found = [Path(file) for file, *_ in files]
    images = {image.relative_to(root).as_posix(): image for image in found if is_image(image)}
    by_name: dict[str, list[Path]] = {}
    for image in images.values():
        by_name.setdefault(image.name, []).append(image)
    lists = [file for file in found if file.suffix.lower() in SUFFIXES and file.parent == root]
    parts = {file: part_of_file(file) for file in lists}
    if not lists or (len(lists) > 1 and (not all(parts.values()) or "train" not in parts.values())):
        listed = ", ".join(file.name for file in lists) or "none"
        raise UsageError(
            f"data set {name!r}: the folder needs one file with a line 'file,caption' for each caption, or one for "
            f"each part, whose names begin or end with 'train', 'val' and 'test'; of {', '.join(SUFFIXES)} it has "
            f"{listed}"
        )
    captions = []
    for file in lists:
        for number, (called, text) in _lines(file):
            where = f"{file}, line {number}"
            same_name = by_name.get(called, [])
            path = images.get(called) or (same_name[0] if len(same_name) == 1 else None)
            if path is None:
                why = f"{len(same_name)} images are called" if same_name else "there is no image"
                raise UsageError(f"{where}: {why} {called!r} in {root}; give its path in this folder")
            words = tuple(tokenize(text))
            if not words:
                raise UsageError(f"{where}: the caption of {called!r} is empty; write one, or leave the line out")
            captions.append(Caption(path, words, parts[file] if len(lists) > 1 else ""))
    return tuple(captions)


def _lines(file: Path) -> list[tuple[int, tuple[str, str]]]:
    """The lines of a file with captions: the number of each, the name of the image, and the text."""
    found: list[tuple[int, tuple[str, str]]] = []
    for number, line in enumerate(read_lines(file), start=1):
        if not line:
            continue
        if "\t" in line:
            image, _, text = line.partition("\t")
        else:  # commas in a caption need no quotes
            image, *others = next(csv.reader([line], skipinitialspace=True))
            text = ",".join(others)
        if not found and number == 1 and image.strip().lower() in _HEADINGS:
            continue
        found.append((number, (_NUMBERED.sub("", image.strip()), text)))
    if not found:
        raise UsageError(f"{file}: has no captions")
    return found


def _members(captions: Sequence[Caption], root: Path) -> dict[str, np.ndarray]:
    """The captions of every part, in a mixed order of their images."""
    names = list(dict.fromkeys(caption.image.relative_to(root).as_posix() for caption in captions))
    part_of: dict[str, str] = {}
    for name, caption in ((caption.image.relative_to(root).as_posix(), caption) for caption in captions):
        if part_of.setdefault(name, caption.part) != caption.part:
            raise UsageError(f"{caption.image}: has captions of two parts, {part_of[name]} and {caption.part}")
    if not any(part_of.values()):
        parts = stratified_parts([0] * len(names), names)
        of_part = {part: [names[number] for number in numbers] for part, numbers in parts.items()}
    else:
        order = [names[number] for number in mixed_order(names)]
        of_part = {part: [n for n in order if part_of[n] == part] for part in ("train", "validation", "test")}
        if not of_part["validation"]:
            held_out = len(of_part["train"]) // 10
            of_part["validation"], of_part["train"] = of_part["train"][:held_out], of_part["train"][held_out:]
    numbers: dict[str, list[int]] = {}
    for number, caption in enumerate(captions):
        numbers.setdefault(caption.image.relative_to(root).as_posix(), []).append(number)
    return {
        part: np.array([number for name in chosen for number in numbers[name]], np.int64)
        for part, chosen in of_part.items()
    }


def _report(
    name: str, split: str, images: Sequence[Path], tokens: Int32[np.ndarray, "n length"], vocabulary: Sequence[str]
) -> str:
    known = f"{name}: {len(tokens):,} captions of {len(images):,} images in {split!r}, {len(vocabulary) - 2:,} words"
    unknown = (tokens == UNKNOWN).any(axis=1).sum()
    return known + (f"; {unknown:,} captions have words that no training caption has" if unknown else "")


def _stamp(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:  # a link that leads nowhere, which is not read unless a caption names it
        return (0, 0)
    return status.st_mtime_ns, status.st_size


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
