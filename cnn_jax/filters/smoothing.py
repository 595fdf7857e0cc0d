"""Kernels that average, and a sharpening kernel. Their entries sum to 1."""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import integer


def identity(*, rank: int = 2, dtype: DTypeLike = float) -> Float[Array, "..."]:
    """The kernel that changes nothing: 1 in the centre of zeros.

    Args:
      rank: The number of axes.
      dtype: The dtype of the result; by default JAX's default float dtype.

    Returns:
      An array of shape ``(3,) * rank``.

    Raises:
      UsageError: ``rank`` is below 1.

    >>> identity(rank=1)
    Array([0., 1., 0.], dtype=float32)
    """
    rank = integer("filters.identity", "rank", rank, least=1)
    return jnp.asarray(outer([np.array([0.0, 1.0, 0.0])] * rank), dtype)


def box(size: int, *, rank: int = 2, dtype: DTypeLike = float) -> Float[Array, "..."]:
    """The average over a window, with equal weights.

    Args:
      size: The width of the window on each axis, at least 1.
      rank: The number of axes.
      dtype: The dtype of the result; by default JAX's default float dtype.

    Returns:
      An array of shape ``(size,) * rank`` with equal entries.

    Raises:
      UsageError: ``size`` or ``rank`` is below 1.

    >>> box(4, rank=1)
    Array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """
    op = "filters.box"
    size, rank = integer(op, "size", size, least=1), integer(op, "rank", rank, least=1)
    return jnp.full((size,) * rank, 1 / size**rank, dtype)


def binomial(size: int, *, rank: int = 2, dtype: DTypeLike = float) -> Float[Array, "..."]:
    """Binomial coefficients, divided by their sum: small approximations of a Gaussian with exact binary fractions.

    Args:
      size: The width of the window on each axis, at least 1; the variance per axis is ``(size - 1) / 4``.
      rank: The number of axes.
      dtype: The dtype of the result.

    Returns:
      An array of shape ``(size,) * rank``.

    Raises:
      UsageError: ``size`` or ``rank`` is below 1.

    >>> 16 * binomial(3)
    Array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]], dtype=float32)
    """
    op = "filters.binomial"
    size, rank = integer(op, "size", size, least=1), integer(op, "rank", rank, least=1)
    row = np.array([math.comb(size - 1, k) for k in range(size)]) / 2 ** (size - 1)
    return jnp.asarray(outer([row] * rank), dtype)


def gaussian(
    sigma: float | int, *, radius: int | None = None, rank: int = 2, dtype: DTypeLike = float
) -> Float[Array, "..."]:
    """Samples of a Gaussian, ``exp(-r**2 / (2 sigma**2))``, divided by their sum.

    Args:
      sigma: The standard deviation in pixels, above 0.
      radius: The radius of the window in pixels; its width is ``2 * radius + 1``. The default is ``4 * sigma``,
        rounded.
      rank: The number of axes.
      dtype: The dtype of the result.

    Returns:
      An array of shape ``(2 * radius + 1,) * rank``.

    Raises:
      UsageError: ``sigma`` is not above 0, ``radius`` is below 0, or ``rank`` is below 1.

    >>> [round(float(weight), 4) for weight in gaussian(1, rank=1)[4:]]
    [0.3989, 0.242, 0.054, 0.0044, 0.0001]
    """
    op = "filters.gaussian"
    rank, (sigma, radius) = integer(op, "rank", rank, least=1), scale(op, sigma, radius)
    row = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return jnp.asarray(outer([row / row.sum()] * rank), dtype)


def trapezoid(*, rank: int = 2, dtype: DTypeLike = float) -> Float[Array, "..."]:
    """The trapezoid rule: the mean over the interval between two neighbours, exact for straight lines.

    Args:
      rank: The number of axes; ``rank=1`` is ``1/2 1/2``, and others are products of it.
      dtype: The dtype of the result.

    Returns:
      An array of shape ``(2,) * rank``.

    Raises:
      UsageError: ``rank`` is below 1.

    >>> trapezoid(rank=1)
    Array([0.5, 0.5], dtype=float32)
    """
    return _rule("filters.trapezoid", [1, 1], rank, dtype)


