"""The one look of every figure: size, type, colours, and how a picture of any number of channels is shown.

Figures are narrow, so that 10 pt type is still legible when a phone shows them 340 pixels wide, and say everything in
blue, vermillion and grey, which the colour-blind tell apart (Okabe & Ito 2002, "Color Universal Design").
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import matplotlib.style
import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

BLUE = "#0072B2"
VERMILLION = "#D55E00"
INK = "#1F2328"
GREY = "#6E7781"
HAIRLINE = "#D8DEE4"
# For the series that have no colour of their own.
OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Negative, zero, positive: in every map of signed values.
SIGNED = LinearSegmentedColormap.from_list("signed", [BLUE, "#FFFFFF", VERMILLION])

WIDTH = 4.5  # inches, of every figure
MARGIN = 0.06
FONT = "DejaVu Sans"  # comes with matplotlib: the same glyphs, and so the same bytes, everywhere

_RC = {
    "font.family": FONT,
    "text.parse_math": False,  # a name with dollars in it is a name
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
    """Runs a function under this style and matplotlib's own defaults, whatever the user's ``matplotlibrc`` says."""

    @functools.wraps(function)
    def under_style(*args: P.args, **kwargs: P.kwargs) -> T:
        with matplotlib.style.context(["default", _RC]):
            return function(*args, **kwargs)

    return under_style


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes without ticks or frame at a place given in inches from the figure's upper left corner."""
    total_width, total_height = figure.get_size_inches()
    axes = figure.add_axes(
        (left / total_width, 1 - (top + height) / total_height, width / total_width, height / total_height)
    )
    bare(axes)
    return axes


def write(figure: Figure, left: float, top: float, text: str, *, align: str = "left", **options: Any) -> None:
    """Text with its upper edge at a place given in inches from the figure's upper left corner."""
    width, height = figure.get_size_inches()
    options = {"color": INK, "size": 10, **options}
    figure.text(left / width, 1 - top / height, text, ha=align, va="top", **options)


def bare(axes: Axes) -> None:
    """Takes ticks and frame away."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def framed(axes: Axes) -> None:
    """Gives bare axes a hairline frame, for pictures whose edge may be as white as the page."""
    axes.spines[:].set_visible(True)
    axes.spines[:].set(color=HAIRLINE, linewidth=0.6)


def labelled_bar(
    axes: Axes, row: int, name: str, value: str, share: float, colour: str, *, width: float, weight: str = "normal"
) -> None:
    """A thin bar from 0 to ``share`` of the axes' width (in points), name and value above it, the name cut to fit."""
    name = fitted(name, width - text_width(value) - 6, weight=weight)
    axes.text(0, row, name, size=9, va="bottom", weight=weight)
    axes.text(1, row, value, size=9, va="bottom", ha="right", color=GREY)
    axes.barh(row + 0.1, 1, height=0.14, color=HAIRLINE)
    axes.barh(row + 0.1, share, height=0.14, color=colour)


def text_width(text: str, *, size: float | int = 9, weight: str = "normal") -> float:
    """How wide a line of text is, in points."""
    width, _, _ = text_to_path.get_text_width_height_descent(
        text, FontProperties(family=FONT, size=size, weight=weight), ismath=False
    )
    return float(width)


def fitted(name: str, width: float | int, *, size: float | int = 9, weight: str = "normal") -> str:
    """A name, cut where it is wider than ``width`` points.

    >>> fitted("owl", 72), fitted("American Staffordshire terrier", 72)
    ('owl', 'American Sta…')
    """
    if text_width(name, size=size, weight=weight) <= width:
        return name
    cuts = (name[:length].rstrip() + "…" for length in range(len(name) - 1, 0, -1))
    return next((cut for cut in cuts if text_width(cut, size=size, weight=weight) <= width), "…")


def tint(colour: str, share: float) -> tuple[float, float, float]:
    """A colour between white (share 0) and itself (share 1)."""
    red, green, blue = (1 - share * (1 - value) for value in to_rgb(colour))
    return red, green, blue


def as_rgb(image: Shaped[np.ndarray, "height width channels"]) -> Float[np.ndarray, "height width 3"]:
    """A picture as the eye expects it, in [0, 1].

    Integers span their type's range (uint8: 0 to 255) and so do bools; floats span [0, 1] when they lie in it, and
    their own range otherwise (a standardised input). One channel is grey, three are RGB; of any other number the mean.

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
