"""Kernels that differentiate, for edges, lines, stripes and blobs. Their entries sum to 0, except those of Gabor."""

import math

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


DIFFERENCES = {"forward": ([0, -1, 1], 1), "backward": ([-1, 1, 0], 1), "central": ([-1, 0, 1], 2)}  # and the distance


def finite_difference(
    *, axis: int, kind: str = "central", rank: int = 2, dtype: DTypeLike = float
) -> Float[Array, "..."]:
    """The derivative along an axis, from neighbouring entries.

    Second differences are those of :func:`laplacian` with ``rank=1``.

    Args:
      axis: The axis of the derivative; with ``rank=2``, 1 finds vertical edges and 0 finds horizontal edges.
      kind: ``'forward'`` is the next entry minus this one, ``'backward'`` this one minus the one before, and
        ``'central'`` half of the next one minus the one before, which is exact for parabolas.
      rank: The number of axes.
      dtype: The dtype of the result.

    Returns:
      An array of size 3 along ``axis`` and 1 along the others.

    Raises:
      UsageError: ``kind`` is unknown, ``axis`` is not in ``[-rank, rank)``, or ``rank`` is below 1.

    >>> finite_difference(axis=0, rank=1)
    Array([-0.5,  0. ,  0.5], dtype=float32)
    >>> finite_difference(axis=1, kind="forward")
    Array([[ 0., -1.,  1.]], dtype=float32)
    """
    op = "filters.finite_difference"
    check_option(op, "kind", kind, DIFFERENCES)
    rank, axis = _axis(op, axis, rank)
    weights, distance = DIFFERENCES[kind]
    shape = [1] * rank
    shape[axis] = len(weights)
    return jnp.asarray(np.array(weights).reshape(shape) / distance, dtype)


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
    rank, axis = _axis(op, axis, rank)
    rows = [np.array(average, float)] * rank
    rows[axis] = np.array([-1.0, 0.0, 1.0])
    kernel = outer(rows) + 0.0  # + 0.0 turns -0.0 into 0.0
    return jnp.asarray(kernel / (2 * sum(average) ** (rank - 1)) if normalized else kernel, dtype)


def _axis(op: str, axis: int, rank: int) -> tuple[int, int]:
    """The checked rank and axis."""
    rank, axis = integer(op, "rank", rank, least=1), integer(op, "axis", axis)
    if not -rank <= axis < rank:
        raise UsageError(f"{op}: axis={axis} is not one of the {rank} axes; use {-rank} to {rank - 1}")
    return rank, axis


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


def gabor(
    wavelength: float | int,
    *,
    angle: float | int = 0,
    sigma: float | int | None = None,
    aspect: float | int = 0.5,
    phase: float | int = 0,
    radius: int | None = None,
    dtype: DTypeLike = float,
) -> Float[Array, "..."]:
    """A wave under a Gaussian: a detector of stripes of one width and direction, as simple cells of V1 are described.

    The Gaussian is a density, as in scikit-image's ``gabor_kernel``, whose real part this is with ``phase=0`` and whose
    imaginary part with ``phase=-90``. Its entries sum to nearly 0 only for odd waves, or if it holds several stripes.

    Args:
      wavelength: The width of a light and a dark stripe together in pixels, above 0.
      angle: The direction of the stripes in degrees, counter-clockwise from the horizontal, as in :func:`line`. The
        wave itself runs at a right angle to them.
      sigma: The standard deviation of the Gaussian across the stripes in pixels, above 0; ``0.56 * wavelength`` by
        default, a bandwidth of one octave.
      aspect: The standard deviation across the stripes divided by that along them, above 0.
      phase: The phase of the wave in the centre in degrees: at 0 it has a light stripe there, at 90 an edge.
      radius: The radius of the window in pixels; its width is ``2 * radius + 1``. The default is three standard
        deviations along the longer side, rounded.
      dtype: The dtype of the result.

    Returns:
      An array of shape ``(2 * radius + 1, 2 * radius + 1)``.

    Raises:
      UsageError: ``wavelength``, ``sigma`` or ``aspect`` is not above 0, or ``radius`` is below 0.

    References:
      Daugman, Uncertainty relation for resolution in space, spatial frequency, and orientation optimized by
      two-dimensional visual cortical filters, 1985.

    >>> gabor(4, radius=2)[:, 2].round(2)
    Array([-0.01,  0.  ,  0.02,  0.  , -0.01], dtype=float32)
    """
    op = "filters.gabor"
    for name, value in (("wavelength", wavelength), ("aspect", aspect)):
        if not (value > 0 and math.isfinite(value)):
            raise UsageError(f"{op}: {name}={value!r} must be a number above 0")
    across, _ = scale(op, 0.56 * wavelength if sigma is None else sigma, 0)
    along = across / aspect
    radius = round(3 * max(across, along)) if radius is None else integer(op, "radius", radius, least=0)
    down, right = np.indices((2 * radius + 1,) * 2) - radius
    turn = math.radians(angle)
    distance, position = down * math.cos(turn) + right * math.sin(turn), right * math.cos(turn) - down * math.sin(turn)
    envelope = np.exp(-((distance / across) ** 2 + (position / along) ** 2) / 2) / (2 * math.pi * across * along)
    return jnp.asarray(envelope * np.cos(2 * math.pi * distance / wavelength + math.radians(phase)), dtype)


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
