"""Kernels that differentiate (their entries add to 0): edges, lines and blobs."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from cnn_jax.errors import UsageError
from cnn_jax.filters.smoothing import at_least, axis_neighbours, outer, scale
from cnn_jax.ops.arguments import check_option, integer

LINES = {
    0: [[-1, -1, -1], [2, 2, 2], [-1, -1, -1]],
    45: [[-1, -1, 2], [-1, 2, -1], [2, -1, -1]],
    90: [[-1, 2, -1], [-1, 2, -1], [-1, 2, -1]],
    135: [[2, -1, -1], [-1, 2, -1], [-1, -1, 2]],
}


def prewitt(*, axis: int, rank: int = 2, normalized: bool = False, dtype: DTypeLike = float) -> Float[Array, "..."]:
    """The central difference along an axis, averaged over the others by ``1 1 1`` (Prewitt, 1970).

    Args:
      axis: The axis to differentiate by; with ``rank=2``, 1 finds vertical edges and 0 horizontal ones.
      rank: Number of axes.
      normalized: Divides so that a slope of 1 per pixel gives 1; by default the usual integers.
      dtype: Of the result.

    Returns:
      ``(3,) * rank``.

    Raises:
      UsageError: ``axis`` not in ``[-rank, rank)``, or ``rank`` below 1.

    >>> prewitt(axis=1)
    Array([[-1.,  0.,  1.],
           [-1.,  0.,  1.],
           [-1.,  0.,  1.]], dtype=float32)
    """
    return _smoothed_difference("prewitt", (1, 1, 1), axis, rank, normalized, dtype)


def sobel(*, axis: int, rank: int = 2, normalized: bool = False, dtype: DTypeLike = float) -> Float[Array, "..."]:
    """The central difference along an axis, averaged over the others by ``1 2 1`` (Sobel and Feldman, 1968).

    Args:
      axis: As for :func:`prewitt`, like every argument here.
      rank: Number of axes.
      normalized: Divides so that a slope of 1 per pixel gives 1.
      dtype: Of the result.

    Returns:
      ``(3,) * rank``.

    Raises:
      UsageError: As :func:`prewitt`.

    >>> sobel(axis=0)
    Array([[-1., -2., -1.],
           [ 0.,  0.,  0.],
           [ 1.,  2.,  1.]], dtype=float32)
    """
    return _smoothed_difference("sobel", (1, 2, 1), axis, rank, normalized, dtype)


def scharr(*, axis: int, rank: int = 2, normalized: bool = False, dtype: DTypeLike = float) -> Float[Array, "..."]:
    """The central difference along an axis, averaged over the others by ``3 10 3``: nearly isotropic (Scharr, 2000).

    Args:
      axis: As for :func:`prewitt`, like every argument here.
      rank: Number of axes.
      normalized: Divides so that a slope of 1 per pixel gives 1.
      dtype: Of the result.

    Returns:
      ``(3,) * rank``.

    Raises:
      UsageError: As :func:`prewitt`.

    >>> scharr(axis=1)[1]
    Array([-10.,   0.,  10.], dtype=float32)
    """
    return _smoothed_difference("scharr", (3, 10, 3), axis, rank, normalized, dtype)


def _smoothed_difference(
    op: str, average: tuple[int, ...], axis: int, rank: int, normalized: bool, dtype: DTypeLike
) -> Array:
    rank, axis = at_least(op, "rank", rank, 1), integer(f"filters.{op}", "axis", axis)
    if not -rank <= axis < rank:
        raise UsageError(f"filters.{op}: axis={axis} is none of the {rank} axes; use {-rank} to {rank - 1}")
    rows = [np.array(average, float)] * rank
    rows[axis] = np.array([-1.0, 0.0, 1.0])
    kernel = outer(rows) + 0.0  # + 0.0 turns -0.0 into 0.0
    return jnp.asarray(kernel / (2 * sum(average) ** (rank - 1)) if normalized else kernel, dtype)


def line(angle: int, *, dtype: DTypeLike = float) -> Float[Array, "3 3"]:
    """The four 3x3 detectors of lines one pixel wide.

    Args:
      angle: Direction of the line in degrees, counter-clockwise from the horizontal: 0, 45, 90 or 135.
      dtype: Of the result.

    Raises:
      UsageError: Any other angle.

    >>> line(45)
    Array([[-1., -1.,  2.],
           [-1.,  2., -1.],
           [ 2., -1., -1.]], dtype=float32)
    """
    if angle not in LINES:
        raise UsageError(f"filters.line: angle={angle!r} must be one of {', '.join(map(str, LINES))} degrees")
    return jnp.asarray(LINES[angle], dtype)


def laplacian(*, rank: int = 2, neighbours: str = "axes", dtype: DTypeLike = float) -> Float[Array, "..."]:
    """The sum of the second differences: positive in valleys, negative on peaks, like the Laplace operator.

    Lectures often print its negative, ``-1 2 -1``.

    Args:
      rank: Number of axes; ``rank=1`` is ``1 -2 1``.
      neighbours: ``'axes'`` compares with the ``2 * rank`` neighbours along the axes; ``'all'`` also with the diagonal
        ones, which for ``rank=2`` is three times the Laplace operator.
      dtype: Of the result.

    Returns:
      ``(3,) * rank``.

    Raises:
      UsageError: ``rank`` below 1, or unknown ``neighbours``.

    >>> laplacian()
    Array([[ 0.,  1.,  0.],
           [ 1., -4.,  1.],
           [ 0.,  1.,  0.]], dtype=float32)
    """
    rank = at_least("laplacian", "rank", rank, 1)
    check_option("filters.laplacian", "neighbours", neighbours, ("axes", "all"))
    kernel = axis_neighbours(rank) if neighbours == "axes" else np.ones((3,) * rank, int)
    kernel[(1,) * rank] = 0
    kernel[(1,) * rank] = -kernel.sum()
    return jnp.asarray(kernel, dtype)


def laplacian_of_gaussian(
    sigma: float | int, *, radius: int | None = None, rank: int = 2, dtype: DTypeLike = float
) -> Float[Array, "..."]:
    """The Laplacian of a normalised Gaussian, sampled: ``(r**2 / sigma**4 - rank / sigma**2) * gaussian(r)``.

    The mean is subtracted, so that a constant gives exactly nothing in spite of the cut at ``radius`` (Marr and
    Hildreth, 1980). With ``rank=1`` it is the second derivative of a Gaussian.

    Args:
      sigma: Standard deviation in pixels, above 0; from about 1 the samples are true to the function.
      radius: The window is ``2 * radius + 1`` wide; by default ``4 * sigma``, rounded.
      rank: Number of axes.
      dtype: Of the result.

    Returns:
      ``(2 * radius + 1,) * rank``; negative in the centre.

    Raises:
      UsageError: ``sigma`` not above 0, ``radius`` below 0, ``rank`` below 1.

    >>> laplacian_of_gaussian(2).shape
    (17, 17)
    """
    op = "laplacian_of_gaussian"
    rank, (sigma, radius) = at_least(op, "rank", rank, 1), scale(op, sigma, radius)
    axes = np.indices((2 * radius + 1,) * rank) - radius
    squared = (axes**2).sum(axis=0) / sigma**2
    kernel = (squared - rank) * np.exp(-squared / 2) / (sigma**2 * (2 * np.pi * sigma**2) ** (rank / 2))
    return jnp.asarray(kernel - kernel.mean(), dtype)


def laplacian_of_gaussian_section(
    sigma: float | int, *, radius: int | None = None, dtype: DTypeLike = float
) -> Float[Array, " width"]:
    """A section through the two-dimensional Mexican hat: ``(1 - i**2 / (2 sigma**2)) exp(-i**2 / (2 sigma**2))``.

    Often given as the one-dimensional Laplacian of a Gaussian, which it is not: that one, up to sign and scale, has
    ``1 - i**2 / sigma**2`` and is :func:`laplacian_of_gaussian` with ``rank=1``. This one is positive in the centre,
    has height 1 before the mean is subtracted, and crosses zero further out.

    Args:
      sigma: Standard deviation in pixels, above 0.
      radius: The window is ``2 * radius + 1`` wide; by default ``4 * sigma``, rounded.
      dtype: Of the result.

    Returns:
      ``(2 * radius + 1,)``, entries adding to 0.

    Raises:
      UsageError: ``sigma`` not above 0, or ``radius`` below 0.

    >>> [round(float(weight), 4) for weight in laplacian_of_gaussian_section(1)[4:]]
    [0.8607, 0.164, -0.2746, -0.1781, -0.1416]
    """
    sigma, radius = scale("laplacian_of_gaussian_section", sigma, radius)
    halved = np.arange(-radius, radius + 1) ** 2 / (2 * sigma**2)
    kernel = (1 - halved) * np.exp(-halved)
    return jnp.asarray(kernel - kernel.mean(), dtype)
