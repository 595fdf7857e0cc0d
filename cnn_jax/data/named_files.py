"""Files whose names say what they are: patterns such as ``recordings/{label}_{speaker}_{index}.wav``, and parts."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from cnn_jax.data.images import files_in
from cnn_jax.data.splits import FILLERS, PARTS, members_of_split, stratified_parts, words_of
from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import user_path

FIELD = re.compile(r"\{(\w+)\}")


def is_pattern(path: str) -> bool:
    """Whether a path has fields in braces.

    Example:
      >>> is_pattern("recordings/{label}_{speaker}.wav"), is_pattern("recordings")
      (True, False)
    """
    return FIELD.search(path) is not None


def matching_files(name: str, pattern: str) -> list[tuple[Path, dict[str, str]]]:
    """The files that match a pattern, each with the values of its fields.

    Args:
      name: The data set's, for messages.
      pattern: A path whose ``{label}`` is the class, and whose other fields, such as ``{speaker}``, are parts of the
        set. A field and ``*`` stand for any text without a slash, the shortest that fits.

    Raises:
      UsageError: The pattern has no ``{label}`` or a field twice, there is no such folder, or no file matches.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> _ = (folder / "7_jackson_32.wav").write_bytes(b"")
      >>> [fields for _, fields in matching_files("digits", f"{folder}/{{label}}_{{speaker}}_*.wav")]
      [{'label': '7', 'speaker': 'jackson'}]
    """
    fields = FIELD.findall(pattern)
    if "label" not in fields or len(set(fields)) < len(fields):
        raise UsageError(f"data set {name!r}: the pattern needs {{label}}, the class of a file, and each field once")
    parts = pattern.split("/")
    fixed = next(place for place, part in enumerate(parts) if "{" in part or "*" in part)
    root = user_path("/".join(parts[:fixed]) or ("/" if pattern.startswith("/") else "."))
    if not root.is_dir():
        raise UsageError(f"data set {name!r}: there is no folder {root}")
    pieces = re.split(r"(\{\w+\}|\*)", "/".join(parts[fixed:]))
    regex = re.compile("".join(_piece(piece) for piece in pieces))
    found = [(file, regex.fullmatch(file.relative_to(root).as_posix())) for file in sorted(files_in(root))]
    matches = [(file, match.groupdict()) for file, match in found if match]
    if not matches:
        seen = f", such as {found[0][0].relative_to(root)}" if found else ""
        raise UsageError(f"data set {name!r}: of {len(found):,} files in {root}{seen}, none matches the pattern")
    return matches


def _piece(piece: str) -> str:
    if piece == "*":
        return "[^/]*"
    field = FIELD.fullmatch(piece)
    return f"(?P<{field[1]}>[^/]+?)" if field else re.escape(piece)


def members_by_fields(
    name: str, split: str, fields: Sequence[Mapping[str, str]], identities: Sequence[str]
) -> Int[np.ndarray, " chosen"]:
    """The examples that a split expression names, where files have fields besides their label.

    Args:
      name: The data set's, for messages.
      split: An expression over ``train``, ``validation`` and ``test``, which are 80, 10 and 10 % of each class, or over
        parts such as ``speaker-jackson``, the files whose field ``speaker`` is ``jackson``.
      fields: Of each example.
      identities: One text for each example.

    Raises:
      UsageError: There is no such split.

    Example:
      >>> fields = [{"label": "7", "speaker": "jackson"}, {"label": "7", "speaker": "lucas"}]
      >>> members_by_fields("digits", "speaker-lucas", fields, ["a", "b"]).tolist()
      [1]
    """
    parts: dict[str, list[int]] = {}
    for number, of_file in enumerate(fields):
        for field, value in of_file.items():
            if field != "label":
                parts.setdefault(re.sub(r"[^\w-]", "-", f"{field}-{value}"), []).append(number)
    if set(re.findall(r"[\w-]+", split)) & set(parts):
        return members_of_split(name, split, {part: np.array(members) for part, members in parts.items()})
    names = class_order([of_file["label"] for of_file in fields])
    members = stratified_parts([names.index(of_file["label"]) for of_file in fields], identities)
    try:
        return members_of_split(name, split, members)
    except UsageError as error:
        some = ", ".join(list(parts)[:3])
        raise UsageError(f"{error}; parts by file names: {some}, ..." if parts else str(error)) from error


def part_of_file(file: Path) -> str:
    """The part of a data set that the name of a file stands for, by its last or first word; empty for none.

    Example:
      >>> part_of_file(Path("ArrowHead_TRAIN.ts")), part_of_file(Path("test.txt")), part_of_file(Path("reviews.csv"))
      ('train', 'test', '')
    """
    words = [word for word in words_of(file.name.rpartition(".")[0] or file.name) if word not in FILLERS]
    return (PARTS.get(words[-1]) or PARTS.get(words[0]) or "") if words else ""


def class_order(labels: Sequence[str]) -> tuple[str, ...]:
    """The class names in order: numbers by value, other names by the alphabet.

    Example:
      >>> class_order(["10", "9", "9"]), class_order(["b", "a"])
      (('9', '10'), ('a', 'b'))
    """
    names = sorted(set(labels))
    return tuple(sorted(names, key=int) if all(re.fullmatch(r"-?\d+", name) for name in names) else names)
