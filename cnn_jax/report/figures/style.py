"""The common style of all figures: size, fonts, colours, and the conversion of images to RGB.

Figures are narrow, so that 10 pt text is still legible on a phone at a width of 340 pixels. The main colours are blue,
vermillion and grey, which colour-blind readers can distinguish (Okabe & Ito 2002, "Color Universal Design").
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import matplotlib.style
import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from cnn_jax.report.formatting import shortened

BLUE = "#0072B2"
VERMILLION = "#D55E00"
INK = "#1F2328"
GREY = "#6E7781"
HAIRLINE = "#D8DEE4"
# For series without a fixed colour.
OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# The colour map for signed values: negative is blue, zero white, positive vermillion.
SIGNED = LinearSegmentedColormap.from_list("signed", [BLUE, "#FFFFFF", VERMILLION])

WIDTH = 4.5  # the width of every figure, in inches
MARGIN = 0.06  # inches
FONT = "DejaVu Sans"  # included in matplotlib, so the files have the same bytes on every machine

_RC = {
    "font.family": FONT,
    "text.parse_math": False,  # dollar signs in names are not math
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 10,
    "text.color": INK,
    "axes.labelcolor": GREY,
    "axes.edgecolor": HAIRLINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": HAIRLINE,
    "grid.linewidth": 0.6,
    "xtick.color": HAIRLINE,
    "ytick.color": HAIRLINE,
    "xtick.labelcolor": GREY,
    "ytick.labelcolor": GREY,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "image.interpolation": "nearest",
    "svg.hashsalt": "cnn_jax",
}

P = ParamSpec("P")
T = TypeVar("T")


def styled(function: Callable[P, T]) -> Callable[P, T]:
    """A decorator that applies this style and matplotlib's defaults, and ignores the user's ``matplotlibrc``."""

    @functools.wraps(function)
    def under_style(*args: P.args, **kwargs: P.kwargs) -> T:
        with matplotlib.style.context(["default", _RC]):
            return function(*args, **kwargs)

    return under_style


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Adds axes without ticks or frame, at a position in inches from the figure's upper left corner."""
    total_width, total_height = figure.get_size_inches()
    axes = figure.add_axes(
        (left / total_width, 1 - (top + height) / total_height, width / total_width, height / total_height)
    )
    bare(axes)
    return axes


def write(figure: Figure, left: float, top: float, text: str, *, align: str = "left", **options: Any) -> None:
    """Adds text, with its upper edge at a position in inches from the figure's upper left corner."""
    width, height = figure.get_size_inches()
    options = {"color": INK, "size": 10, **options}
    figure.text(left / width, 1 - top / height, text, ha=align, va="top", **options)


def bare(axes: Axes) -> None:
    """Removes ticks and frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def framed(axes: Axes) -> None:
    """Adds a thin frame to bare axes, for images whose border may be as white as the page."""
    axes.spines[:].set_visible(True)
    axes.spines[:].set(color=HAIRLINE, linewidth=0.6)


def labelled_bar(
    axes: Axes, row: int, name: str, value: str, share: float, colour: str, *, width: float, weight: str = "normal"
) -> None:
    """Draws a thin horizontal bar of length ``share`` with a name and a value above it.

    Args:
      axes: The axes, with x from 0 to 1.
      row: The vertical position.
      name: The text on the left, cut to fit.
      value: The text on the right.
      share: The length of the bar, from 0 to 1.
      colour: The colour of the bar.
      width: The width of the axes in points.
      weight: The font weight of the name.
    """
    name = fitted(name, width - text_width(value) - 6, weight=weight)
    axes.text(0, row, name, size=9, va="bottom", weight=weight)
    axes.text(1, row, value, size=9, va="bottom", ha="right", color=GREY)
    axes.barh(row + 0.1, 1, height=0.14, color=HAIRLINE)
    axes.barh(row + 0.1, share, height=0.14, color=colour)


def text_width(text: str, *, size: float | int = 9, weight: str = "normal") -> float:
    """The width of a line of text, in points."""
    width, _, _ = text_to_path.get_text_width_height_descent(
        text, FontProperties(family=FONT, size=size, weight=weight), ismath=False
    )
    return float(width)


def fitted(name: str, width: float | int, *, size: float | int = 9, weight: str = "normal") -> str:
    """Cuts a name that is wider than ``width`` points and adds an ellipsis.

    >>> fitted("owl", 72), fitted("American Staffordshire terrier", 72)
    ('owl', 'American Sta…')
    """
    return all_fitted([name], width, size=size, weight=weight)[0]


def all_fitted(names: Sequence[str], width: float | int, *, size: float | int = 9, weight: str = "normal") -> list[str]:
    """Shortens names to ``width`` points, so that different names remain different.

    >>> all_fitted(["American Staffordshire terrier", "American Staffordshire bull terrier"], 72)
    ['Americ…terrier', 'Am…bull terrier']
    """
    return shortened(names, lambda text: text_width(text, size=size, weight=weight) <= width)


def tint(colour: str, share: float) -> tuple[float, float, float]:
    """Mixes a colour with white: share 0 is white, share 1 is the colour itself."""
    red, green, blue = (1 - share * (1 - value) for value in to_rgb(colour))
    return red, green, blue


def ink_on(background: Float[np.ndarray, "3"]) -> str:
    """The colour of text on a background: dark if the background is light, and white otherwise.

    >>> ink_on(np.array(tint(BLUE, 0.1))) == INK, ink_on(np.array(tint(BLUE, 0.9)))
    (True, 'white')
    """
    return INK if background @ (0.3, 0.59, 0.11) > 0.62 else "white"


def largest_magnitude(values: Shaped[np.ndarray, "..."]) -> float:
    """The limit of a scale centred at zero: the largest finite magnitude, or 1 if all values are 0."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0)) or 1.0


def as_rgb(image: Shaped[np.ndarray, "height width channels"]) -> Float[np.ndarray, "height width 3"]:
    """Converts an image to RGB values in [0, 1] for display.

    Integers are scaled by the range of their type (uint8: 0 to 255). Bools, and floats between 0 and 1, are not scaled.
    Other floats, such as standardised inputs, are scaled by their own range. One channel is shown as grey and three as
    RGB. For any other number of channels the mean is shown as grey.

    >>> as_rgb(np.full((2, 2, 1), 51, np.uint8))[0, 0]
    array([0.2, 0.2, 0.2])
    >>> as_rgb(np.stack([np.full((1, 2), -3.0), np.full((1, 2), 5.0)], axis=-1)).shape
    (1, 2, 3)
    """
    values = np.asarray(image, np.float64)
    if np.issubdtype(image.dtype, np.integer):
        values = values / np.iinfo(image.dtype).max
    elif values.size and (np.nanmin(values) < 0 or np.nanmax(values) > 1):
        low, high = np.nanmin(values), np.nanmax(values)
        values = (values - low) / ((high - low) or 1)
    if values.shape[-1] != 3:
        values = values.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    return np.nan_to_num(values).clip(0, 1)
