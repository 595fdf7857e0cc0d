"""Classical image processing: named kernels, filtering with them, Canny's edges and histograms of oriented gradients.

All kernels are written for correlation, which is what ``cnn_jax.ops.conv`` computes: a derivative along an axis is
positive where the input grows along that axis. The kernels have no channel axes. :func:`apply` filters each channel.
``kernel[..., None, None]`` is a kernel for ``ops.conv`` with one channel and one feature. :data:`KERNELS` lists all of
them with usual arguments.
"""

from cnn_jax.filters.apply import apply
from cnn_jax.filters.canny import canny
from cnn_jax.filters.edges import (
    finite_difference,
    gabor,
    laplacian,
    laplacian_of_gaussian,
    laplacian_of_gaussian_section,
    line,
    prewitt,
    scharr,
    sobel,
)
from cnn_jax.filters.gratings import energy, grating
from cnn_jax.filters.hog import hog
from cnn_jax.filters.named import KERNELS
from cnn_jax.filters.smoothing import (
    binomial,
    box,
    canny_gaussian,
    gaussian,
    identity,
    sharpen,
    simpson,
    trapezoid,
)

__all__ = [
    "KERNELS",
    "apply",
    "binomial",
    "box",
    "canny",
    "canny_gaussian",
    "energy",
    "finite_difference",
    "gabor",
    "gaussian",
    "grating",
    "hog",
    "identity",
    "laplacian",
    "laplacian_of_gaussian",
    "laplacian_of_gaussian_section",
    "line",
    "prewitt",
    "scharr",
    "sharpen",
    "simpson",
    "sobel",
    "trapezoid",
]
