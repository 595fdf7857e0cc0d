"""Images with masks, or volumes with label volumes, in folders: ``masks:path``.

The folder has ``images/`` and ``masks/``, whose files have equal names but for their suffixes; or the images and the
masks together, those called ``cat_mask.png`` beside ``cat.jpg``; or folders ``train``, ``val`` and ``test``, each like
that. Masks are grey, palette or colour images, or NIfTI volumes. What their values mean is stated in ``classes.csv``,
or in a ``dataset.json`` of the Medical Segmentation Decathlon; without either, values are class numbers from 0.
"""

import csv
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, Shaped
from PIL import Image

from cnn_jax.data.fields import Field
from cnn_jax.data.folder.layout import listed
from cnn_jax.data.framing import framed
from cnn_jax.data.images import decode_image, is_image, open_image, resize_image, resize_mask, upright_size
from cnn_jax.data.nifti import is_nifti, read_label_volume, read_volume, stem_of
from cnn_jax.data.records import Records, in_threads, showing_progress
from cnn_jax.data.splits import PARTS, members_of_split, mixed_order, part_of, stratified_parts
from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import user_path
from cnn_jax.typed import typed

IMAGE_FOLDERS = ("images", "image", "imgs", "imagestr")
MASK_FOLDERS = ("masks", "mask", "labels", "label", "segmentations", "annotations", "labelstr")
MASK_ENDING = re.compile(r"[_-](mask|masks|label|labels|seg|segmentation|gt)$", re.IGNORECASE)
TABLE = "classes.csv"
IGNORED = 255
MASK_FIELD = "segmentation"
MOST_WITH_GAPS = 32  # classes without a table, if some of them do not occur
NORMALIZE = ("none", "each")

MaskValue = int | tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class ClassTable:
    """What the values in masks mean.

    Attributes:
      names: Of the classes.
      values: Grey value, palette index, label or colour -> class number, or 255 for what is ignored.
      stated: Where that is said; empty where it was taken from the values themselves.
    """

    names: tuple[str, ...]
    values: Mapping[MaskValue, int]
    stated: str

    @property
    def has_colours(self) -> bool:
        """Whether the values are colours."""
        return any(isinstance(value, tuple) for value in self.values)

    def classes(self, values: Shaped[np.ndarray, "..."], path: str | PathLike[str]) -> Shaped[np.ndarray, "..."]:
        """The class numbers of a mask, uint8.

        Args:
          values: Integers; of colours the last axis is that of red, green and blue.
          path: Of the mask, for messages.

        Raises:
          UsageError: A value is that of no class.
        """
        flat = _packed(values) if self.has_colours else values
        table = {_packed_colour(value): number for value, number in self.values.items()}
        known, inverse = np.unique(flat, return_inverse=True)
        for value in known.tolist():
            if value not in table:
                place = ", ".join(map(str, np.argwhere(flat == value)[0].tolist()))
                shown = f"#{value:06x}" if self.has_colours else value
                said = self.stated or "the classes, which are numbered from 0"
                raise UsageError(f"{path}: the value {shown} at ({place}) is none of {said}; name it in {TABLE}")
        return np.array([table[value] for value in known.tolist()], np.uint8)[inverse].reshape(flat.shape)


@dataclasses.dataclass(frozen=True)
class MaskedFile:
    """An image and its mask.

    Attributes:
      part: ``"train"``, ``"validation"``, ``"test"``, or empty.
      image: The path of the image or volume.
      mask: The path of its mask.
    """

    part: str
    image: Path
    mask: Path


@typed
def open_masks(
    path: str,
    split: str,
    *,
    image_shape: tuple[int, ...] | None,
    framing: str = "crop",
    normalize: str = "none",
) -> Records:
    """A split of a folder of images and masks: the fields ``image`` (or ``volume``) and ``segmentation``.

    Args:
      path: Of the folder.
      split: A split expression. Without folders ``train``, ``val``, ``test`` these are 80, 10 and 10 % of the images,
        by a hash of their names; and ``sorted`` has all in the order of their names and the numbers in these, so that
        ``sorted[:24]`` are the first 24 slices of a stack.
      image_shape: ``(height, width, channels)`` of the images, to which they are brought with their masks, or ``(depth,
        height, width, channels)`` of the volumes, to which these are cut or continued by mirroring. What is added to a
        mask is ignored.
      framing: As in :class:`~cnn_jax.data.Records`, of images.
      normalize: ``"each"`` brings the values of each volume to mean 0 and standard deviation 1, ``"none"`` leaves them.

    Raises:
      UsageError: The folder is not like that, a mask has another size than its image or a value that no class has, or
        there is no such split; the message has the name of the file.
    """
    name = f"masks:{path}"
    root = user_path(path).absolute()
    if not root.is_dir():
        raise UsageError(f"data set {name!r}: there is no folder {root}")
    if normalize not in NORMALIZE:
        raise UsageError(f"data.normalize={normalize!r} must be one of {', '.join(NORMALIZE)}")
    pairs, table, hashes = _scanned(name, root)
    kind = "volume" if is_nifti(pairs[0].image) else "image"
    if image_shape is None or len(image_shape) != (4 if kind == "volume" else 3):
        axes = "depth, height, width, channels" if kind == "volume" else "height, width, 1 or 3"
        raise UsageError(f"data set {name!r} has {kind}s; input_shape={image_shape} must be ({axes})")
    if kind == "image" and image_shape[-1] not in (1, 3):
        raise UsageError(f"data set {name!r}: images have 1 or 3 channels, not {image_shape[-1]}")
    if normalize != "none" and kind == "image":
        raise UsageError(f"data.normalize={normalize!r} is for volumes, but {name!r} has images; use 'none'")
    chosen = [int(number) for number in members_of_split(name, split, _members(pairs, root, split))]
    reader = MaskReader(tuple(pairs[number] for number in chosen), table, image_shape, framing, normalize)
    described = Field(kind, image_shape, "uint8" if kind == "image" else "float32")
    mask = Field("mask", image_shape[:-1], "uint8", table.names, ignored=IGNORED)
    identity = repr([(pairs[number].image.name, hashes[number]) for number in chosen])
    report = f"{root}: {len(pairs):,} {kind}s with masks, {len(table.names)} classes: {', '.join(table.names[:20])}"
    return Records(
        name,
        split,
        reader,
        len(chosen),
        {kind: described, MASK_FIELD: mask},
        identity=repr((identity, sorted(table.values.items(), key=str), normalize)),
        framing=framing,
        report=report + (" ..." if len(table.names) > 20 else ""),
        hashes=np.array([int(hashes[number][:16], 16) for number in chosen], np.uint64),
    )


