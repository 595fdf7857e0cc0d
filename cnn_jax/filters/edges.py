"""Kernels that differentiate, for edges, lines and blobs. Their entries sum to 0."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from cnn_jax.errors import UsageError
from cnn_jax.filters.smoothing import axis_neighbours, outer, scale
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
      axis: The axis of the derivative; with ``rank=2``, 1 finds vertical edges and 0 finds horizontal edges.
      rank: The number of axes.
      normalized: Whether to scale the kernel so that a slope of 1 per pixel gives 1. By default the entries are the
        usual integers.
      dtype: The dtype of the result.

    Returns:
      An array of shape ``(3,) * rank``.

    Raises:
      UsageError: ``axis`` is not in ``[-rank, rank)``, or ``rank`` is below 1.

    >>> prewitt(axis=1)
    Array([[-1.,  0.,  1.],
           [-1.,  0.,  1.],
           [-1.,  0.,  1.]], dtype=float32)
    """
    return _smoothed_difference("filters.prewitt", (1, 1, 1), axis, rank, normalized, dtype)


def sobel(*, axis: int, rank: int = 2, normalized: bool = False, dtype: DTypeLike = float) -> Float[Array, "..."]:
    """The central difference along an axis, averaged over the others by ``1 2 1`` (Sobel and Feldman, 1968).

    Args:
      axis: The axis of the derivative; with ``rank=2``, 1 finds vertical edges and 0 finds horizontal edges.
      rank: The number of axes.
      normalized: Whether to scale the kernel so that a slope of 1 per pixel gives 1.
      dtype: The dtype of the result.

    Returns:
      An array of shape ``(3,) * rank``.

    Raises:
      UsageError: See :func:`prewitt`.

    >>> sobel(axis=0)
    Array([[-1., -2., -1.],
           [ 0.,  0.,  0.],
           [ 1.,  2.,  1.]], dtype=float32)
    """
    return _smoothed_difference("filters.sobel", (1, 2, 1), axis, rank, normalized, dtype)


def scharr(*, axis: int, rank: int = 2, normalized: bool = False, dtype: DTypeLike = float) -> Float[Array, "..."]:
    """The central difference along an axis, averaged over the others by ``3 10 3``: nearly isotropic (Scharr, 2000).

    Args:
      axis: The axis of the derivative; with ``rank=2``, 1 finds vertical edges and 0 finds horizontal edges.
      rank: The number of axes.
      normalized: Whether to scale the kernel so that a slope of 1 per pixel gives 1.
      dtype: The dtype of the result.

    Returns:
      An array of shape ``(3,) * rank``.

    Raises:
      UsageError: See :func:`prewitt`.

    >>> scharr(axis=1)[1]
    Array([-10.,   0.,  10.], dtype=float32)
    """
    return _smoothed_difference("filters.scharr", (3, 10, 3), axis, rank, normalized, dtype)


def _smoothed_difference(
    op: str, average: tuple[int, ...], axis: int, rank: int, normalized: bool, dtype: DTypeLike
) -> Array:
    rank, axis = integer(op, "rank", rank, least=1), integer(op, "axis", axis)
    if not -rank <= axis < rank:
        raise UsageError(f"{op}: axis={axis} is not one of the {rank} axes; use {-rank} to {rank - 1}")
    rows = [np.array(average, float)] * rank
    rows[axis] = np.array([-1.0, 0.0, 1.0])
    kernel = outer(rows) + 0.0  # + 0.0 turns -0.0 into 0.0
    return jnp.asarray(kernel / (2 * sum(average) ** (rank - 1)) if normalized else kernel, dtype)


