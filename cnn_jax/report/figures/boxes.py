"""Figures of boxes: images with true and predicted ones, hits and misses."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnn_jax.errors import UsageError
from cnn_jax.report.figures.segmentation import class_colours
from cnn_jax.report.figures.style import (
    BLUE,
    GREY,
    MARGIN,
    OTHERS,
    VERMILLION,
    WIDTH,
    as_rgb,
    framed,
    place,
    styled,
    write,
)
from cnn_jax.typed import typed

HIT, MISSED, FALSE = OTHERS[0], VERMILLION, OTHERS[2]
BOX_LEGEND = (("found", HIT), ("missed", MISSED), ("false", FALSE))
"""What the colours of hits and misses mean."""

TRUTH, PREDICTED = OTHERS[0], BLUE
_GAP = 0.08  # inches
_LINE = 1.3  # points


class DrawnBox(NamedTuple):
    """A box of a figure.

    Attributes:
      corners: (top, left, bottom, right) in pixels of its image.
      text: Written at its top left corner; may be empty.
      colour: Of its lines.
      dashed: Whether the lines are dashed.
    """

    corners: tuple[float, ...]
    text: str
    colour: str
    dashed: bool = False


@typed
@styled
def images_with_boxes(
    images: Sequence[Shaped[np.ndarray, "height width channels"]],
    boxes: Sequence[Sequence[DrawnBox]],
    *,
    titles: Sequence[str],
    legend: Sequence[tuple[str, str]] = (),
    columns: int = 2,
) -> Figure:
    """Images in a grid, with boxes on them.

    Args:
      images: Of any sizes.
      boxes: Of each image.
      titles: The line above each image.
      legend: Pairs of a name and a colour, written below the images.
      columns: The number of images in a row.

    Returns:
      A figure with one axes for each image.

    Raises:
      UsageError: There are no images, or their numbers differ.

    Example:
      >>> box = DrawnBox((1, 1, 3, 3), "cat 90%", HIT)
      >>> len(images_with_boxes([np.zeros((4, 6, 1))], [[box]], titles=["test image 0"]).axes)
      1
    """
    if not len(images) or len({len(images), len(boxes), len(titles)}) > 1:
        raise UsageError("images_with_boxes: give as many images, at least one, as lists of boxes and titles")
    columns = min(columns, len(images))
    width = (WIDTH - 2 * MARGIN - (columns - 1) * _GAP) / columns
    rows = [range(first, min(first + columns, len(images))) for first in range(0, len(images), columns)]
    heights = [max(width * images[n].shape[0] / images[n].shape[1] for n in row) for row in rows]
    title, foot = 0.22, 0.26 if legend else 0.06
    figure = Figure(figsize=(WIDTH, sum(title + height + 0.06 for height in heights) + foot))
    top = 0.02
    for row, height in zip(rows, heights, strict=True):
        for column, number in enumerate(row):
            left = MARGIN + column * (width + _GAP)
            image = images[number]
            write(figure, left, top, titles[number], color=GREY, size=8)
            axes = place(figure, left, top + title, width, width * image.shape[0] / image.shape[1])
            axes.imshow(as_rgb(image), extent=(0, image.shape[1], image.shape[0], 0))
            for box in boxes[number]:
                draw(axes, box)
            framed(axes)
        top += title + height + 0.06
    left = MARGIN
    for name, colour in legend:
        write(figure, left, top + 0.04, "□ ", color=colour, size=9, weight="bold")
        write(figure, left + 0.16, top + 0.04, name, color=GREY, size=8)
        left += 0.36 + 0.068 * len(name)
    return figure


def draw(axes: Axes, box: DrawnBox, *, size: float | int = 6) -> None:
    """Draws one box and its text on an image.

    Args:
      axes: Of the image.
      box: The box.
      size: Of the text, in points.
    """
    top, left, bottom, right = box.corners
    style = "--" if box.dashed else "-"
    axes.add_patch(
        Rectangle(
            (left, top), right - left, bottom - top, fill=False, edgecolor=box.colour, linewidth=_LINE, linestyle=style
        )
    )
    if box.text:
        axes.text(
            left,
            top,
            box.text,
            size=size,
            color="white",
            va="bottom" if top > 8 else "top",
            clip_on=True,
            bbox={"facecolor": box.colour, "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
        )


@typed
def box_colours(count: int) -> list[str]:
    """A colour for the boxes of each class.

    >>> box_colours(2)[0]
    '#0072b2'
    """
    return [to_hex(colour) for colour in class_colours(count + 1)[1:]]


@typed
def tinted(
    image: Shaped[np.ndarray, "height width channels"],
    masks: Bool[np.ndarray, "n height width"],
    colours: Sequence[str],
) -> Float[np.ndarray, "height width 3"]:
    """An image with the pixels of masks tinted.

    Args:
      image: As :func:`images_with_boxes` takes it.
      masks: The pixels of each object; the first is on top.
      colours: Of each.

    Example:
      >>> tinted(np.zeros((1, 2, 1)), np.array([[[True, False]]]), ["#ffffff"])[0, :, 0].tolist()
      [0.5, 0.0]
    """
    shown = as_rgb(image)
    for mask, colour in reversed(list(zip(masks, colours, strict=True))):
        shown[mask] = (as_rgb(image)[mask] + to_rgb(colour)) / 2
    return shown


@typed
@styled
def overlay_of_boxes(image: Shaped[np.ndarray, "height width channels"], boxes: Sequence[DrawnBox]) -> Figure:
    """One image with boxes, with as many pixels as the image has, or twice as many of a small one.

    Args:
      image: The image.
      boxes: Its boxes.

    Example:
      >>> overlay_of_boxes(np.zeros((480, 640, 3)), []).get_size_inches().tolist()
      [6.4, 4.8]
    """
    height, width = image.shape[:2]
    scale = max(1, math.ceil(400 / max(height, width)))
    figure = Figure(figsize=(scale * width / 100, scale * height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(as_rgb(image), extent=(0, width, height, 0))
    axes.set_axis_off()
    for box in boxes:
        draw(axes, box, size=8)
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure
