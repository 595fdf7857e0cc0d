"""Time series from text files: ``series:path``. A line is a series with its class.

The formats are those of the UCR archive: ``.ts`` with a header, which may have several channels, and ``.tsv``,
``.txt`` and ``.csv`` with a column for the class.
"""

import csv
import dataclasses
import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from cnn_jax.data.fields import Field
from cnn_jax.data.named_files import class_order, part_of_file
from cnn_jax.data.records import Records
from cnn_jax.data.splits import members_of_split, stratified_parts
from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import user_path

SUFFIXES = (".ts", ".tsv", ".txt", ".csv")  # of several in one folder the first is read
LABEL_COLUMNS = ("label", "class", "target", "y")  # in the first line of a table

Parser = Callable[[str, str], tuple[np.ndarray, str | None]]
"""Where a line is, for messages, and the line -> its series, ``(length, channels)``, and its class where it has one.
Must be picklable, for worker processes."""


class Series(NamedTuple):
    """Some series.

    Attributes:
      values: Of each series, ``(length, channels)``.
      labels: Of each series; empty where there are none.
      lines: The number of the line of each series.
    """

    values: list[Float32[np.ndarray, "length channels"]]
    labels: list[str]
    lines: list[int]


class _Line(NamedTuple):
    """A line of a file, its number, and where it begins."""

    number: int
    offset: int
    text: str


class _Found(NamedTuple):
    """A series without its values."""

    file: Path
    parse: Parser
    line: int
    offset: int
    length: int
    channels: int
    label: str | None
    hash: int


def open_series(path: str, split: str) -> Records:
    """A split of the series in a file or a folder: the fields ``signal`` and ``label``.

    Args:
      path: A file, or a folder with files whose names end in ``_TRAIN`` and ``_TEST``, or begin with ``train``,
        ``val``, ``test``.
      split: A split expression. Of one file, ``train``, ``validation`` and ``test`` are 80, 10 and 10 % of each class.

    Raises:
      UsageError: A file is not like that; the message names the file and the line.
    """
    name = f"series:{path}"
    files = _files_of_parts(name, user_path(path))
    parts = {part: _scan(file, file.stat().st_size, file.stat().st_mtime_ns) for part, file in files.items()}
    for part, of_part in parts.items():
        if of_part[0].label is None:
            raise UsageError(
                f"data set {name!r}: {files[part]} has no labels; put the class of each series in its line"
            )
    channels = {part: of_part[0].channels for part, of_part in parts.items()}
    if len(set(channels.values())) > 1:
        raise UsageError(f"data set {name!r}: numbers of channels differ: {channels}")
    found = [series for of_part in parts.values() for series in of_part]
    labels = [series.label or "" for series in found]
    names = class_order(labels)
    if "" in parts:
        members = stratified_parts([names.index(label) for label in labels], [str(series.line) for series in found])
    else:
        ends = np.cumsum([len(of_part) for of_part in parts.values()])
        members = {part: np.arange(e - len(own), e) for (part, own), e in zip(parts.items(), ends, strict=True)}
    chosen = [found[number] for number in members_of_split(name, split, members)]
    shortest, longest = min(series.length for series in found), max(series.length for series in found)
    signal = Field("signal", (longest, found[0].channels), "float32")
    padded = f"{name}: series of {shortest} to {longest} values, padded with zeros at their ends"
    return Records(
        name,
        split,
        SeriesReader(tuple(chosen), names, longest),
        len(chosen),
        {"signal": signal, "label": Field("label", (), "int32", class_names=names)},
        identity=repr([(series.hash, series.label) for series in chosen]),
        report=padded if shortest < longest else "",
        hashes=np.array([series.hash for series in chosen], np.uint64),
    )