def line(angle: int, *, dtype: DTypeLike = float) -> Float[Array, "3 3"]:
    """A 3x3 detector of lines that are one pixel wide.

    Args:
      angle: The direction of the line in degrees, counter-clockwise from the horizontal: 0, 45, 90 or 135.
      dtype: The dtype of the result.

    Returns:
      An array of shape ``(3, 3)``.

    Raises:
      UsageError: The angle is not one of the four.

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

    Textbooks often show its negative, ``-1 2 -1``.

    Args:
      rank: The number of axes; ``rank=1`` is ``1 -2 1``.
      neighbours: ``'axes'`` uses the ``2 * rank`` neighbours along the axes. ``'all'`` also uses the diagonal
        neighbours, which for ``rank=2`` gives three times the Laplace operator.
      dtype: The dtype of the result.

    Returns:
      An array of shape ``(3,) * rank``.

    Raises:
      UsageError: ``rank`` is below 1, or ``neighbours`` is unknown.

    >>> laplacian()
    Array([[ 0.,  1.,  0.],
           [ 1., -4.,  1.],
           [ 0.,  1.,  0.]], dtype=float32)
    """
    op = "filters.laplacian"
    rank = integer(op, "rank", rank, least=1)
    check_option(op, "neighbours", neighbours, ("axes", "all"))
    kernel = axis_neighbours(rank) if neighbours == "axes" else np.ones((3,) * rank, int)
    kernel[(1,) * rank] = 0
    kernel[(1,) * rank] = -kernel.sum()
    return jnp.asarray(kernel, dtype)


def laplacian_of_gaussian(
    sigma: float | int, *, radius: int | None = None, rank: int = 2, dtype: DTypeLike = float
) -> Float[Array, "..."]:
    """The Laplacian of a normalised Gaussian, sampled: ``(r**2 / sigma**4 - rank / sigma**2) * gaussian(r)``.

    The mean is subtracted, so that a constant input gives exactly 0 despite the truncation at ``radius`` (Marr and
    Hildreth, 1980). With ``rank=1`` it is the second derivative of a Gaussian.

    Args:
      sigma: The standard deviation in pixels, above 0. From about 1 on, the samples represent the function well.
      radius: The radius of the window in pixels; its width is ``2 * radius + 1``. The default is ``4 * sigma``,
        rounded.
      rank: The number of axes.
      dtype: The dtype of the result.

    Returns:
      An array of shape ``(2 * radius + 1,) * rank``; it is negative in the centre.

    Raises:
      UsageError: ``sigma`` is not above 0, ``radius`` is below 0, or ``rank`` is below 1.

    >>> laplacian_of_gaussian(2).shape
    (17, 17)
    """
    op = "filters.laplacian_of_gaussian"
    rank, (sigma, radius) = integer(op, "rank", rank, least=1), scale(op, sigma, radius)
    axes = np.indices((2 * radius + 1,) * rank) - radius
    squared = (axes**2).sum(axis=0) / sigma**2
    kernel = (squared - rank) * np.exp(-squared / 2) / (sigma**2 * (2 * np.pi * sigma**2) ** (rank / 2))
    return jnp.asarray(kernel - kernel.mean(), dtype)


def laplacian_of_gaussian_section(
    sigma: float | int, *, radius: int | None = None, dtype: DTypeLike = float
) -> Float[Array, " width"]:
    """A section through the two-dimensional Mexican hat: ``(1 - i**2 / (2 sigma**2)) exp(-i**2 / (2 sigma**2))``.

    It is often called the one-dimensional Laplacian of a Gaussian, but that has the factor ``1 - i**2 / sigma**2`` (up
    to sign and scale) and is :func:`laplacian_of_gaussian` with ``rank=1``. The section is positive in the centre, has
    height 1 before the mean is subtracted, and crosses zero further out.

    Args:
      sigma: The standard deviation in pixels, above 0.
      radius: The radius of the window in pixels; its width is ``2 * radius + 1``. The default is ``4 * sigma``,
        rounded.
      dtype: The dtype of the result.

    Returns:
      An array of shape ``(2 * radius + 1,)``, whose entries sum to 0.

    Raises:
      UsageError: ``sigma`` is not above 0, or ``radius`` is below 0.

    >>> [round(float(weight), 4) for weight in laplacian_of_gaussian_section(1)[4:]]
    [0.8607, 0.164, -0.2746, -0.1781, -0.1416]
    """
    sigma, radius = scale("filters.laplacian_of_gaussian_section", sigma, radius)
    halved = np.arange(-radius, radius + 1) ** 2 / (2 * sigma**2)
    kernel = (1 - halved) * np.exp(-halved)
    return jnp.asarray(kernel - kernel.mean(), dtype)
