"""Figures of images: training images, the filters of a first layer, feature maps, and the worst mistakes."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Shaped
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cnn_jax.errors import UsageError
from cnn_jax.report.figures.signals import draw_signal
from cnn_jax.report.figures.style import (
    BLUE,
    GREY,
    HAIRLINE,
    MARGIN,
    SIGNED,
    VERMILLION,
    WIDTH,
    all_fitted,
    as_rgb,
    framed,
    labelled_bar,
    largest_magnitude,
    place,
    styled,
    text_width,
    write,
)
from cnn_jax.typed import typed


@typed
@styled
def rows_of_images(
    rows: Mapping[str, Shaped[Array | np.ndarray, "..."] | Sequence[Shaped[Array | np.ndarray, "..."]]],
) -> Figure:
    """Rows of small images, each row below its name.

    Args:
      rows: The name of a row -> its images, of shape (n, height, width, channels), or a list of images of several
        sizes, displayed by :func:`cnn_jax.report.figures.style.as_rgb`.

    Returns:
      A figure with one axes for each row.

    Raises:
      UsageError: There are no images, or they do not have this shape.

    Example:
      >>> figure = rows_of_images({"as stored": np.zeros((8, 28, 28, 1)), "augmented": np.zeros((8, 24, 24, 1))})
      >>> [len(axes.images) for axes in figure.axes]
      [8, 8]
    """
    images = {
        name: [_checked_image(np.asarray(image), f"rows_of_images: {name}") for image in row]
        for name, row in rows.items()
    }
    if not images or not all(images.values()):
        raise UsageError("rows_of_images: rows needs at least one row, each with at least one image")
    grids = {name: _Grid(len(row), row[0].shape[0] / row[0].shape[1]) for name, row in images.items()}
    title, gap = 0.24, 0.1
    figure = Figure(figsize=(WIDTH, sum(title + grid.height + gap for grid in grids.values())))
    top = 0.0
    for name, row in images.items():
        write(figure, MARGIN, top + 0.04, name, color=GREY, size=9)
        grids[name].draw(figure, [as_rgb(np.asarray(image)) for image in row], top=top + title)
        top += title + grids[name].height + gap
    return figure


@typed
@styled
def grid_of_images(images: Shaped[Array | np.ndarray, "rows columns height width channels"]) -> Figure:
    """Images in rows and columns, such as those that are decoded from a grid of codes.

    Args:
      images: Displayed by :func:`cnn_jax.report.figures.style.as_rgb`.

    Example:
      >>> len(grid_of_images(np.zeros((3, 4, 8, 8, 1))).axes)
      1
    """
    images = np.pad(images, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=float(np.max(images)) / 2)
    rows, columns, height, width, channels = images.shape
    joined = images.swapaxes(1, 2).reshape(rows * height, columns * width, channels)
    figure = Figure(figsize=(WIDTH, WIDTH * joined.shape[0] / joined.shape[1]))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(as_rgb(joined), interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    return figure


@typed
@styled
def filters(kernel: Shaped[Array | np.ndarray, "..."], *, max_filters: int = 64) -> Figure:
    """The filters of a first layer as images, all on the same scale, with zero in the middle.

    Args:
      kernel: The kernel, of shape (height, width, input channels, filters). With one input channel a filter is a grey
        image, with three an RGB image, and otherwise a row of grey images, one for each channel.
      max_filters: The maximum number of images. The text below says how many are left out.

    Returns:
      A figure with one axes for all images.

    Raises:
      UsageError: The kernel does not have four axes, or is empty.

    Example:
      >>> len(filters(np.ones((5, 5, 1, 6))).axes[0].images)
      6
    """
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim != 4 or kernel.size == 0:
        raise UsageError(
            f"filters: kernel has shape {kernel.shape}; it must be (height, width, input channels, filters), each at "
            f"least 1"
        )
    _require_positive("filters", max_filters=max_filters)
    height, width, channels, total = kernel.shape
    limit = largest_magnitude(kernel)
    pictures = 0.5 + 0.5 * kernel.transpose(3, 2, 0, 1) / limit  # filter, channel, row, column
    if channels == 3:
        columns, shown = None, pictures[:max_filters]
        cells = shown.transpose(0, 2, 3, 1)
    else:
        columns = None if channels == 1 else min(channels, 8)
        shown = pictures[: max(1, max_filters // (columns or 1)), :columns]
        cells = shown.reshape(-1, height, width, 1).repeat(3, axis=-1)
    grid = _Grid(len(cells), height / width, columns=columns, largest=0.7)

    figure = Figure(figsize=(WIDTH, grid.height + 0.45))
    grid.draw(figure, np.nan_to_num(cells, nan=0.5), top=0.08)
    scale = f"each channel ±{limit:.2g}, grey 0" if channels == 3 else f"black -{limit:.2g}, grey 0, white +{limit:.2g}"
    hidden = f"first {len(shown)} of {total} filters; " if len(shown) < total else ""
    if shown.shape[1] < channels:
        hidden += f"first {shown.shape[1]} of {channels} channels; "
    write(figure, MARGIN, grid.height + 0.2, hidden + scale, color=GREY, size=9)
    return figure


@typed
@styled
def feature_maps(
    image: Shaped[Array | np.ndarray, "..."],
    activations: Mapping[str, Shaped[Array | np.ndarray, "..."]],
    *,
    class_names: Sequence[str] | None = None,
    max_maps: int = 16,
) -> Figure:
    """The activations of all layers for one example.

    Blue is negative, white is zero and vermillion is positive. Each layer has its own scale, shown next to its name.

    Args:
      image: The input, of shape (height, width, channels), displayed by
        :func:`cnn_jax.report.figures.style.as_rgb`; or a signal, (length, channels), drawn as lines.
      activations: The activations by layer name, in the order of the network and without a batch axis. Those of shape
        (height, width, channels) are drawn as one image for each channel, those of shape (units,) as a strip. Of a
        signal, time runs to the right: those of shape (length, channels) are one image with a row for each channel, and
        those of shape (length, bins, channels), such as spectrograms, have high bins at the top.
      class_names: The labels of the last layer, if it is a strip with one unit for each class. They are left out if
        there is not enough room.
      max_maps: The maximum number of channels to show for each layer.

    Returns:
      A figure with one axes for the input, then one for each layer.

    Raises:
      UsageError: The image has another number of axes, or an activation has.

    Example:
      >>> maps = {"conv_1": np.ones((28, 28, 6)), "logits": np.arange(10.0)}
      >>> [len(axes.images) for axes in feature_maps(np.zeros((32, 32, 1)), maps).axes]
      [1, 6, 1]
    """
    _require_positive("feature_maps", max_maps=max_maps)
    image = np.asarray(image)
    is_signal = image.ndim == 2 and image.size > 0
    image = image if is_signal else _checked_image(image, "feature_maps: image")
    arrays = {name: np.asarray(values) for name, values in activations.items()}
    shapes = {name: values.shape for name, values in arrays.items()}
    layers = {
        name: _checked_activation(name, _over_time(values) if is_signal else values) for name, values in arrays.items()
    }
    grids = {
        name: _Grid(1, 0.18, largest=WIDTH)
        if len(shapes[name]) == 2
        else _Grid(min(values.shape[-1], max_maps), values.shape[0] / values.shape[1], largest=0.75)
        for name, values in layers.items()
        if values.ndim == 3
    }
    title, gap, strip, names_below = 0.25, 0.16, 0.26, 0.2
    aspect = 0.18 if is_signal else image.shape[0] / image.shape[1]
    picture = _Grid(1, aspect, largest=WIDTH if is_signal else 1.2)
    heights = [title + (grids[name].height if name in grids else strip) + gap for name in layers]
    total = title + picture.height + gap + sum(heights) + names_below + 0.3

    figure = Figure(figsize=(WIDTH, total))
    _title_layer(figure, 0.04, "input", image.shape, "")
    if is_signal:
        axes = place(figure, MARGIN, title, picture.cell_width, picture.cell_height)
        draw_signal(axes, image)
        framed(axes)
    else:
        picture.draw(figure, [as_rgb(image)], top=title)
    top = title + picture.height + gap
    names = all_fitted(list(layers), 180, size=10, weight="bold")
    for name, (layer, values), height in zip(names, layers.items(), heights, strict=True):
        limit = largest_magnitude(values)
        shown = f", first {max_maps} shown" if layer in grids and values.shape[-1] > max_maps else ""
        _title_layer(figure, top + 0.04, name, shapes[layer], f"{shown}, ±{limit:.2g}")
        colours: dict[str, Any] = {"cmap": SIGNED, "vmin": -limit, "vmax": limit}
        if layer in grids:
            channels = np.moveaxis(values[..., : grids[layer].cells], -1, 0)
            axes = grids[layer].draw(figure, channels, top=top + title, **colours)
        else:
            axes = place(figure, MARGIN, top + title, WIDTH - 2 * MARGIN, strip)
            axes.imshow(values[None, :], aspect="auto", **colours)
            framed(axes)
        top += height
    if layers and class_names is not None and values.shape == (len(class_names),):
        widest = max(text_width(f"{name} ", size=8) for name in class_names)
        if widest <= 72 * (WIDTH - 2 * MARGIN) / len(class_names):
            axes.set_xticks(range(len(class_names)), [str(name) for name in class_names], size=8)
            axes.tick_params(length=0, pad=2)
    write(figure, MARGIN, total - 0.24, "negative", color=BLUE, size=9)
    write(figure, MARGIN + 0.72, total - 0.24, "white 0", color=GREY, size=9)
    write(figure, MARGIN + 1.34, total - 0.24, "positive", color=VERMILLION, size=9)
    return figure


_TIMES = "\N{MULTIPLICATION SIGN}"


def _title_layer(figure: Figure, top: float, name: str, shape: tuple[int, ...], rest: str) -> None:
    write(figure, MARGIN, top, name, weight="bold")
    write(figure, WIDTH - MARGIN, top, _TIMES.join(map(str, shape)) + rest, align="right", color=GREY, size=9)


def _checked_image(image: np.ndarray, what: str) -> np.ndarray:
    if image.ndim != 3 or image.size == 0:
        raise UsageError(f"{what} has shape {image.shape}; it must be (height, width, channels), each at least 1")
    return image


def _over_time(values: np.ndarray) -> np.ndarray:
    """Activations of a signal as images whose width is time."""
    if values.ndim == 2:
        return values.T[..., np.newaxis]
    return values.transpose(1, 0, 2)[::-1] if values.ndim == 3 else values


def _checked_activation(name: str, values: np.ndarray) -> np.ndarray:
    if values.ndim not in (1, 3) or values.size == 0:
        raise UsageError(
            f"feature_maps: {name} has shape {values.shape}; it must be (height, width, channels) or (units,) for one "
            "example, each at least 1"
        )
    return values.reshape(-1) if values.shape[:-1] == (1, 1) else values


def worst_mistakes(
    labels: Shaped[np.ndarray, " n"],
    predictions: Shaped[np.ndarray, " n"],
    probabilities: Shaped[np.ndarray, "n classes"],
) -> Shaped[np.ndarray, " mistakes"]:
    """The numbers of the misclassified examples, those first whose true class has the lowest probability.

    >>> probabilities = np.array([[0.4, 0.6], [0.1, 0.9], [0.8, 0.2]])
    >>> worst_mistakes(np.array([0, 1, 1]), np.array([1, 1, 0]), probabilities).tolist()
    [2, 0]
    """
    wrong = np.flatnonzero(labels != predictions)
    return wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")]


@typed
@styled
def mistakes(
    images: Shaped[Array | np.ndarray, "..."],
    labels: Shaped[Array | np.ndarray, "..."],
    predictions: Shaped[Array | np.ndarray, "..."],
    probabilities: Shaped[Array | np.ndarray, "..."],
    class_names: Sequence[str],
    *,
    most: int = 12,
) -> Figure:
    """The misclassified examples whose true class has the lowest probability.

    Each example is shown with its index, its image, and the probabilities of the true class and of the most probable
    classes.

    Args:
      images: The images, of shape (n, height, width, channels), displayed by
        :func:`cnn_jax.report.figures.style.as_rgb`.
      labels: The true classes, of shape (n,).
      predictions: The predicted classes, of shape (n,).
      probabilities: The predicted probabilities, of shape (n, classes).
      class_names: The name of each class.
      most: The maximum number of examples.

    Returns:
      A figure with two axes for each example, for the image and the bars. If there are no mistakes, it has no axes and
      one line of text.

    Raises:
      UsageError: The shapes do not match, or a label or prediction is not the index of a class.

    Example:
      >>> figure = mistakes(np.zeros((2, 8, 8, 1)), np.array([0, 1]), np.array([1, 1]),
      ...                   np.array([[0.2, 0.8], [0.1, 0.9]]), ["cat", "dog"])
      >>> [text.get_text() for text in figure.axes[1].texts]
      ['dog', '80%', 'cat', '20%']
    """
    images, labels, predictions = np.asarray(images), np.asarray(labels), np.asarray(predictions)
    probabilities = np.asarray(probabilities, np.float64)
    n, classes = len(images), len(class_names)
    shapes = {
        "labels": (labels, (n,)),
        "predictions": (predictions, (n,)),
        "probabilities": (probabilities, (n, classes)),
    }
    for name, (values, shape) in shapes.items():
        if values.shape != shape:
            raise UsageError(
                f"mistakes: {name} has shape {values.shape}; for {n} images and {classes} classes it must be {shape}"
            )
    for name, values in {"labels": labels, "predictions": predictions}.items():
        if not np.issubdtype(values.dtype, np.integer):
            raise UsageError(f"mistakes: {name} must be whole numbers, not {values.dtype}")
        if n and not (values.min() >= 0 and values.max() < classes):
            raise UsageError(
                f"mistakes: {name} range from {values.min()} to {values.max()}, but there are {classes} class names"
            )
    _require_positive("mistakes", most=most)
    worst = worst_mistakes(labels, predictions, probabilities)[:most]
    if not worst.size:
        figure = Figure(figsize=(WIDTH, 0.5))
        write(figure, MARGIN, 0.17, f"No mistakes among {n:,} examples.")
        return figure

    _checked_image(images[0], "mistakes: each image")
    columns, row_height, picture = 2, 1.28, 0.86
    column_width = WIDTH / columns
    bars_width = column_width - picture - 0.1 - 2 * MARGIN
    height = 0.3 + row_height * math.ceil(len(worst) / columns)
    figure = Figure(figsize=(WIDTH, height))
    shown = [_shown_classes(probabilities[index], int(labels[index]), int(predictions[index])) for index in worst]
    seen = list(dict.fromkeys(itertools.chain(*shown)))
    room = 72 * bars_width - text_width("100%") - 6
    names = all_fitted([class_names[index] for index in seen], room, weight="bold")
    short = dict(zip(seen, names, strict=True))
    for position, index in enumerate(worst):
        row, column = divmod(position, columns)
        left, top = column * column_width + MARGIN, row * row_height + 0.08
        write(figure, left, top + picture + 0.04, f"#{index}", color=GREY, size=9)
        axes = place(figure, left, top, picture, picture)
        axes.imshow(as_rgb(images[index]))
        axes.set_anchor("N")
        framed(axes)
        bars = place(figure, left + picture + 0.1, top, bars_width, 1.05)
        truth, prediction = int(labels[index]), int(predictions[index])
        chances = {one: probabilities[index, one] for one in shown[position]}
        _draw_probabilities(bars, bars_width, chances, truth, prediction, short)
    write(figure, MARGIN, height - 0.24, "true class", color=BLUE, size=9, weight="bold")
    write(figure, MARGIN + 0.86, height - 0.24, "predicted class", color=VERMILLION, size=9)
    return figure


def _shown_classes(probabilities: np.ndarray, label: int, prediction: int) -> list[int]:
    """The predicted, the true, and the most probable other class, the most probable first."""
    others = [int(index) for index in np.argsort(-probabilities, kind="stable") if index not in (label, prediction)]
    return sorted([prediction, label, *others[:1]], key=lambda index: -probabilities[index])


def _draw_probabilities(
    axes: Axes, width: float, chances: Mapping[int, float], label: int, prediction: int, names: Mapping[int, str]
) -> None:
    """Bars for the probabilities of a few classes with their names."""
    for row, (index, share) in enumerate(chances.items()):
        colour = BLUE if index == label else VERMILLION if index == prediction else GREY
        weight = "bold" if index == label else "normal"
        value = f"{share:.1%}" if share < 0.1 else f"{share:.0%}"
        labelled_bar(axes, row, names[index], value, share, colour, width=72 * width, weight=weight)
    axes.set_xlim(0, 1)
    axes.set_ylim(2.3, -0.42)


class _Grid:
    """A grid of cells with the same aspect ratio, in rows as wide as the figure.

    Attributes:
      height: The height of all rows together, in inches.
    """

    def __init__(self, cells: int, aspect: float, *, columns: int | None = None, largest: float = 1.0) -> None:
        self.cells, self.gap = cells, 0.06
        self.columns = columns or min(cells, 8)
        room = (WIDTH - 2 * MARGIN - (self.columns - 1) * self.gap) / self.columns
        self.cell_width = min(room, largest, largest / aspect)
        self.cell_height = self.cell_width * aspect
        rows = math.ceil(cells / self.columns)
        self.height = rows * self.cell_height + (rows - 1) * self.gap

    def draw(self, figure: Figure, images: Iterable[np.ndarray], *, top: float, **options: Any) -> Axes:
        """Draws one image in each cell, row by row, from ``top`` inches below the figure's upper edge.

        All images share one axes, in inches: separate axes for a hundred images would take a second.
        """
        width = self.columns * (self.cell_width + self.gap) - self.gap
        axes, frames = place(figure, MARGIN, top, width, self.height), []
        for index, image in enumerate(images):
            row, column = divmod(index, self.columns)
            left, upper = column * (self.cell_width + self.gap), row * (self.cell_height + self.gap)
            extent = (left, left + self.cell_width, upper + self.cell_height, upper)
            axes.imshow(image, extent=extent, aspect="auto", **options)
            frames.append(Rectangle((left, upper), self.cell_width, self.cell_height))
        frame = PatchCollection(frames, facecolor="none", edgecolor=HAIRLINE, linewidth=0.6, clip_on=False)
        axes.add_collection(frame, autolim=False)
        axes.set(xlim=(0, width), ylim=(self.height, 0))
        return axes


def _require_positive(function: str, **most: int) -> None:
    for name, value in most.items():
        if value < 1:
            raise UsageError(f"{function}: {name}={value} must be at least 1")
