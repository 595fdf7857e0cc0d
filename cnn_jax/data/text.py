"""Sentences from text files: ``text:path``. A line is an example with its class; words become token numbers."""

import csv
import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from cnn_jax.data.dataset import Dataset
from cnn_jax.data.fields import Field
from cnn_jax.data.named_files import class_order, is_pattern, matching_files, part_of_file
from cnn_jax.data.splits import members_of_split, stratified_parts
from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import user_path

PADDING, UNKNOWN = 0, 1
SPECIAL = ("<padding>", "<unknown>")
"""The names of the first two tokens."""

_TOKENS = re.compile(r"n't|'(?:s|ve|re|d|ll)\b|\w+?(?=n't)|\w+|[(),!?'`]")


class Lines(NamedTuple):
    """Some sentences: their texts, their labels, and the file and the number of the line of each."""

    texts: list[str]
    labels: list[str]
    places: list[str]


def tokenize(text: str) -> list[str]:
    """The words of a text in lower case, as Kim's experiments have them.

    Contractions are split (``don't`` is ``do n't``), each of ``( ) , ! ? ' ``` is a word, and other signs are left out.
    Letters are those of Unicode, where Kim's are those of English.

    Args:
      text: A sentence.

    References:
      Kim, Convolutional neural networks for sentence classification, 2014.

    Example:
      >>> tokenize("It isn't bad, really!")
      ['it', 'is', "n't", 'bad', ',', 'really', '!']
    """
    return _TOKENS.findall(text.lower())


