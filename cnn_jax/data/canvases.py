"""Canvases of several small images, such as digits or garments, with captions of a stated grammar.

::

  caption  = group | group relation group
  group    = "a" noun | "two" nouns | "three" nouns
  relation = "left of" | "above"

The two groups of a caption are of two different classes. The relation is the direction in which the centres of the
groups are farther apart; the group that is named first is the left or the upper one. So each canvas has one caption.

A *combination* is (class, relation, class). Those of a part of the data are held out: no training canvas has them.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from cnn_jax.data.dataset import Dataset
from cnn_jax.data.fields import Field
from cnn_jax.data.text import SPECIAL, encode
from cnn_jax.errors import UsageError, nearest
from cnn_jax.typed import typed

COUNTS = ("a", "two", "three")
RELATIONS = ("left of", "above")
SEEN = ("seen", "held_out")
"""The two classes of the field ``combination``: whether training canvases have the combination of a canvas."""

_HELD_OUT = {"test": 0.2, "validation": 0.1}  # of all combinations
_ALONE = 0.2  # of the canvases have one group
_STRAIGHT = 0.5  # the largest distance of the groups' centres across the relation, as a part of that along it


class Combination(NamedTuple):
    """Which class is where: the first one left of the second, or above it.

    Attributes:
      first: A class number.
      relation: One of :data:`RELATIONS`.
      second: Another class number.
    """

    first: int
    relation: str
    second: int


class _Item(NamedTuple):
    number: int  # of the class
    top: int
    left: int
    side: int


@typed
def combinations_of(split: str, classes: int, *, seed: int = 0) -> tuple[Combination, ...]:
    """The combinations that only one part of the data has; those of the training set also occur in the other parts.

    Args:
      split: ``"train"``, or ``"validation"`` or ``"test"``, which have 10 and 20 % of all combinations to themselves.
      classes: The number of classes.
      seed: Decides which these are.

    Raises:
      UsageError: There is no such part.

    >>> [len(combinations_of(split, 10)) for split in ("train", "validation", "test")]
    [126, 18, 36]
    """
    if split not in ("train", *_HELD_OUT):
        raise UsageError(f"canvases have no split {split!r}; {nearest(split, ('train', *_HELD_OUT))}")
    pairs = itertools.permutations(range(classes), 2)
    every = [Combination(first, relation, second) for first, second in pairs for relation in RELATIONS]
    order, start = np.random.default_rng(seed).permutation(len(every)), 0
    for part, share in _HELD_OUT.items():
        stop = start + round(share * len(every))
        if part == split:
            return tuple(every[number] for number in sorted(order[start:stop]))
        start = stop
    return tuple(every[number] for number in sorted(order[start:]))


@typed
def captioned_canvases(
    items: Dataset,
    nouns: Sequence[tuple[str, str]],
    split: str,
    *,
    count: int,
    side: int,
    item_sides: tuple[int, int],
    seed: int = 0,
) -> Dataset:
    """Square canvases with one or two groups of one to three images each, and their captions.

    Of the validation and the test canvases with two groups, half have combinations that are held out. The other half
    have those of the training canvases, of other images.

    Args:
      items: The small images with their labels, grey or colour on black, of this part of the data.
      nouns: Of each class the singular and the plural.
      split: ``"train"``, ``"validation"`` or ``"test"``.
      count: The number of canvases.
      side: Of a canvas, in pixels.
      item_sides: The smallest and the largest side of an image on a canvas; three of them fit beside each other.
      seed: Decides which combinations are held out and, with the split, what is drawn.

    Returns:
      A set with the fields ``image``, ``caption``, ``caption_count``, and ``combination``, the labels ``seen`` and
      ``held_out``, of which each canvas has one. A caption ends before the last token of its field. A canvas with one
      group counts as seen.

    Raises:
      UsageError: The nouns are not those of the classes, or the images are too large.

    Example:
      >>> from cnn_jax.data import load
      >>> names = [(name, f"{name}s") for name in "abcdefghij"]
      >>> canvases = captioned_canvases(load("digits", "test"), names, "test", count=2, side=48, item_sides=(12, 16))
      >>> canvases.image_shape, [caption_of(canvases, number) for number in range(2)]
      ((48, 48, 1), ['three cs left of a g', 'three bs'])
    """
    if len(nouns) != items.num_classes:
        raise UsageError(f"captioned_canvases: {len(nouns)} nouns for {items.num_classes} classes")
    smallest, largest = item_sides
    if not 1 <= smallest <= largest or len(COUNTS) * largest > side:
        raise UsageError(f"captioned_canvases: images of {smallest} to {largest} pixels do not fit side={side}")
    seen = combinations_of("train", len(nouns), seed=seed)
    held_out = combinations_of(split, len(nouns), seed=seed) if split != "train" else ()
    generator = np.random.default_rng([seed, ["train", *_HELD_OUT].index(split)])
    of_class = [np.flatnonzero(items.labels == number) for number in range(len(nouns))]
    images = np.zeros((count, side, side, items.image_shape[-1]), np.uint8)
    captions, new = [], np.zeros(count, bool)
    for canvas in range(count):
        if generator.random() < _ALONE:
            number = int(generator.integers(len(nouns)))
            placed = _group(generator, number, (0, 0, side, side), bool(generator.integers(2)), item_sides)
            captions.append(_phrase(placed, nouns))
        else:
            new[canvas] = bool(held_out) and generator.random() < 0.5
            among = held_out if new[canvas] else seen
            chosen = among[generator.integers(len(among))]
            groups = _two_groups(generator, chosen, side, item_sides)
            captions.append([*_phrase(groups[0], nouns), *chosen.relation.split(), *_phrase(groups[1], nouns)])
            placed = [*groups[0], *groups[1]]
        for item in placed:
            own = of_class[item.number]
            _draw(images[canvas], items.images[own[generator.integers(len(own))]], item)
    vocabulary = vocabulary_of_canvases(nouns)
    longest = 2 * (1 + max(len(noun.split()) for pair in nouns for noun in pair)) + 2
    tokens, counts = encode(captions, vocabulary, longest + 1)
    spec = {
        "image": "image",
        "caption": Field("text", count="caption_count", class_names=vocabulary),
        "caption_count": Field("count"),
        "combination": Field("labels", class_names=SEEN),
    }
    fields = {"image": images, "caption": tokens, "caption_count": counts}
    fields["combination"] = np.stack([~new, new], axis=-1).astype(np.uint8)
    return Dataset(f"canvases of {items.name}", split, fields, spec)


def vocabulary_of_canvases(nouns: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The words of the grammar after those for padding and for unknown words.

    Args:
      nouns: Of each class the singular and the plural.

    >>> vocabulary_of_canvases([("bag", "bags")])
    ('<padding>', '<unknown>', 'a', 'above', 'bag', 'bags', 'left', 'of', 'three', 'two')
    """
    words = " ".join([*COUNTS, *RELATIONS, *(noun for pair in nouns for noun in pair)]).split()
    return (*SPECIAL, *sorted(set(words)))


