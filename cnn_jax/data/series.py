"""Time series from text files: ``series:path``. A line is a series with its class.

The formats are those of the UCR archive: ``.ts`` with a header, which may have several channels, and ``.tsv``,
``.txt`` and ``.csv`` with a column for the class.
"""

import csv
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from cnn_jax.data.dataset import Dataset
from cnn_jax.data.fields import Field
from cnn_jax.data.named_files import class_order, part_of_file
from cnn_jax.data.splits import members_of_split, stratified_parts
from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import user_path

SUFFIXES = (".ts", ".tsv", ".txt", ".csv")  # of several in one folder the first is read
LABEL_COLUMNS = ("label", "class", "target", "y")  # in the first line of a table


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


def open_series(path: str, split: str) -> Dataset:
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
    parts = {part: _read(file, file.stat().st_size, file.stat().st_mtime_ns) for part, file in files.items()}
    for part, series in parts.items():
        if not series.labels:
            raise UsageError(
                f"data set {name!r}: {files[part]} has no labels; put the class of each series in its line"
            )
    values = [series for of_part in parts.values() for series in of_part.values]
    labels = [label for of_part in parts.values() for label in of_part.labels]
    channels = {part: series.values[0].shape[1] for part, series in parts.items()}
    if len(set(channels.values())) > 1:
        raise UsageError(f"data set {name!r}: numbers of channels differ: {channels}")
    names = class_order(labels)
    lengths = [len(series) for series in values]
    signals = np.zeros((len(values), max(lengths), values[0].shape[1]), np.float32)
    for signal, one in zip(signals, values, strict=True):
        signal[: len(one)] = one
    numbers = np.array([names.index(label) for label in labels], np.int32)
    if "" in parts:
        members = stratified_parts(numbers.tolist(), map(str, parts[""].lines))
    else:
        ends = np.cumsum([len(series.values) for series in parts.values()])
        members = {part: np.arange(e - len(s.values), e) for (part, s), e in zip(parts.items(), ends, strict=True)}
    chosen = members_of_split(name, split, members)
    report = ""
    if min(lengths) < max(lengths):
        report = f"{name}: series of {min(lengths)} to {max(lengths)} values, padded with zeros at their ends"
    spec = {"signal": Field("signal"), "label": Field("label", class_names=names)}
    return Dataset(name, split, {"signal": signals[chosen], "label": numbers[chosen]}, spec, report)


def read_series(file: Path, *, length: int | None = None) -> Series:
    """The series of a file.

    Args:
      file: Of one of the known formats, by its suffix.
      length: A row of a table with so many columns is a series without a class.

    Raises:
      UsageError: It is not readable; the message names the file and the line.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{file}: is not a file of series; known are {', '.join(SUFFIXES)}")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise UsageError(f"{file}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read as text: {error}") from error
    found = _ts(file, lines) if file.suffix.lower() == ".ts" else _table(file, lines, length)
    if not found.values:
        raise UsageError(f"{file}: has no series")
    return found


@functools.lru_cache(maxsize=8)
def _read(file: Path, size: int, modified: int) -> Series:
    return read_series(file)


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


def _ts(file: Path, lines: Sequence[str]) -> Series:
    """The format of aeon and sktime: ``#`` comments, ``@`` settings, then values by comma and channels by colon."""
    settings: dict[str, list[str]] = {}
    begin = None
    for number, line in enumerate(lines, start=1):
        key, *words = line.strip().split() or [""]
        if key.startswith("@"):
            settings[key.lower()] = words
        if key.lower() == "@data":
            begin = number
            break
    if begin is None:
        raise UsageError(f"{file}: has no line @data, after which a .ts file has its series")
    if settings.get("@timestamps", ["false"])[0].lower() == "true":
        raise UsageError(f"{file}: @timeStamps true is not supported; write values at equal distances, without times")
    declared = settings.get("@classlabel", ["false"])
    labelled, known = declared[0].lower() == "true", declared[1:]
    values: list[np.ndarray] = []
    labels: list[str] = []
    numbers: list[int] = []
    for number, line in enumerate(lines[begin:], start=begin + 1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{file}, line {number}"
        fields = line.strip().split(":")
        label = fields.pop().strip() if labelled else ""
        if labelled and (label not in known or not fields):
            raise UsageError(f"{where}: its last field, {label[:40]!r}, is none of the classes of @classLabel")
        channels = [_numbers(where, field.split(",")) for field in fields]
        if len({len(channel) for channel in channels}) > 1:
            raise UsageError(f"{where}: its channels have {', '.join(str(len(c)) for c in channels)} values")
        _append(where, values, np.stack(channels, axis=-1))
        labels += [label] if labelled else []
        numbers.append(number)
    return Series(values, labels, numbers)


def _table(file: Path, lines: Sequence[str], length: int | None) -> Series:
    """One series per row; the class in the first column, or in the one that the first line calls so."""
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        return Series([], [], [])
    first = numbered[0][1]
    delimiter = next((mark for mark in ("\t", ",", ";") if mark in first), None)
    rows = [
        (
            number,
            line.split()
            if delimiter is None
            else [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))],
        )
        for number, line in numbered
    ]
    heading = [cell.lower() for cell in rows[0][1]]
    column = next((heading.index(name) for name in LABEL_COLUMNS if name in heading), 0)
    if any(not _is_number(cell) for place, cell in enumerate(heading) if place != column):
        rows = rows[1:]
    values: list[np.ndarray] = []
    labels: list[str] = []
    numbers: list[int] = []
    for number, cells in rows:
        where = f"{file}, line {number}"
        if len(cells) < 2:
            raise UsageError(f"{where}: has {len(cells)} columns; give a class and values, by commas, tabs or blanks")
        if len(cells) != length:
            labels.append(_label(cells.pop(column)))
        _append(where, values, _numbers(where, cells)[:, np.newaxis])
        numbers.append(number)
    return Series(values, labels, numbers)


def _append(where: str, values: list[np.ndarray], series: np.ndarray) -> None:
    if values and series.shape[1] != values[0].shape[1]:
        raise UsageError(f"{where}: has {series.shape[1]} channels, the series before it {values[0].shape[1]}")
    values.append(series)


def _numbers(where: str, cells: Sequence[str]) -> np.ndarray:
    try:
        numbers = np.array(cells, np.float32)
    except ValueError:
        numbers = np.full(1, np.nan, np.float32)
    if not len(numbers) or not np.isfinite(numbers).all():
        wrong = next((cell for cell in cells if not _is_number(cell)), "")
        missing = wrong.lower() in ("?", "", "nan", "na")
        reason = f"{wrong[:40]!r} is a missing value; fill it in" if missing else f"{wrong[:40]!r} is not a number"
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
