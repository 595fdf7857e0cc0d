"""Split expressions, and the split of a set that comes without one."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from cnn_jax.errors import UsageError

HELD_OUT = 0.1  # of each class for validation, and as much for the test
SLICE = re.compile(r"(\w+)\[([^\]]*)\]")
LAST_PERCENT = re.compile(r"-\s*(\d+)\s*%")


def resolve_split(name: str, split: str, sizes: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """The (part, start, stop) that a TFDS split expression names, given the number of examples of every part.

    Args:
      name: The data set's, for messages.
      split: The expression, such as ``"train[:90%]+test"``.
      sizes: Part -> number of examples.

    Raises:
      UsageError: There is no such split, it is empty, or a negative percentage of a part rounds to no example.

    Example:
      >>> resolve_split("mine", "train[:50%]+test", {"train": 8, "test": 3})
      [('train', 0, 4), ('test', 0, 3)]
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.splits import AbstractSplit

    infos = {
        part: tfds.core.SplitInfo(name=part, shard_lengths=[size], num_bytes=0, filename_template=None)
        for part, size in sizes.items()
    }
    known = ", ".join(f"{part!r} ({size})" for part, size in sizes.items())
    for part, bounds in SLICE.findall(split):
        for percent in LAST_PERCENT.findall(bounds):
            # TFDS would read [-0:], which is everything: validation examples among those that are trained on.
            if int(percent) and part in sizes and round(int(percent) * sizes[part] / 100) == 0:
                raise UsageError(
                    f"data set {name!r}: split {split!r}: -{percent}% of {sizes[part]} examples is none; give a number "
                    f"of examples, such as {part}[-1:]"
                )
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
    if not all(start < stop for _, start, stop in parts):
        raise UsageError(f"data set {name!r}: split {split!r} is empty; known: {known}")
    return parts


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
    parts = resolve_split(name, split, {part: len(indices) for part, indices in members.items() if len(indices)})
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
    hashes = [hashlib.blake2b(identity.encode(), digest_size=8).digest() for identity in identities]
    return np.array(sorted(range(len(hashes)), key=lambda example: (hashes[example], example)), np.int64)


def first_line(error: Exception) -> str:
    """An exception's first line, for the inside of a message."""
    return str(error).strip().partition("\n")[0].rstrip(".: ")
