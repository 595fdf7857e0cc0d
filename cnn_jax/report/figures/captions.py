"""Figures of captions: an image and its words, and where a network looked for each word."""

import textwrap
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from cnn_jax.errors import UsageError
from cnn_jax.report.figures.style import (
    GREY,
    MARGIN,
    VERMILLION,
    WIDTH,
    as_rgb,
    fitted,
    framed,
    place,
    styled,
    write,
)
from cnn_jax.typed import typed

_COLUMNS = 4  # of the images of one example
_GAP, _LINE = 0.06, 0.2  # inches
_STRONGEST = 0.85  # how much of its colour the cell with the most attention has


@typed
@styled
def words_with_attention(
    images: Sequence[Shaped[np.ndarray, "height width channels"]],
    words: Sequence[Sequence[str]],
    attention: Sequence[Float[np.ndarray, "_ _ _"]],
    *,
    titles: Sequence[str],
) -> Figure:
    """Images, and beside each its words with the parts of the image that count for each of them.

    Args:
      images: Of any sizes.
      words: Of each image, at least one.
      attention: Of each image a map for each word, not negative. The largest value of a word has the full colour.
      titles: The line above each image.

    Returns:
      A figure with one axes for each image and each word.

    Raises:
      UsageError: There are no images, or numbers differ.

    Example:
      >>> maps = np.ones((2, 3, 3), np.float32)
      >>> figure = words_with_attention([np.zeros((6, 6, 1))], [["a", "bag"]], [maps], titles=["test image 0"])
      >>> len(figure.axes)
      3
    """
    if not len(images) or len({len(images), len(words), len(attention), len(titles)}) > 1:
        raise UsageError("words_with_attention: give as many images, at least one, as words, attention and titles")
    for said, maps in zip(words, attention, strict=True):
        if len(said) != len(maps) or not len(said):
            raise UsageError(f"words_with_attention: {len(maps)} maps of attention for {len(said)} words, at least one")
    width = (WIDTH - 2 * MARGIN - (_COLUMNS - 1) * _GAP) / _COLUMNS
    heights = [width * image.shape[0] / image.shape[1] + _LINE for image in images]
    rows = [-(-(1 + len(said)) // _COLUMNS) for said in words]
    blocks = [_LINE + count * (height + _GAP) + 0.12 for count, height in zip(rows, heights, strict=True)]
    figure, top = Figure(figsize=(WIDTH, sum(blocks) + 0.04)), 0.04
    for image, said, maps, title, height, block in zip(images, words, attention, titles, heights, blocks, strict=True):
        write(figure, MARGIN, top, fitted(title, 72 * (WIDTH - 2 * MARGIN), size=8), color=GREY, size=8)
        shown = as_rgb(image)
        for number, word in enumerate(["", *said]):
            row, column = divmod(number, _COLUMNS)
            left, upper = MARGIN + column * (width + _GAP), top + _LINE + row * (height + _GAP)
            write(figure, left, upper + 0.03, fitted(word, 72 * width, size=8, weight="bold"), size=8, weight="bold")
            axes = place(figure, left, upper + _LINE, width, height - _LINE)
            extent = (0, image.shape[1], image.shape[0], 0)
            axes.imshow(shown, extent=extent)
            if number:
                cells = maps[number - 1]
                shares = _STRONGEST * cells / (cells.max() or 1)
                colours = np.broadcast_to(to_rgb(VERMILLION), (*cells.shape, 3))
                axes.imshow(np.concatenate([colours, shares[..., None]], axis=-1), extent=extent)
            framed(axes)
        top += block
    return figure


@typed
@styled
def captioned_image(image: Shaped[np.ndarray, "height width channels"], caption: str, details: str = "") -> Figure:
    """One image with its caption below it.

    Args:
      image: The image.
      caption: The caption; long ones take several lines.
      details: Smaller text below it, such as the probabilities of the words.

    Example:
      >>> len(captioned_image(np.zeros((6, 9, 1)), "a bag").axes)
      1
    """
    width = WIDTH - 2 * MARGIN
    height = width * image.shape[0] / image.shape[1]
    lines, smaller = textwrap.wrap(caption, 44) or [""], textwrap.wrap(details, 62)
    figure = Figure(figsize=(WIDTH, height + 0.2 * len(lines) + 0.17 * len(smaller) + 0.2))
    axes = place(figure, MARGIN, MARGIN, width, height)
    axes.imshow(as_rgb(image))
    framed(axes)
    write(figure, MARGIN, height + 0.12, "\n".join(lines), size=10)
    write(figure, MARGIN, height + 0.14 + 0.2 * len(lines), "\n".join(smaller), size=8, color=GREY)
    return figure
