"""Figures of what a network responds to: attribution maps, strongest crops and fantasy images."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnn_jax.errors import UsageError
from cnn_jax.report.figures.style import (
    GREY,
    MARGIN,
    SIGNED,
    WIDTH,
    as_rgb,
    fitted,
    framed,
    largest_magnitude,
    place,
    styled,
    write,
)
from cnn_jax.typed import typed

Pictures = Sequence[Shaped[np.ndarray, "height width channels"]]
_GAP, _LINE = 0.06, 0.19  # inches


@typed
@styled
def attributions(images: Pictures, pictures: Mapping[str, Pictures], *, titles: Sequence[str]) -> Figure:
    """One row for each image: the image, and beside it the attribution map of each method.

    All maps of a method have the same scale, which is written above them: 0 is white, or grey for maps in colour. Maps
    are not normalised separately.

    Args:
      images: The images, each (height, width, channels), displayed by :func:`cnn_jax.report.figures.style.as_rgb`.
      pictures: Name of a method -> its map for each image. Maps with one channel are drawn from blue (negative) to
        vermillion (positive), maps with three channels in colour around grey, others as the sum of their channels.
      titles: The text above each row.

    Returns:
      A figure with one axes for each image and each map, row by row.

    Raises:
      UsageError: There are no images, or a method does not have one map for each image.

    Example:
      >>> images = [np.zeros((8, 8, 1))]
      >>> len(attributions(images, {"saliency": [np.ones((8, 8, 1))]}, titles=["a seven"]).axes)
      2
    """
    _check_counts("attributions", len(images), {"titles": titles, **pictures})
    columns = 1 + len(pictures)
    side, head = _side(columns, largest=1.2), 2 * _LINE + 0.04
    aspect = images[0].shape[0] / images[0].shape[1]
    row = _LINE + side * aspect + 0.1
    figure = Figure(figsize=(WIDTH, head + row * len(images)))
    limits = {
        name: largest_magnitude(np.stack([_shown(array) for array in arrays])) for name, arrays in pictures.items()
    }
    for column, name in enumerate(["image", *pictures]):
        left = _left(column, side)
        write(
            figure, left, 0.04, fitted(name.replace("_", " "), 72 * side, size=8, weight="bold"), size=8, weight="bold"
        )
        if name in limits:
            write(figure, left, 0.04 + _LINE, f"±{limits[name]:.2g}", color=GREY, size=8)
    for index, (image, title) in enumerate(zip(images, titles, strict=True)):
        top = head + index * row
        write(figure, MARGIN, top, fitted(title, 72 * (WIDTH - 2 * MARGIN), size=8), color=GREY, size=8)
        axes = place(figure, _left(0, side), top + _LINE, side, side * aspect)
        axes.imshow(as_rgb(image))
        framed(axes)
        for column, (name, arrays) in enumerate(pictures.items(), start=1):
            axes = place(figure, _left(column, side), top + _LINE, side, side * aspect)
            _draw(axes, _shown(arrays[index]), limits[name])
    return figure


@typed
@styled
def strongest_crops(channels: Mapping[str, tuple[Pictures, Pictures]]) -> Figure:
    """The crops that each channel responds to most, and below each crop its attribution map.

    Args:
      channels: Name of a channel -> its crops, the strongest first, and their maps of the same size. The maps of one
        channel have the same scale.

    Returns:
      A figure with one axes for each crop and each map: for each channel the crops, then the maps.

    Raises:
      UsageError: There are no crops, or not one map for each crop.

    Example:
      >>> crops = [np.zeros((5, 5, 1))] * 3
      >>> len(strongest_crops({"c1/0": (crops, crops)}).axes)
      6
    """
    most = max((len(crops) for crops, _ in channels.values()), default=0)
    for name, (crops, pictures) in channels.items():
        _check_counts(f"strongest_crops: {name}", len(crops), {"pictures": pictures})
    if not most:
        raise UsageError("strongest_crops: there are no crops")
    side = _side(most, largest=0.62)
    block = _LINE + 2 * side + _GAP + 0.14
    figure = Figure(figsize=(WIDTH, block * len(channels) + 0.04))
    for index, (name, (crops, pictures)) in enumerate(channels.items()):
        top = 0.04 + index * block
        write(figure, MARGIN, top, name, size=8, weight="bold")
        limit = max(largest_magnitude(_shown(array)) for array in pictures)
        write(figure, WIDTH - MARGIN, top, f"±{limit:.2g}", align="right", color=GREY, size=8)
        for column, crop in enumerate(crops):
            axes = place(figure, _left(column, side), top + _LINE, side, side)
            axes.imshow(as_rgb(crop))
            framed(axes)
        for column, picture in enumerate(pictures):
            _draw(place(figure, _left(column, side), top + _LINE + side + _GAP, side, side), _shown(picture), limit)
    return figure


@typed
@styled
def gallery(
    images: Sequence[Shaped[np.ndarray, "..."]],
    titles: Sequence[str],
    *,
    columns: int = 5,
    largest: float | int = 1.2,
) -> Figure:
    """Images in rows with a title above each, such as the fantasy images of all classes.

    Args:
      images: The images, each (height, width, channels), displayed by :func:`cnn_jax.report.figures.style.as_rgb`.
      titles: The title of each image.
      columns: The number of images in a row.
      largest: The width of an image in inches, if there is room.

    Returns:
      A figure with one axes for each image.

    Raises:
      UsageError: There are no images, or not one title for each image.

    Example:
      >>> len(gallery([np.zeros((8, 8, 1))] * 3, ["0", "1", "2"]).axes)
      3
    """
    _check_counts("gallery", len(images), {"titles": titles})
    columns = min(columns, len(images))
    side = _side(columns, largest=largest)
    row = _LINE + side * images[0].shape[0] / images[0].shape[1] + 0.08
    figure = Figure(figsize=(WIDTH, row * -(-len(images) // columns) + 0.04))
    for index, (image, title) in enumerate(zip(images, titles, strict=True)):
        (down, across), top = divmod(index, columns), 0.04
        left, top = _left(across, side), top + down * row
        write(figure, left, top, fitted(title, 72 * side, size=8), size=8)
        axes = place(figure, left, top + _LINE, side, row - _LINE - 0.08)
        axes.imshow(as_rgb(image))
        framed(axes)
    return figure


def _side(columns: int, *, largest: float | int) -> float:
    return min(largest, (WIDTH - 2 * MARGIN - (columns - 1) * _GAP) / columns)


def _left(column: int, side: float) -> float:
    return MARGIN + column * (side + _GAP)


def _shown(picture: Shaped[np.ndarray, "height width channels"]) -> Shaped[np.ndarray, "height width channels"]:
    """A map as it is drawn: with one or three channels, otherwise the sum of the channels."""
    picture = np.asarray(picture, np.float64)
    return picture if picture.shape[-1] in (1, 3) else picture.sum(axis=-1, keepdims=True)


def _draw(axes: Axes, picture: np.ndarray, limit: float) -> None:
    if picture.shape[-1] == 3:
        axes.imshow(np.nan_to_num(0.5 + 0.5 * picture / limit, nan=0.5).clip(0, 1))
    else:
        axes.imshow(picture[..., 0], cmap=SIGNED, vmin=-limit, vmax=limit)
    framed(axes)


def _check_counts(function: str, count: int, parts: Mapping[str, Sequence[object]]) -> None:
    if not count:
        raise UsageError(f"{function}: there are no images")
    for name, values in parts.items():
        if len(values) != count:
            raise UsageError(f"{function}: {name} has {len(values)} entries for {count} images")