@dataclasses.dataclass(frozen=True)
class MaskReader:
    """Reads images or volumes with their masks; see :data:`~cnn_jax.data.records.Reader`."""

    pairs: tuple[MaskedFile, ...]
    table: ClassTable
    image_shape: tuple[int, ...]
    framing: str
    normalize: str

    def __call__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Images and masks, of the shape that is wanted."""
        read = self._volume if len(self.image_shape) == 4 else self._image
        return [read(self.pairs[number]) for number in indices]

    def _image(self, pair: MaskedFile) -> dict[str, Any]:
        height, width, channels = self.image_shape
        image = decode_image(_content(pair.image), pair.image, channels=channels)
        classes = self.table.classes(mask_values(pair.mask, colours=self.table.has_colours), pair.mask)
        if image.size != classes.shape[::-1]:
            raise UsageError(_other_size(pair, image.size[::-1], classes.shape))
        framed = resize_image(image, (width, height), self.framing)
        mask = resize_mask(Image.fromarray(classes), (width, height), self.framing, fill=IGNORED)
        return {"image": framed, MASK_FIELD: np.asarray(mask)}

    def _volume(self, pair: MaskedFile) -> dict[str, Any]:
        volume = read_volume(pair.image, normalize=self.normalize == "each")
        classes = self.table.classes(read_label_volume(pair.mask), pair.mask)
        if volume.shape[:-1] != classes.shape:
            raise UsageError(_other_size(pair, volume.shape[:-1], classes.shape))
        if volume.shape[-1] != self.image_shape[-1]:
            channels = f"{volume.shape[-1]} channels, but input_shape has {self.image_shape[-1]}"
            raise UsageError(f"{pair.image}: has {channels}")
        sizes = self.image_shape[:-1]
        return {
            "volume": framed(volume, sizes, mode="reflect"),
            MASK_FIELD: framed(classes, sizes, mode="constant", constant_values=IGNORED),
        }


def mask_values(path: str | PathLike[str], *, colours: bool) -> Int32[np.ndarray, "..."]:
    """What is written in a mask: grey values, palette indices, or colours.

    Args:
      path: Of an image file.
      colours: Whether colours are wanted, ``(height, width, 3)``; otherwise ``(height, width)``.

    Raises:
      UsageError: It is no image, or has colours that are not wanted.
    """
    opened = open_image(path)
    if colours:
        return np.asarray(opened.convert("RGB"), np.int32)
    if opened.mode == "LA":
        opened = opened.getchannel("L")
    values = np.asarray(opened)
    if opened.mode in ("RGB", "RGBA"):
        if (values[..., :3] != values[..., :1]).any():
            raise UsageError(f"{path}: is a mask of colours; state the colour of each class in {TABLE}")
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "biu":
        raise UsageError(f"{path}: is not a mask of whole numbers, but an image of mode {opened.mode}")
    return values.astype(np.int32)


@functools.lru_cache(maxsize=8)
def _scan(name: str, root: Path, stamp: tuple[Any, ...]) -> tuple[tuple[MaskedFile, ...], ClassTable, tuple[str, ...]]:
    """The pairs of a folder, the table of its classes, and a hash of each pair; every mask is read once."""
    pairs = _pairs(name, root)
    stated = _stated_table(name, root)
    colours = stated is not None and stated.has_colours
    volumes = is_nifti(pairs[0].image)
    found: dict[int, tuple[str, list[int]]] = {}

    def check(number: int) -> int:
        pair = pairs[number]
        image, mask = _content(pair.image), _content(pair.mask)
        if volumes:
            values = read_label_volume(pair.mask)
        else:
            values = mask_values(pair.mask, colours=colours)
            decode_image(image, pair.image, channels=3, least=1)
            width, height = upright_size(image)
            if values.shape[:2] != (height, width):
                raise UsageError(f"data set {name!r}: {_other_size(pair, (height, width), values.shape[:2])}")
        if stated is not None:
            stated.classes(values, pair.mask)
        hashed = hashlib.blake2b(image, digest_size=8).hexdigest() + hashlib.blake2b(mask, digest_size=8).hexdigest()
        found[number] = hashed, [] if colours else np.unique(values).tolist()
        return 1

    with showing_progress(f"checking the masks of {root.name}", len(pairs)) as advance:
        for count in in_threads(check, range(len(pairs))):
            advance(count)
    table = stated or _table_of_values(name, pairs, [found[number][1] for number in range(len(pairs))])
    return tuple(pairs), table, tuple(found[number][0] for number in range(len(pairs)))


def _scanned(name: str, root: Path) -> tuple[tuple[MaskedFile, ...], ClassTable, tuple[str, ...]]:
    """What :func:`_scan` finds, again only if a file has changed."""
    files = [file for pair in _pairs(name, root) for file in (pair.image, pair.mask)]
    files += [file for file in (root / TABLE, root / "dataset.json") if file.is_file()]
    return _scan(name, root, tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files))


def _pairs(name: str, root: Path) -> list[MaskedFile]:
    """The images of a folder with their masks."""
    folders = {folder: part_of(folder.name) for folder in listed(root) if folder.is_dir()}
    parts = {folder: part for folder, part in folders.items() if part}
    if parts and not _folder_of(root, IMAGE_FOLDERS):
        found = [pair for folder, part in parts.items() for pair in _pairs_in(name, folder, part)]
        if "train" not in parts.values():
            raise UsageError(f"data set {name!r}: has {', '.join(parts.values())}, but no folder 'train'")
    else:
        found = _pairs_in(name, root, "")
    if len({is_nifti(pair.image) for pair in found}) > 1:
        raise UsageError(f"data set {name!r}: has images and NIfTI volumes; leave one kind of them")
    return found


def _pairs_in(name: str, folder: Path, part: str) -> list[MaskedFile]:
    where = f"data set {name!r}"
    images, masks = _folder_of(folder, IMAGE_FOLDERS), _folder_of(folder, MASK_FOLDERS)
    if images and masks:
        first = _by_stem(where, _files(images))
        second = _by_stem(where, _files(masks), without_ending=set(first))
    elif images or masks:
        missing = "masks" if images else "images"
        raise UsageError(f"{where}: {folder} has {(images or masks).name!r}, but no folder {missing!r} beside it")  # type: ignore[union-attr]
    else:
        files = _files(folder)
        second = _by_stem(where, (file for file in files if MASK_ENDING.search(stem_of(file))), without_ending=None)
        first = _by_stem(where, (file for file in files if not MASK_ENDING.search(stem_of(file))))
    if not first and not second:
        raise UsageError(
            f"{where}: no images in {folder}; put them into 'images' and their masks, of the same names, into 'masks'"
        )
    for stem in first.keys() ^ second.keys():
        if stem in first:
            raise UsageError(
                f"{where}: {first[stem]} has no mask; name the mask like the image, or with _mask behind it"
            )
        raise UsageError(f"{where}: {second[stem]} is the mask of no image; name it like its image")
    return [MaskedFile(part, first[stem], second[stem]) for stem in sorted(first)]


def _folder_of(folder: Path, names: Iterable[str]) -> Path | None:
    inside = {path.name.lower(): path for path in listed(folder) if path.is_dir()}
    return next((inside[name] for name in names if name in inside), None)


def _files(folder: Path) -> list[Path]:
    return [file for file in listed(folder) if is_image(file) or is_nifti(file)]


def _by_stem(where: str, files: Iterable[Path], *, without_ending: set[str] | None = frozenset()) -> dict[str, Path]:  # type: ignore[assignment]
    """Stem -> file. Endings such as ``_mask`` are removed where the stem is not one of ``without_ending``."""
    found: dict[str, Path] = {}
    for file in files:
        stem = stem_of(file)
        if without_ending is None or (without_ending and stem not in without_ending):
            stem = MASK_ENDING.sub("", stem)
        if stem in found:
            raise UsageError(f"{where}: {found[stem]} and {file} have one name; leave one of them")
        found[stem] = file
    return found


def _members(pairs: Sequence[MaskedFile], root: Path, split: str) -> dict[str, np.ndarray]:
    names = [pair.image.relative_to(root).as_posix() for pair in pairs]
    if re.search(r"\bsorted\b", split):
        numbers = [[int(word) if word.isdigit() else word for word in re.split(r"(\d+)", name)] for name in names]
        return {"sorted": np.array(sorted(range(len(pairs)), key=lambda number: numbers[number]))}
    if not pairs[0].part:
        return stratified_parts([0] * len(pairs), names)
    order = mixed_order(names)
    parts = np.array([pair.part for pair in pairs])[order]
    return {part: order[parts == part] for part in dict.fromkeys(PARTS.values())}


def _stated_table(name: str, root: Path) -> ClassTable | None:
    """The table in ``classes.csv`` or ``dataset.json``; None without either."""
    file, decathlon = root / TABLE, root / "dataset.json"
    if file.is_file():
        with open(file, encoding="utf-8-sig", newline="") as opened:
            rows = [[cell.strip() for cell in row] for row in csv.reader(opened) if any(map(str.strip, row))]
        if rows and [cell.lower() for cell in rows[0][:2]] == ["name", "value"]:
            rows = rows[1:]
        entries = [(row[0], _value(f"data set {name!r}: {file}", row[1:])) for row in rows]
    elif decathlon.is_file():
        try:
            labels = json.loads(decathlon.read_text())["labels"]
            entries = [(str(text), int(number)) for number, text in labels.items()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"data set {name!r}: {decathlon} has no 'labels' such as {{'0': 'background'}}") from error
        file = decathlon
    else:
        return None
    names = list(dict.fromkeys(text for text, _ in entries if text.lower() != "ignored"))
    values = {value: IGNORED if text.lower() == "ignored" else names.index(text) for text, value in entries}
    if len(values) < len(entries) or len({isinstance(value, tuple) for value in values}) > 1:
        raise UsageError(f"data set {name!r}: {file} must have one value or one colour for each line")
    if not 2 <= len(names) < IGNORED:
        raise UsageError(f"data set {name!r}: {file} names {len(names)} classes; give from 2 to {IGNORED - 1}")
    return ClassTable(tuple(names), values, file.name)


def _value(where: str, cells: Sequence[str]) -> MaskValue:
    """A number or a colour: ``7``, ``#ff0000``, ``255 0 0`` or ``255,0,0``."""
    text = " ".join(cells).strip()
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        return int(text[1:3], 16), int(text[3:5], 16), int(text[5:], 16)
    numbers = text.split()
    if not all(number.isdigit() for number in numbers) or len(numbers) not in (1, 3):
        raise UsageError(f"{where}: {text!r} is no value; write name,7 or name,#ff0000 or name,255 0 0")
    first, *others = map(int, numbers)
    return (first, *others) if others else first  # type: ignore[return-value]