@dataclasses.dataclass(frozen=True)
class SeriesReader:
    """Reads lines of files by their places; see :data:`~cnn_jax.data.records.Reader`."""

    found: tuple[_Found, ...]
    names: tuple[str, ...]
    length: int

    def __call__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Series, followed by zeros up to the length of all, and their classes."""
        return [self._read(self.found[number]) for number in indices]

    def _read(self, series: _Found) -> dict[str, Any]:
        with open(series.file, "rb") as opened:
            opened.seek(series.offset)
            text = _text(opened.readline())
        values, _ = series.parse(f"{series.file}, line {series.line}", text)
        signal = np.zeros((self.length, series.channels), np.float32)
        signal[: len(values)] = values
        return {"signal": signal, "label": self.names.index(series.label)}


def read_series(file: Path, *, length: int | None = None) -> Series:
    """The series of a file.

    Args:
      file: Of one of the known formats, by its suffix.
      length: A row of a table with so many columns is a series without a class.

    Raises:
      UsageError: It is not readable; the message names the file and the line.
    """
    found = Series([], [], [])
    for line, values, label in _parsed(file, *_opened(file, length)):
        found.values.append(values)
        found.lines.append(line.number)
        found.labels.extend(() if label is None else (label,))
    return found


@functools.lru_cache(maxsize=8)
def _scan(file: Path, size: int, modified: int) -> tuple[_Found, ...]:
    """Where the series of a file are. Every line is checked, and no values are kept."""
    parse, lines = _opened(file, None)
    return tuple(
        _Found(file, parse, line.number, line.offset, len(values), values.shape[1], label, _hash(values))
        for line, values, label in _parsed(file, parse, lines)
    )


def _hash(values: np.ndarray) -> int:
    return int.from_bytes(hashlib.blake2b(values.tobytes(), digest_size=8).digest(), "big")


def _files_of_parts(name: str, path: Path) -> dict[str, Path]:
    if path.is_file():
        return {"": path}
    if not path.is_dir():
        raise UsageError(f"data set {name!r}: there is no file or folder {path}")
    for suffix in SUFFIXES:
        files = sorted(file for file in path.iterdir() if file.suffix.lower() == suffix and part_of_file(file))
        parts = {part_of_file(file): file for file in files}
        if len(parts) < len(files):
            raise UsageError(f"data set {name!r}: has several files of one part: {', '.join(f.name for f in files)}")
        if "train" in parts:
            return parts
    raise UsageError(f"data set {name!r}: has no file such as NAME_TRAIN.ts (looked for {', '.join(SUFFIXES)})")


def _opened(file: Path, length: int | None) -> tuple[Parser, Iterable[_Line]]:
    """What the lines of a file mean, by its beginning, and those that follow it."""
    lines = _lines(file)
    if file.suffix.lower() == ".ts":
        return _ts(file, lines), (line for line in lines if not line.text.startswith("#"))
    first = next(lines, None)
    if first is None:
        raise UsageError(f"{file}: has no series")
    delimiter = next((mark for mark in ("\t", ";", ",") if mark in first.text), None)
    heading = [cell.lower() for cell in _cells(first.text, delimiter)]
    column = next((heading.index(name) for name in LABEL_COLUMNS if name in heading), 0)
    is_heading = any(not _is_number(cell) for place, cell in enumerate(heading) if place != column)
    return _Row(delimiter, column, length), lines if is_heading else itertools.chain([first], lines)


def _parsed(
    file: Path, parse: Parser, lines: Iterable[_Line]
) -> Iterator[tuple[_Line, Float32[np.ndarray, "length channels"], str | None]]:
    """Each line with its series and its class."""
    channels = 0
    for line in lines:
        where = f"{file}, line {line.number}"
        values, label = parse(where, line.text)
        if channels and values.shape[1] != channels:
            raise UsageError(f"{where}: has {values.shape[1]} channels, the series before it {channels}")
        channels = values.shape[1]
        yield line, values, label
    if not channels:
        raise UsageError(f"{file}: has no series")


def _lines(file: Path) -> Iterator[_Line]:
    """The lines of a file that are not blank, one at a time."""
    if file.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{file}: is not a file of series; known are {', '.join(SUFFIXES)}")
    offset = 0
    try:
        with open(file, "rb") as opened:
            for number, line in enumerate(opened, start=1):
                text = _text(line)
                if text.strip():
                    yield _Line(number, offset, text)
                offset += len(line)
    except FileNotFoundError as error:
        raise UsageError(f"{file}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read as text: {error}") from error


def _text(line: bytes) -> str:
    return line.decode("utf-8").removeprefix("\ufeff").rstrip("\r\n")  # spreadsheets write U+FEFF first


def _ts(file: Path, lines: Iterable[_Line]) -> "_TsLine":
    """The settings of a file of aeon and sktime: ``#`` comments, then lines with ``@``, up to ``@data``."""
    settings: dict[str, list[str]] = {}
    for line in lines:
        key, *words = line.text.split()
        if key.startswith("@"):
            settings[key.lower()] = words
        if key.lower() == "@data":
            break
    else:
        raise UsageError(f"{file}: has no line @data, after which a .ts file has its series")
    if settings.get("@timestamps", ["false"])[0].lower() == "true":
        raise UsageError(f"{file}: @timeStamps true is not supported; write values at equal distances, without times")
    declared = settings.get("@classlabel", ["false"])
    return _TsLine(tuple(declared[1:]) if declared[0].lower() == "true" else None)


@dataclasses.dataclass(frozen=True)
class _TsLine:
    """A line of a .ts file: values by comma, channels by colon, and the class last."""

    classes: tuple[str, ...] | None

    def __call__(self, where: str, text: str) -> tuple[np.ndarray, str | None]:
        fields = text.strip().split(":")
        label = None if self.classes is None else fields.pop().strip()
        if self.classes is not None and (label not in self.classes or not fields):
            raise UsageError(f"{where}: its last field, {(label or '')[:40]!r}, is none of the classes of @classLabel")
        channels = [_numbers(where, field.split(",")) for field in fields]
        if len({len(channel) for channel in channels}) > 1:
            raise UsageError(f"{where}: its channels have {', '.join(str(len(c)) for c in channels)} values")
        return np.stack(channels, axis=-1), label


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row of a table: values, and the class in one column, unless the row has as many columns as a series values."""

    delimiter: str | None
    column: int
    length: int | None

    def __call__(self, where: str, text: str) -> tuple[np.ndarray, str | None]:
        cells = _cells(text, self.delimiter)
        if len(cells) < 2:
            raise UsageError(f"{where}: has {len(cells)} columns; give a class and values, by commas, tabs or blanks")
        label = None if len(cells) == self.length else _label(cells.pop(self.column))
        return _numbers(where, cells)[:, np.newaxis], label


def _cells(text: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return text.split()
    return [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter))]


def _numbers(where: str, cells: Sequence[str]) -> np.ndarray:
    try:
        numbers = np.fromiter(map(float, cells), np.float32, len(cells))
    except ValueError:
        numbers = np.full(1, np.nan, np.float32)
    if not len(numbers) or not np.isfinite(numbers).all():
        wrong = next((cell for cell in cells if not _is_number(cell)), "")
        missing = wrong.lower() in ("?", "", "nan", "na")
        reason = f"{wrong[:40]!r} is a missing value; fill it in" if missing else f"{wrong[:40]!r} is not a number"
        if re.fullmatch(r"[-+]?\d*,\d+", wrong):
            reason += "; write it with a decimal point"
        raise UsageError(f"{where}: {reason}")
    return numbers


def _is_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell)))
    except ValueError:
        return False


def _label(cell: str) -> str:
    """A class as it is written; a whole number without its fraction, as UCR's files have 1.0000000e+00."""
    if re.fullmatch(r"[-+]?\d*\.?\d*(e[-+]?\d+)?", cell, re.I) and _is_number(cell) and float(cell).is_integer():
        return str(int(float(cell)))
    return cell
