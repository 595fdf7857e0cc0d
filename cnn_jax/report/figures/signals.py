"""Figures of inputs that are no images: signals as lines, volumes as slices, videos as frames."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cnn_jax.errors import UsageError
from cnn_jax.report.figures.style import BLUE, GREY, HAIRLINE, MARGIN, OTHERS, VERMILLION, WIDTH, place, styled, write
from cnn_jax.typed import typed

_TITLE, _HEIGHT, _GAP = 0.24, 0.62, 0.08  # inches
_VIEWS = 6  # slices or frames


@typed
@styled
def signals(rows: Mapping[str, Shaped[Array | np.ndarray, "..."]], *, rate: float | None = None) -> Figure:
    """Signals below each other, each below its name, with one line for each channel.

    Args:
      rows: The name of a signal -> its values, (length, channels).
      rate: Samples per second, for the text below; None if it is not known.

    Returns:
      A figure with one axes for each signal.

    Raises:
      UsageError: There are no signals, or one does not have two axes.

    Example:
      >>> len(signals({"slow": np.zeros((40, 1)), "fast": np.ones((40, 2))}).axes)
      2
    """
    found = {name: np.asarray(values) for name, values in rows.items()}
    if not found or any(values.ndim != 2 or not values.size for values in found.values()):
        shapes = ", ".join(str(values.shape) for values in found.values())
        raise UsageError(f"signals: give at least one signal of shape (length, channels), not {shapes or 'none'}")
    figure = Figure(figsize=(WIDTH, len(found) * (_TITLE + _HEIGHT + _GAP) + 0.22))
    for number, (name, values) in enumerate(found.items()):
        top = number * (_TITLE + _HEIGHT + _GAP)
        write(figure, MARGIN, top + 0.04, name, color=GREY, size=9)
        draw_signal(place(figure, MARGIN, top + _TITLE, WIDTH - 2 * MARGIN, _HEIGHT), values)
    longest = max(len(values) for values in found.values())
    length = f"{longest:,} values" if rate is None else f"{longest / rate:.3g} s, {rate:,g} samples per second"
    write(figure, MARGIN, len(found) * (_TITLE + _HEIGHT + _GAP) + 0.02, f"width: {length}", color=GREY, size=9)
    return figure


def draw_signal(axes: Axes, values: Shaped[np.ndarray, "length channels"]) -> None:
    """Draws a signal over the width of bare axes, with a line at zero if there are values on both sides of it."""
    colours = (BLUE, VERMILLION, *OTHERS)
    if values.min() < 0 < values.max():
        axes.axhline(0, color=HAIRLINE, linewidth=0.6)
    width = 0.6 if len(values) > 1000 else 1.2
    for channel, line in enumerate(values.T):
        axes.plot(line, color=colours[channel % len(colours)], linewidth=width)
    axes.set_xlim(0, max(len(values) - 1, 1))


@typed
def views(array: Shaped[np.ndarray, "..."]) -> list[np.ndarray]:
    """Some slices of a volume, or frames of a video, at equal distances along the first axis.

    Args:
      array: (depth or frames, height, width, channels).

    Returns:
      Images, (height, width, channels).

    Example:
      >>> len(views(np.zeros((28, 28, 28, 1)))), len(views(np.zeros((4, 8, 8, 3))))
      (6, 4)
    """
    count = min(_VIEWS, len(array))
    places = (np.arange(count) + 0.5) * len(array) / count
    return [np.asarray(array[int(place)]) for place in places]