def _table_of_values(name: str, pairs: Sequence[MaskedFile], values: Sequence[Sequence[int]]) -> ClassTable:
    """The classes of masks that nothing is said about: 0 and 255, or numbers from 0."""
    found = sorted({value for each in values for value in each})
    if found in ([0, 255], [255]):
        return ClassTable(("background", "foreground"), {0: 0, 255: 1}, "")
    known = [value for value in found if value != IGNORED]
    high = max(known, default=0)
    if not known or known[0] < 0 or high >= IGNORED or (high > MOST_WITH_GAPS and high >= len(known)):
        wrong = known[0] if known and known[0] < 0 else high
        file = next(pair.mask for pair, each in zip(pairs, values, strict=True) if wrong in each or not known)
        listed = ", ".join(map(str, found[:10])) + (" ..." if len(found) > 10 else "")
        raise UsageError(
            f"data set {name!r}: the values of its masks ({listed}; {wrong} in {file}) are no class numbers from 0; "
            f"state what they mean in {TABLE}, with a line such as liver,{wrong} for each class"
        )
    numbers: dict[MaskValue, int] = {value: value for value in range(max(high, 1) + 1)}
    return ClassTable(tuple(map(str, numbers)), {**numbers, IGNORED: IGNORED}, "")


def _packed(values: Shaped[np.ndarray, "... 3"]) -> Shaped[np.ndarray, "..."]:
    return values.astype(np.int64) @ np.array([65536, 256, 1])


def _packed_colour(value: MaskValue) -> int:
    return value if isinstance(value, int) else value[0] * 65536 + value[1] * 256 + value[2]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error


def _other_size(pair: MaskedFile, image: Sequence[int], mask: Sequence[int]) -> str:
    return f"{pair.mask}: has {'x'.join(map(str, mask))} pixels, but {pair.image} has {'x'.join(map(str, image))}"
