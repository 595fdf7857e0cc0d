"""scikit-learn's two photographs in pieces: real colour images for trying out what is meant for ImageNet."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from cnn_jax.data.records import Records, labelled_images
from cnn_jax.data.splits import members_of_split, stratified_parts
from cnn_jax.errors import UsageError

SIDE = 128  # of a piece, in pixels of the photographs, which are 640 wide and 427 high
PLACES = ("left", "middle", "right")
ROWS, COLUMNS = (0, 75, 150, 225, 299), (0, 42, 85)  # where pieces begin, within a third of a photograph
CLASS_NAMES = tuple(f"{photograph}, {place}" for photograph in ("temple", "flower") for place in PLACES)


def open_photographs(split: str, *, image_shape: tuple[int, ...] | None, framing: str) -> Records:
    """90 overlapping pieces of 128x128, 15 of each third of each photograph: which third is it from?

    Args:
      split: A split expression over ``train``, ``validation`` and ``test``, 80, 10 and 10 % of each class.
      image_shape: ``(height, width, channels)`` that the pieces are scaled to; theirs by default.
      framing: As for :func:`cnn_jax.data.open_set`.

    Raises:
      UsageError: There is no such split, or ``image_shape`` does not have three channels.

    Example:
      >>> pieces = open_photographs("train", image_shape=(64, 64, 3), framing="crop")
      >>> len(pieces), pieces.take([0])["image"].shape, pieces.class_names[0]
      (66, (1, 64, 64, 3), 'temple, left')
    """
    shape = image_shape or (SIDE, SIDE, 3)
    if len(shape) != 3 or shape[-1] != 3:
        raise UsageError(f"data set 'photographs' has colour images; input_shape={shape} must be (height, width, 3)")
    pieces = [
        (number, row, third * 213 + column)
        for number in range(2)
        for third in range(len(PLACES))
        for row in ROWS
        for column in COLUMNS
    ]
    labels = [number // (len(ROWS) * len(COLUMNS)) for number in range(len(pieces))]
    chosen = members_of_split("photographs", split, stratified_parts(labels, map(str, pieces)))
    reader = _PieceReader(tuple((*pieces[example], labels[example]) for example in chosen))
    return Records(
        "photographs",
        split,
        reader,
        len(chosen),
        labelled_images(shape, CLASS_NAMES),
        identity=repr(reader.pieces),
        framing=framing,
        hashes=np.asarray(chosen, np.uint64),
    )


@dataclasses.dataclass(frozen=True)
class _PieceReader:
    """Cuts pieces out: (photograph, row, column, label) of each."""

    pieces: tuple[tuple[int, int, int, int], ...]

    def __call__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        read = []
        for index in indices:
            number, row, column, label = self.pieces[index]
            pixels = _photographs()[number][row : row + SIDE, column : column + SIDE]
            read.append({"image": Image.fromarray(pixels), "label": label})
        return read


@functools.cache
def _photographs() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return load_sample_images().images
