"""Reads figures back as pixels and as text."""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image


def pixels(figure: Figure) -> np.ndarray:
    """The figure as drawn, (height, width, 3) of uint8."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return np.asarray(Image.open(buffer).convert("RGB"))


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def picture(axes: Axes) -> np.ndarray:
    """The array of the only image in an axes."""
    [image] = axes.images
    return np.asarray(image.get_array())
