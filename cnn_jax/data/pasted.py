"""Handwritten digits of any size at random places, for examples of boxes and masks with nothing to download."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from cnn_jax.data.dataset import Dataset
from cnn_jax.typed import typed


class PastedDigit(NamedTuple):
    """A digit and the place on a canvas where it is to be drawn.

    Attributes:
      place: The rows and the columns of the canvas, as slices.
      ink: How much of the place is ink, from 0 to 1, ``(side, side)``.
      pixels: Which pixels are ink: those of more than 0.5.
      box: The corners of the ink on the canvas.
      label: The class number of the digit.
    """

    place: tuple[slice, slice]
    ink: Float[np.ndarray, "side side"]
    pixels: Bool[np.ndarray, "side side"]
    box: tuple[int, int, int, int]
    label: int


@typed
def paste_digit(
    generator: np.random.Generator, digits: Dataset, *, sides: tuple[int, int], canvas: tuple[int, int]
) -> PastedDigit:
    """Chooses one of some digits, its size and its place.

    Args:
      generator: Draws all three.
      digits: Grey images of one digit each, light on black, such as ``load("digits", "train")``.
      sides: The least and the largest side that the digit is enlarged to, both included, in pixels.
      canvas: (height, width), larger than any digit. At the bottom and the right at least one pixel is left.

    Example:
      >>> from cnn_jax import data
      >>> pasted = paste_digit(np.random.default_rng(0), data.load("digits", "train"), sides=(8, 16), canvas=(32, 32))
      >>> canvas = np.zeros((32, 32))
      >>> canvas[pasted.place] = 255 * pasted.ink
    """
    chosen, side = generator.integers(len(digits)), int(generator.integers(sides[0], sides[1] + 1))
    small = Image.fromarray(digits.images[chosen, ..., 0])
    ink = (np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255).astype(np.float32)
    row, column = (int(generator.integers(0, size - side)) for size in canvas)
    pixels = ink > 0.5
    dark = np.add(np.argwhere(pixels), (row, column))
    (top, left), (bottom, right) = dark.min(axis=0).tolist(), (dark.max(axis=0) + 1).tolist()
    place = slice(row, row + side), slice(column, column + side)
    return PastedDigit(place, ink, pixels, (top, left, bottom, right), int(digits.labels[chosen]))
