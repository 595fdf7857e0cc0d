"""Figures of predicted images: the input, the truth, the prediction and the error of each."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from cnn_jax.errors import UsageError
from cnn_jax.report.figures.style import GREY, MARGIN, VERMILLION, WIDTH, as_rgb, framed, place, styled, write
from cnn_jax.typed import typed

COLUMNS = ("input", "truth", "prediction", "error")
_GAP = 0.06  # inches


@typed
@styled
def predicted_images(
    inputs: Sequence[Shaped[np.ndarray, "height width channels_before"]],
    truth: Sequence[Shaped[np.ndarray, "height width channels"]],
    predictions: Sequence[Shaped[np.ndarray, "height width channels"]],
    *,
    titles: Sequence[str],
) -> Figure:
    """Inputs beside the true images, the predicted images and their absolute differences, one row for each.

    Args:
      inputs: uint8, or from 0 to 1, as all others.
      truth: The true images.
      predictions: The predicted images.
      titles: The line above each row.

    Returns:
      A figure with four axes for each row. All errors have one scale, from white for none to the largest one.

    Raises:
      UsageError: There are no images, or their numbers or sizes differ.

    Example:
      >>> zeros = np.zeros((4, 6, 1), np.uint8)
      >>> len(predicted_images([zeros], [zeros], [zeros], titles=["test image 0"]).axes)
      4
    """
    if not len(inputs) or len({len(inputs), len(truth), len(predictions), len(titles)}) > 1:
        raise UsageError("predicted_images: give as many inputs, at least one, as truths, predictions and titles")
    rows = [[as_rgb(image) for image in row] for row in zip(inputs, truth, predictions, strict=True)]
    for row in rows:
        if len({image.shape for image in row}) > 1:
            raise UsageError(f"predicted_images: images of one row differ in size: {[image.shape for image in row]}")
    errors = [np.abs(true - predicted).mean(axis=-1, keepdims=True) for _, true, predicted in rows]
    largest = max(float(error.max()) for error in errors)
    width = (WIDTH - 2 * MARGIN - 3 * _GAP) / 4
    heights = [width * row[0].shape[0] / row[0].shape[1] for row in rows]
    head, title = 0.26, 0.24
    figure = Figure(figsize=(WIDTH, head + sum(title + height + 0.08 for height in heights) + 0.1))
    for column, name in enumerate(COLUMNS):
        text = f"{name} to {largest:.0%}" if name == "error" else name
        write(figure, MARGIN + column * (width + _GAP), 0.06, text, size=9, weight="bold")
    top = head
    for row, error, text, height in zip(rows, errors, titles, heights, strict=True):
        write(figure, MARGIN, top + 0.03, text, color=GREY, size=9)
        for column, image in enumerate([*row, 1 - error / (largest or 1) * (1 - np.array(to_rgb(VERMILLION)))]):
            axes = place(figure, MARGIN + column * (width + _GAP), top + title, width, height)
            axes.imshow(image, interpolation="nearest")
            framed(axes)
        top += title + height + 0.08
    return figure