def caption_of(found: Dataset, number: int) -> str:
    """The caption of an example, as text."""
    names = found.spec["caption"].class_names
    return " ".join(names[token] for token in found.fields["caption"][number] if token)


def _phrase(group: Sequence[_Item], nouns: Sequence[tuple[str, str]]) -> list[str]:
    noun = nouns[group[0].number][len(group) > 1]
    return [COUNTS[len(group) - 1], *noun.split()]


def _group(
    generator: np.random.Generator,
    number: int,
    area: tuple[int, int, int, int],
    downwards: bool,
    item_sides: tuple[int, int],
) -> list[_Item]:
    """One to three images of a class in an area (top, left, height, width), one behind the other along its sides."""
    top, left, height, width = area
    sides = generator.integers(item_sides[0], item_sides[1] + 1, size=generator.integers(1, len(COUNTS) + 1))
    along, across = (height, width) if downwards else (width, height)
    gaps = np.sort(generator.integers(0, along - sides.sum() + 1, size=len(sides)))
    starts = gaps + np.cumsum(sides) - sides
    offsets = [int(generator.integers(0, across - side + 1)) for side in sides]
    places = zip(starts.tolist(), offsets, strict=True)
    corners = [(start, offset) if downwards else (offset, start) for start, offset in places]
    return [_Item(number, top + y, left + x, int(side)) for (y, x), side in zip(corners, sides, strict=True)]


def _two_groups(
    generator: np.random.Generator, chosen: Combination, side: int, item_sides: tuple[int, int]
) -> tuple[list[_Item], list[_Item]]:
    """The groups of a combination in the halves of a canvas, drawn again until they are straight enough."""
    half, beside = side // 2, chosen.relation == RELATIONS[0]
    areas = ((0, 0, side, half), (0, half, side, half)) if beside else ((0, 0, half, side), (half, 0, half, side))
    while True:
        first = _group(generator, chosen.first, areas[0], beside, item_sides)
        second = _group(generator, chosen.second, areas[1], beside, item_sides)
        down, right = np.subtract(_centre(second), _centre(first))
        along, across = (right, down) if beside else (down, right)
        if abs(across) <= _STRAIGHT * along:
            return first, second


def _centre(group: Sequence[_Item]) -> tuple[float, float]:
    down, right = np.mean([(item.top + item.side / 2, item.left + item.side / 2) for item in group], axis=0)
    return float(down), float(right)


def _draw(canvas: UInt8[np.ndarray, "height width channels"], image: UInt8[np.ndarray, "..."], item: _Item) -> None:
    """Draws an image where nothing else is."""
    drawn = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    pixels = np.asarray(drawn.resize((item.side, item.side), Image.Resampling.BICUBIC))
    rows, columns = slice(item.top, item.top + item.side), slice(item.left, item.left + item.side)
    canvas[rows, columns] = pixels.reshape(item.side, item.side, -1)
