"""Split expressions, and the split of a set that comes without one."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from cnn_jax.errors import UsageError

HELD_OUT = 0.1  # of each class for validation, and as much for the test
SLICE = re.compile(r"([\w-]+)\[([^\]]*)\]")
BOUND = re.compile(r"(-?)([\d_.]+)(%|shard)?")

PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(
        ("validation", "valid", "validate", "validating", "val", "dev", "development", "eval"), "validation"
    ),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
"""Word for a part of a data set -> the part's name in split expressions."""

FILLERS = frozenset({"set", "sets", "split", "data", "dataset", "image", "images", "img", "imgs", "folder", "dir"})
"""Words beside that of the part in names such as ``test_set`` and ``train-images``."""


def words_of(name: str) -> list[str]:
    """The words of a name in lower case, whichever way they are put together.

    Example:
      >>> words_of("TestSet"), words_of("train-images_2")
      (['test', 'set'], ['train', 'images', '2'])
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W_]+", re.sub(rf"\b({'|'.join(PARTS)})(set|data)\b", r"\1 \2", spaced.lower()))


def part_of(name: str) -> str:
    """The part of a data set that a name stands for: ``train``, ``validation``, ``test``, or empty for none.

    Example:
      >>> part_of("Training"), part_of("valid"), part_of("test_set"), part_of("contest")
      ('train', 'validation', 'test', '')
    """
    words = [word for word in words_of(name) if word not in FILLERS]
    return PARTS.get(words[0], "") if len(words) == 1 else ""


def resolve_split(name: str, split: str, shard_lengths: Mapping[str, Sequence[int]]) -> list[tuple[str, int, int]]:
    """The (part, start, stop) that a TFDS split expression names, given the number of examples of every part.

    Args:
      name: The data set's, for messages.
      split: The expression, such as ``"train[:90%]+test"``.
      shard_lengths: Part -> number of examples in each of its files; one number where there are no files.

    Raises:
      UsageError: There is no such split, it is empty, or it would be another than it says: the last 1 % of 30 examples
        is none of them, and ``[10:50%]`` would begin at 10 %.

    Example:
      >>> resolve_split("mine", "train[:50%]+test", {"train": [8], "test": [3]})
      [('train', 0, 4), ('test', 0, 3)]
    """
    if sum(shard_lengths.get(split, ())):
        return [(split, 0, sum(shard_lengths[split]))]  # without TFDS, which takes half a second to import

    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.splits import AbstractSplit

    infos = {
        part: tfds.core.SplitInfo(name=part, shard_lengths=list(lengths), num_bytes=0, filename_template=None)
        for part, lengths in shard_lengths.items()
    }
    sizes = {part: sum(lengths) for part, lengths in shard_lengths.items()}
    known = ", ".join(f"{part!r} ({size})" for part, size in sizes.items())
    try:
        instructions = AbstractSplit.from_spec(split).to_absolute(infos)
    except (NotImplementedError, ValueError) as error:
        raise UsageError(
            f"data set {name!r}: no split {split!r} ({first_line(error)}); known: {known}, "
            "slices as 'train[:90%]', sums with '+'"
        ) from error
    parts = [
        (part.splitname, part.from_ or 0, sizes[part.splitname] if part.to is None else part.to)
        for part in instructions
    ]
    for part, bounds in SLICE.findall(split):
        _check_bounds(f"data set {name!r}: split {split!r}", part, bounds, sizes[part])
    if not all(start < stop for _, start, stop in parts):
        raise UsageError(f"data set {name!r}: split {split!r} is empty; known: {known}")
    return parts


def _check_bounds(where: str, part: str, bounds: str, size: int) -> None:
    """Rejects bounds that TFDS takes as others than they seem to be."""
    units = set()
    for start_or_stop, bound in enumerate(bounds.split(":")):
        sign, number, unit = match.groups("") if (match := BOUND.fullmatch(bound)) else ("", "", "")
        if not number:
            continue
        value = float(number)
        if value:
            units.add(unit)
        count = round(value * size / 100) if unit == "%" else value
        # [-0:] is everything: validation examples among those that are trained on. So is [:0shard].
        if count == 0 and (sign or (unit == "shard" and start_or_stop == 1)):
            raise UsageError(
                f"{where}: {bound} of {size} examples is none; give a number of examples, such as {part}[-1:]"
            )
    if len(units) > 1:  # the unit of one is taken for both
        raise UsageError(f"{where}: [{bounds}] mixes units; give both bounds as numbers of examples or both as %")


def members_of_split(name: str, split: str, members: Mapping[str, Int[np.ndarray, " _"]]) -> Int[np.ndarray, " chosen"]:
    """The examples that a split expression names, given those of every part.

    Args:
      name: The data set's, for messages.
      split: The expression, such as ``"train[:90%]+test"``.
      members: Part -> the numbers of its examples.

    Raises:
      UsageError: As :func:`resolve_split`.

    Example:
      >>> members_of_split("mine", "test+train[:1]", {"train": np.array([4, 2]), "test": np.array([0])}).tolist()
      [0, 4]
    """
    parts = resolve_split(name, split, {part: [len(indices)] for part, indices in members.items() if len(indices)})
    return np.concatenate([members[part][start:stop] for part, start, stop in parts])


def stratified_parts(labels: Sequence[int], identities: Iterable[str]) -> dict[str, Int[np.ndarray, " _"]]:
    """Train, validation and test parts of a set that has none: 80, 10 and 10 % of each class.

    The part of an example depends on the identities alone, and so does the order inside a part, which is pseudo-random:
    examples that are added later move few of the others, and a slice of a part is a random sample.

    Args:
      labels: Class numbers.
      identities: One text for each example, such as its file's name.

    Returns:
      Part -> example numbers. Of a class of one or two, all are for training.

    Example:
      >>> parts = stratified_parts([0] * 20 + [1] * 5, map(str, range(25)))
      >>> {part: len(members) for part, members in parts.items()}
      {'train': 19, 'validation': 3, 'test': 3}
    """
    order = mixed_order(identities)
    chosen: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    by_class: dict[int, list[int]] = {}
    for example in order:
        by_class.setdefault(int(labels[example]), []).append(int(example))
    for examples in by_class.values():
        held_out = max(1, round(HELD_OUT * len(examples))) if len(examples) > 2 else 0
        chosen["test"] += examples[:held_out]
        chosen["validation"] += examples[held_out : 2 * held_out]
        chosen["train"] += examples[2 * held_out :]
    place = np.argsort(order)
    return {part: np.array(sorted(examples, key=lambda e: place[e]), np.int64) for part, examples in chosen.items()}


def mixed_order(identities: Iterable[str]) -> Int[np.ndarray, " n"]:
    """A pseudo-random order of examples, by a hash of their identities."""
    named = (identity.encode(errors="surrogateescape") for identity in identities)  # files may be called anything
    hashes = [hashlib.blake2b(identity, digest_size=8).digest() for identity in named]
    return np.array(sorted(range(len(hashes)), key=lambda example: (hashes[example], example)), np.int64)


def first_line(error: Exception) -> str:
    """An exception's first line, for the inside of a message."""
    return str(error).strip().partition("\n")[0].rstrip(".: ")
