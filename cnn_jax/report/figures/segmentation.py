"""Figures of class maps: images beside their true classes, the predicted ones, and the errors."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.colors import hsv_to_rgb, to_hex, to_rgb
from matplotlib.figure import Figure

from cnn_jax.errors import UsageError
from cnn_jax.report.figures.style import (
    BLUE,
    GREY,
    MARGIN,
    OTHERS,
    VERMILLION,
    WIDTH,
    all_fitted,
    as_rgb,
    framed,
    place,
    styled,
    text_width,
    write,
)
from cnn_jax.typed import typed

COLUMNS = ("image", "truth", "prediction", "errors")
_OVERLAY = 0.6  # the share of a class's colour
_GAP = 0.06  # inches
_MORE = ("#F0E442", "#7F3C8D", "#8C564B", "#17627A", "#9BB53C")  # unlike the style's colours and that of errors


def class_colours(count: int) -> Float[np.ndarray, "count 3"]:
    """A colour for each class but the first, which has none: its row is NaN.

    >>> class_colours(3)[1].round(2).tolist()
    [0.0, 0.45, 0.7]
    """
    named = [to_rgb(colour) for colour in (BLUE, OTHERS[2], OTHERS[0], OTHERS[1], OTHERS[3], *_MORE)]
    hues = np.linspace(0, 1, max(0, count - 1 - len(named)), endpoint=False)
    colours = [*named, *(hsv_to_rgb((hue, 0.9, 0.7)) for hue in hues)]
    return np.array([(math.nan,) * 3, *colours[: count - 1]])


@typed
def overlay(
    image: Shaped[np.ndarray, "height width channels"], classes: Shaped[np.ndarray, "height width"], count: int
) -> Float[np.ndarray, "height width 3"]:
    """An image with the colours of its classes; pixels of class 0, and of no class, are left as they are.

    Args:
      image: Displayed by :func:`cnn_jax.report.figures.style.as_rgb`.
      classes: Class numbers.
      count: The number of classes.

    >>> overlay(np.zeros((1, 2, 1)), np.array([[0, 1]]), 2).round(2).tolist()
    [[[0.0, 0.0, 0.0], [0.0, 0.27, 0.42]]]
    """
    shown = as_rgb(image)
    coloured = (classes > 0) & (classes < count)
    colours = class_colours(count)[np.where(coloured, classes, 0)]
    return np.where(coloured[..., None], (1 - _OVERLAY) * shown + _OVERLAY * np.nan_to_num(colours), shown)


@typed
@styled
def segmentations(
    images: Sequence[Shaped[np.ndarray, "height width channels"]],
    truth: Sequence[Shaped[np.ndarray, "height width"]],
    predictions: Sequence[Shaped[np.ndarray, "height width"]],
    class_names: Sequence[str],
    *,
    titles: Sequence[str],
    ignored: int | None = None,
) -> Figure:
    """Images beside their true classes, the predicted classes, and the errors, one row for each image.

    Args:
      images: Of any sizes.
      truth: The true class of each pixel.
      predictions: The predicted class of each pixel.
      class_names: The name of each class; the first is not coloured.
      titles: The line above each row.
      ignored: The class number of pixels that are not labelled, which are grey among the errors.

    Returns:
      A figure with four axes for each image.

    Raises:
      UsageError: There are no images, or their numbers or sizes differ.

    Example:
      >>> zeros = np.zeros((4, 6), np.uint8)
      >>> len(segmentations([zeros[..., None]], [zeros], [zeros], ["none", "cell"], titles=["test image 0"]).axes)
      4
    """
    if not len(images) or len({len(images), len(truth), len(predictions), len(titles)}) > 1:
        raise UsageError("segmentations: give as many images, at least one, as truths, predictions and titles")
    for image, true, predicted in zip(images, truth, predictions, strict=True):
        if not image.shape[:2] == true.shape == predicted.shape:
            raise UsageError(
                f"segmentations: an image of {image.shape[:2]} does not go with classes of {true.shape} and "
                f"{predicted.shape}"
            )
    width = (WIDTH - 2 * MARGIN - 3 * _GAP) / 4
    heights = [width * image.shape[0] / image.shape[1] for image in images]
    legend = _legend_rows(class_names, any((true == ignored).any() for true in truth))
    head, title = 0.26, 0.24
    figure = Figure(figsize=(WIDTH, head + sum(title + height + 0.08 for height in heights) + 0.2 * len(legend) + 0.12))
    for column, name in enumerate(COLUMNS):
        write(figure, MARGIN + column * (width + _GAP), 0.06, name, size=9, weight="bold")
    top = head
    for image, true, predicted, text, height in zip(images, truth, predictions, titles, heights, strict=True):
        write(figure, MARGIN, top + 0.03, text, color=GREY, size=9)
        shown = as_rgb(image)
        known = np.ones(true.shape, bool) if ignored is None else true != ignored
        wrong = known & (true != predicted)
        errors = 1 - 0.35 * (1 - shown.mean(axis=-1, keepdims=True).repeat(3, axis=-1))
        errors = np.where(known[..., None], errors, np.array(to_rgb(GREY)))
        errors = np.where(wrong[..., None], np.array(to_rgb(VERMILLION)), errors)
        count = len(class_names)
        pictures = (shown, overlay(image, true, count), overlay(image, predicted, count), errors)
        for column, picture in enumerate(pictures):
            axes = place(figure, MARGIN + column * (width + _GAP), top + title, width, height)
            axes.imshow(picture)
            framed(axes)
        top += title + height + 0.08
    for row in legend:
        for left, name, colour in row:
            write(figure, left, top + 0.04, "■ ", color=colour, size=9)
            write(figure, left + 0.15, top + 0.04, name, color=GREY, size=9)
        top += 0.2
    return figure


def _legend_rows(names: Sequence[str], ignored: bool) -> list[list[tuple[float, str, str]]]:
    """The entries of the legend, each with its left edge in inches, in rows."""
    colours = class_colours(len(names))
    short = all_fitted([str(name) for name in names[1:]], 72 * 1.3)
    entries = [(name, to_hex(colour)) for name, colour in zip(short, colours[1:], strict=True)]
    entries += [("error", VERMILLION), *([("not labelled", GREY)] if ignored else [])]
    rows: list[list[tuple[float, str, str]]] = [[]]
    left = MARGIN
    for name, colour in entries:
        needed = 0.15 + text_width(name) / 72 + 0.14
        if left + needed > WIDTH - MARGIN and rows[-1]:
            rows.append([])
            left = MARGIN
        rows[-1].append((left, name, colour))
        left += needed
    return rows