def vocabulary_of(texts: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The tokens of some texts, the most frequent first, after those for padding and for unknown words.

    Args:
      texts: Of each text its words.

    Example:
      >>> vocabulary_of([["a", "film"], ["a", "bad", "film"], ["film"]])
      ('<padding>', '<unknown>', 'film', 'a', 'bad')
    """
    counts = Counter(word for text in texts for word in text)
    return (*SPECIAL, *sorted(counts, key=lambda word: (-counts[word], word)))


def encode(
    texts: Sequence[Sequence[str]], vocabulary: Sequence[str], length: int
) -> tuple[Int32[np.ndarray, "n length"], Int32[np.ndarray, " n"]]:
    """Token numbers of some texts, padded with 0 or cut to a length, and how many are real.

    Args:
      texts: Of each text its words.
      vocabulary: The name of each token.
      length: Of the result.

    Example:
      >>> encode([["a", "bad", "film"], ["a"]], ("<padding>", "<unknown>", "a", "film"), 2)
      (array([[2, 1],
             [2, 0]], dtype=int32), array([2, 1], dtype=int32))
    """
    numbers = {word: number for number, word in enumerate(vocabulary)}
    tokens = np.zeros((len(texts), length), np.int32)
    counts = np.zeros(len(texts), np.int32)
    for row, text in enumerate(texts):
        known = [numbers.get(word, UNKNOWN) for word in text[:length]]
        tokens[row, : len(known)], counts[row] = known, len(known)
    return tokens, counts


def open_text(path: str, split: str, *, image_shape: tuple[int, ...] | None, train: str) -> Dataset:
    """A split of the sentences in files: the fields ``text``, ``text_count`` and ``label``.

    Args:
      path: A file with a label and a sentence in each line, separated by a tab or a blank, or in the columns of a
        ``.csv`` file; a folder with such files, whose names begin or end with ``train``, ``val``, ``test``; or a
        pattern such as ``reviews.{label}``, where all lines of a file have one class.
      split: A split expression. Without files of parts, ``train``, ``validation`` and ``test`` are 80, 10 and 10 % of
        each class.
      image_shape: ``(length,)``, to which sentences are padded or cut; None for that of the longest.
      train: The split expression whose words are the vocabulary.

    Raises:
      UsageError: A file is not like that; the message names it.
    """
    name = f"text:{path}"
    if image_shape is not None and len(image_shape) != 1:
        raise UsageError(f"data set {name!r}: input_shape={image_shape} must be (number of words,), such as (60,)")
    lines, members = _labelled_lines(name, path)
    names = class_order(lines.labels)
    labels = np.array([names.index(label) for label in lines.labels], np.int32)
    if members is None:
        members = stratified_parts(labels.tolist(), lines.places)
    words = [tokenize(text) for text in lines.texts]
    chosen = members_of_split(name, split, members)
    vocabulary = vocabulary_of(words[example] for example in members_of_split(name, train, members))
    length = image_shape[0] if image_shape else max(map(len, words))
    tokens, counts = encode([words[example] for example in chosen], vocabulary, length)
    cut = sum(len(words[example]) > length for example in chosen)
    report = f"{name}: {cut:,} of {len(chosen):,} texts of {split!r} are cut to {length} words" if cut else ""
    spec = {
        "text": Field("text", count="text_count", class_names=vocabulary),
        "text_count": Field("count"),
        "label": Field("label", class_names=names),
    }
    fields = {"text": tokens, "text_count": counts, "label": labels[chosen]}
    return Dataset(name, split, fields, spec, report)


def read_lines(file: Path) -> list[str]:
    """The lines of a text file in UTF-8, or in Latin-1 where it is not.

    Raises:
      UsageError: It cannot be read, or is empty.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error
    if b"\0" in content:
        raise UsageError(f"{file}: is no text file in UTF-8 or Latin-1")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = [line.strip() for line in text.split("\n")]  # splitlines would also split at signs within old texts
    if not any(lines):
        raise UsageError(f"{file}: is empty")
    return lines


def _labelled_lines(name: str, path: str) -> tuple[Lines, dict[str, np.ndarray] | None]:
    if is_pattern(path):
        found = [(file, fields["label"]) for file, fields in matching_files(name, path)]
        lines = Lines([], [], [])
        for file, label in found:
            _extend(lines, [(text, label, f"{file.name}:{n}") for n, text in enumerate(_of(file), 1) if text])
        return lines, None
    root = user_path(path)
    if root.is_file():
        return _labelled(name, root), None
    if not root.is_dir():
        raise UsageError(f"data set {name!r}: there is no file or folder {root}")
    files = {file: part_of_file(file) for file in sorted(root.iterdir()) if file.is_file()}
    parts = {part: file for file, part in files.items() if part}
    if "train" not in parts or len(parts) < sum(map(bool, files.values())):
        raise UsageError(
            f"data set {name!r}: the folder needs one file whose name begins or ends with 'train', and one with "
            f"'test', but has {', '.join(file.name for file in files) or 'nothing'}"
        )
    lines, members = Lines([], [], []), {}
    for part, file in parts.items():
        before = len(lines.texts)
        own = _labelled(name, file)
        _extend(lines, zip(*own, strict=True))
        members[part] = np.arange(before, len(lines.texts))
    return lines, members


def _extend(lines: Lines, found: Iterable[tuple[str, str, str]]) -> None:
    for text, label, place in found:
        lines.texts.append(text)
        lines.labels.append(label)
        lines.places.append(place)


def _of(file: Path) -> list[str]:
    status = file.stat()
    return _cached_lines(file, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _cached_lines(file: Path, size: int, modified: int) -> list[str]:
    return read_lines(file)


def _labelled(name: str, file: Path) -> Lines:
    """The sentences of a file with labels."""
    rows = [(number, line) for number, line in enumerate(_of(file), start=1) if line]
    found = Lines([], [], [])
    table = file.suffix.lower() == ".csv"
    for number, line in rows:
        label, text = _columns(line) if table else (*re.split(r"\t|\s", line, maxsplit=1), "")[:2]
        if table and number == rows[0][0] and label.lower() in ("label", "class", "target"):
            continue
        if not text.strip():
            raise UsageError(f"{file}, line {number}: has no text after the label {label[:40]!r}")
        _extend(found, [(text, label, f"{file.name}:{number}")])
    single = sum(count == 1 for count in Counter(found.labels).values())
    if 2 * single > len(found.labels):
        raise UsageError(
            f"{file}: {single:,} of {len(found.labels):,} lines begin with a word that no other line begins with, such "
            f"as {found.labels[0][:40]!r}; begin each line with its label and a tab"
        )
    return found


def _columns(line: str) -> tuple[str, str]:
    label, *others = next(csv.reader([line]), [""])
    return label.strip(), ", ".join(others)
