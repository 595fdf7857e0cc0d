"""The standard kernels of image processing as arrays, and a function that applies them to every channel of an image.

All kernels are written for correlation, which is what ``cnn_jax.ops.conv`` computes: a derivative along an axis is
positive where the input grows along that axis. The kernels have no channel axes. :func:`apply` filters each channel.
``kernel[..., None, None]`` is a kernel for ``ops.conv`` with one channel and one feature.
"""

from cnn_jax.filters.apply import apply
from cnn_jax.filters.edges import (
    laplacian,
    laplacian_of_gaussian,
    laplacian_of_gaussian_section,
    line,
    prewitt,
    scharr,
    sobel,
)
from cnn_jax.filters.smoothing import binomial, box, canny_gaussian, gaussian, sharpen

__all__ = [
    "apply",
    "binomial",
    "box",
    "canny_gaussian",
    "gaussian",
    "laplacian",
    "laplacian_of_gaussian",
    "laplacian_of_gaussian_section",
    "line",
    "prewitt",
    "scharr",
    "sharpen",
    "sobel",
]
