"""A folder of the user's own images as a data set: ``folder:path``, or ``python -m cnn_jax.data.folder path``.

One subfolder per class, images in it to any depth; or such folders in ``train``, ``val`` and ``test``, see
:mod:`cnn_jax.data.folder.layout`. Every file is decoded once to check that it is complete; the result is kept in the
user's cache folder, and only files whose size or modification time has changed are checked again.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn_jax.data.folder.layout import class_folders, listed
from cnn_jax.data.images import decode_image, files_in, find_images, has_sixteen_bits, is_image, upright_size
from cnn_jax.data.records import Records, in_threads, labelled_images, showing_progress
from cnn_jax.data.splits import members_of_split, mixed_order, stratified_parts
from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import cache_folder, user_path, write_atomically
from cnn_jax.runtime.terminal import printable
from cnn_jax.typed import typed

SHOWN_BROKEN = 10
CHECKED_AT_ONCE = 64
INDEX_VERSION = 2
DEPTH_FROM = 50  # images


@dataclasses.dataclass(frozen=True)
class File:
    """An image file as it was found.

    Attributes:
      path: Relative to the folder, with ``/``.
      part: ``"train"``, ``"validation"``, ``"test"``, or empty in a folder without parts.
      class_name: Its class.
      hash: Of its content.
      width: Upright.
      height: Upright.
      error: Why it cannot be read; empty for a good one.
    """

    path: str
    part: str
    class_name: str
    hash: str
    width: int
    height: int
    error: str


@dataclasses.dataclass(frozen=True)
class FolderContents:
    """What :func:`scan_folder` found; its text is the report for the user.

    Attributes:
      root: The folder.
      class_names: In order.
      files: The images.
      broken: The images that cannot be read.
      outside: Images that are in no class, relative to the folder.
      others: Suffix -> how many files in the classes are no images by their names.
    """

    root: Path
    class_names: tuple[str, ...]
    files: tuple[File, ...]
    broken: tuple[File, ...]
    outside: tuple[str, ...] = ()
    others: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.root}: {len(self.files):,} images, {len(self.class_names)} classes"]
        for part in dict.fromkeys(file.part for file in self.files):
            counts = Counter(file.class_name for file in self.files if file.part == part)
            listed = ", ".join(f"{name} {counts[name]:,}" for name in self.class_names[:20])
            more = f" and {len(self.class_names) - 20} more" if len(self.class_names) > 20 else ""
            lines.append(f"  {part or 'by class'}: {listed}{more}")
        empty = sorted(set(self.class_names) - {file.class_name for file in self.files})
        if empty:
            lines.append(f"  without an image: {', '.join(empty[:20])}" + (" ..." if len(empty) > 20 else ""))
        widths, heights = [file.width for file in self.files], [file.height for file in self.files]
        lines.append(
            f"  sizes from {min(widths)}x{min(heights)} to {max(widths)}x{max(heights)}, "
            f"median {statistics.median_low(widths)}x{statistics.median_low(heights)}"
        )
        lines += [f"  {line}" for line in self._deeper()]
        if self.outside:
            lines.append(f"  {len(self.outside):,} images in no class folder, left out, such as {self.outside[0]}")
        if self.others:
            listed = ", ".join(f"{suffix} {count:,}" for suffix, count in self.others.items())
            lines.append(f"  other files, left out: {listed}")
        if self.broken:
            lines.append(f"  {len(self.broken)} broken, left out:")
            lines += [f"    {file.path}: {file.error}" for file in self.broken[:SHOWN_BROKEN]]
            if len(self.broken) > SHOWN_BROKEN:
                lines.append(f"    and {len(self.broken) - SHOWN_BROKEN} more")
        return "\n".join(map(printable, lines))

    def _deeper(self) -> list[str]:
        """A line about images that are not in their class's folder itself but in folders of it."""
        above = 2 if self.files[0].part else 1
        inner: dict[str, set[str]] = {}
        for file in self.files:
            folders = file.path.split("/")[above:-1]
            inner.setdefault(file.class_name, set()).update(folders[:1])
        deeper = {name: folders for name, folders in inner.items() if folders}
        if not deeper:
            return []
        names = sorted(set.union(*deeper.values()))
        listed = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
        line = f"{len(deeper)} classes have images in folders of their own, which are not classes: {listed}"
        alike = len(deeper) > 1 and len(names) > 1 and all(folders == set(names) for folders in deeper.values())
        return [line + ("; if these are the classes, make them the first level" if alike else "")]


def open_folder(path: str, split: str, *, image_shape: tuple[int, ...] | None, framing: str = "crop") -> Records:
    """A split of a folder of images.

    Args:
      path: Of the folder.
      split: A split expression. Without folders ``train``, ``val``, ``test`` the classes are split 80, 10, 10 %.
      image_shape: ``(height, width, channels)`` of the images; 1 channel takes them as grey.
      framing: As in :class:`~cnn_jax.data.Records`.

    Returns:
      The split, in an order that is mixed by file name, so that a slice of it is a random sample.

    Raises:
      UsageError: The folder is not like that, or has no such split.
    """
    name = f"folder:{path}"
    if image_shape is None or len(image_shape) != 3 or image_shape[-1] not in (1, 3):
        raise UsageError(f"data set {name!r}: give image_shape=(height, width, 1 or 3) to bring the images to")
    contents = scan_folder(path)
    labels = [contents.class_names.index(file.class_name) for file in contents.files]
    paths = [file.path for file in contents.files]
    if contents.files[0].part:
        order = mixed_order(paths)
        parts = np.array([file.part for file in contents.files])[order]
        members = {part: order[parts == part] for part in ("train", "validation", "test")}
    else:
        members = stratified_parts(labels, paths)
    chosen = [int(example) for example in members_of_split(name, split, members)]
    reader = FolderReader(
        str(contents.root), tuple(paths[e] for e in chosen), tuple(labels[e] for e in chosen), image_shape
    )
    identity = repr([(contents.files[e].path, contents.files[e].hash) for e in chosen])
    return Records(
        name,
        split,
        reader,
        len(chosen),
        labelled_images(image_shape, contents.class_names),
        identity,
        framing,
        report=str(contents),
        origin="folder",  # the identity has a hash of every file
        hashes=np.array([int(contents.files[e].hash, 16) for e in chosen], np.uint64),
    )