def simpson(*, rank: int = 2, dtype: DTypeLike = float) -> Float[Array, "..."]:
    """Simpson's rule: the mean over the interval between the neighbours on both sides, exact for cubic polynomials.

    Args:
      rank: The number of axes; ``rank=1`` is ``1/6 4/6 1/6``, and others are products of it.
      dtype: The dtype of the result.

    Returns:
      An array of shape ``(3,) * rank``.

    Raises:
      UsageError: ``rank`` is below 1.

    >>> 6 * simpson(rank=1)
    Array([1., 4., 1.], dtype=float32)
    """
    return _rule("filters.simpson", [1, 4, 1], rank, dtype)


def _rule(op: str, weights: list[int], rank: int, dtype: DTypeLike) -> Array:
    rank = integer(op, "rank", rank, least=1)
    return jnp.asarray(outer([np.array(weights) / sum(weights)] * rank), dtype)


def canny_gaussian(*, dtype: DTypeLike = float) -> Float[Array, "5 5"]:
    """The 5x5 Gaussian that textbooks use in Canny's edge detector: integers divided by 159, sigma about 1.4.

    Args:
      dtype: The dtype of the result.

    Returns:
      An array of shape ``(5, 5)``.

    >>> (159 * canny_gaussian()[2]).round()
    Array([ 5., 12., 15., 12.,  5.], dtype=float32)
    """
    integers = [[2, 4, 5, 4, 2], [4, 9, 12, 9, 4], [5, 12, 15, 12, 5], [4, 9, 12, 9, 4], [2, 4, 5, 4, 2]]
    return jnp.asarray(np.array(integers) / 159, dtype)


def sharpen(*, rank: int = 2, dtype: DTypeLike = float) -> Float[Array, "..."]:
    """The identity minus the Laplacian: it enhances peaks and does not change constants.

    Args:
      rank: The number of axes.
      dtype: The dtype of the result.

    Returns:
      An array of shape ``(3,) * rank``.

    Raises:
      UsageError: ``rank`` is below 1.

    >>> sharpen()
    Array([[ 0., -1.,  0.],
           [-1.,  5., -1.],
           [ 0., -1.,  0.]], dtype=float32)
    """
    rank = integer("filters.sharpen", "rank", rank, least=1)
    kernel = -np.array(axis_neighbours(rank), float)
    kernel[(1,) * rank] = 2 * rank + 1
    return jnp.asarray(kernel + 0.0, dtype)


def outer(rows: list[np.ndarray]) -> np.ndarray:
    """The product kernel: entry ``(i, j, ...)`` is ``rows[0][i] * rows[1][j] * ...``.

    >>> outer([np.array([1, 2]), np.array([1, 10])])
    array([[ 1, 10],
           [ 2, 20]])
    """
    return functools.reduce(np.multiply.outer, rows)


def axis_neighbours(rank: int) -> np.ndarray:
    """Ones at the ``2 * rank`` neighbours along the axes, zeros at the centre and the corners; ``(3,) * rank``.

    >>> axis_neighbours(1)
    array([1, 0, 1])
    """
    return (np.abs(np.indices((3,) * rank) - 1).sum(axis=0) == 1).astype(int)


def scale(op: str, sigma: float | int, radius: int | None) -> tuple[float, int]:
    """Returns the checked standard deviation and the radius of the window."""
    if not (sigma > 0 and math.isfinite(sigma)):
        raise UsageError(f"{op}: sigma={sigma!r} must be a number of pixels above 0")
    return float(sigma), max(1, round(4 * sigma)) if radius is None else integer(op, "radius", radius, least=0)