@typed
def folder_white(name: str) -> int | None:
    """The grey value that was read as white in the images of a data set; None unless it is a folder of 16 bits.

    Args:
      name: Of any data set. In a folder, the first images decide.
    """
    kind, _, path = name.partition(":")
    if kind != "folder":
        return None
    first = find_images([path])[:DEPTH_FROM]
    return 65535 if any(has_sixteen_bits(file) for file in first) else None


@dataclasses.dataclass(frozen=True)
class FolderReader:
    """Reads examples from image files; see :data:`~cnn_jax.data.records.Reader`."""

    root: str
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    image_shape: tuple[int, ...]

    def __call__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Images and labels."""
        height, width, channels = self.image_shape
        examples = []
        for index in indices:
            path = os.path.join(self.root, self.paths[index])
            try:
                with open(path, "rb") as file:
                    content = file.read()
            except OSError as error:
                raise UsageError(f"{path}: cannot be read any more: {error.strerror}") from error
            image = decode_image(content, path, channels=channels, least=max(height, width))
            examples.append({"image": image, "label": self.labels[index]})
        return examples


@typed
def scan_folder(path: str | os.PathLike[str]) -> FolderContents:
    """Checks every image of a folder of classes, or of parts of classes.

    Raises:
      UsageError: There are no classes in it, or no readable image.
    """
    root = user_path(path).absolute()
    if not str(path) or not root.is_dir():
        raise UsageError(f"data set 'folder:{path}': there is no folder {root}")
    folders = class_folders(root)
    cache, name = cache_folder("folders"), f"{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}.json"
    known = _read_index(cache / name) if cache else {}
    found: list[tuple[str, str, str]] = []
    others: Counter[str] = Counter()
    for (part, class_name), folder in folders.items():  # a class may be empty
        for file in sorted(files_in(folder)):
            if is_image(file):
                found.append((file.relative_to(root).as_posix(), part, class_name))
            else:
                others[file.suffix.lower() or "without a suffix"] += 1
    outside = [
        file.relative_to(root).as_posix()
        for folder in dict.fromkeys([root, *(folder.parent for folder in folders.values())])
        for file in listed(folder)
        if is_image(file) or not file.exists()
    ]
    seen: dict[str, list] = {}

    def check(start: int) -> int:
        chosen = found[start : start + CHECKED_AT_ONCE]
        for relative, _, _ in chosen:
            try:
                status = (root / relative).stat()
                stamp = [status.st_size, status.st_mtime_ns]
                old = known.get(relative, [])
                good = old[:2] == stamp and not old[-1]  # another version may read what this one could not
                seen[relative] = old if good else [*stamp, *_checked(root / relative)]
            except OSError as error:  # without the right to read it, or removed since it was listed
                seen[relative] = [0, 0, "", 0, 0, f"cannot be read: {error.strerror}"]
        return len(chosen)

    with showing_progress(f"checking the images of {root.name}", len(found)) as advance:
        for count in in_threads(check, range(0, len(found), CHECKED_AT_ONCE)):
            advance(count)
    if cache and seen != known:
        index = {"version": INDEX_VERSION, "folder": str(root), "files": seen}
        with contextlib.suppress(OSError):  # a full disk: nothing is kept
            write_atomically(cache / name, json.dumps(index))
    files = [File(relative, part, printable(class_name), *seen[relative][2:]) for relative, part, class_name in found]
    good, broken = [file for file in files if not file.error], [file for file in files if file.error]
    if not good:
        reasons = [f"{broken[0].path}: {broken[0].error}"] if broken else []
        reasons += [f"other files: {', '.join(others)}"] if others else []
        reason = f" ({'; '.join(reasons)})" if reasons else ""
        raise UsageError(f"data set 'folder:{path}': no images in its {len(folders)} class folders{reason}")
    class_names = tuple(sorted({printable(name) for _, name in folders}))
    return FolderContents(root, class_names, tuple(good), tuple(broken), tuple(outside), dict(sorted(others.items())))


def _checked(path: Path) -> tuple[str, int, int, str]:
    """Hash, width, height and error of a file, all of it decoded (a JPEG at an eighth: half of the time)."""
    content = path.read_bytes()
    hashed = hashlib.blake2b(content, digest_size=8).hexdigest()
    try:
        decode_image(content, path, channels=3, least=1)
        width, height = upright_size(content)
    except UsageError as error:
        return hashed, 0, 0, str(error).removeprefix(f"{path}: ")
    return hashed, width, height, ""


def _read_index(file: Path) -> dict[str, list]:
    try:
        index = json.loads(file.read_text())
        return index["files"] if index["version"] == INDEX_VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or damaged
        return {}
