"""Canny's edge detector: smoothing, the gradient, its maxima across the edge, and hysteresis."""

import functools
import math
import operator

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Shaped

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.filters.apply import apply
from cnn_jax.filters.edges import sobel
from cnn_jax.filters.smoothing import gaussian
from cnn_jax.ops.arguments import AnyArray, Number, check_array, check_option, is_traced, split_batch
from cnn_jax.ops.primitives import one_program

CONVENTIONS = ("skimage", "paper")
_WORD = 32  # pixels of a column that one integer holds


def canny(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    *,
    sigma: float | int = 1.0,
    kernel: Shaped[AnyArray, "..."] | None = None,
    low: Number = 0.1,
    high: Number = 0.2,
    convention: str = "skimage",
) -> Bool[Array, "*batch_and_space channels"]:
    """Finds edges that are one pixel wide, in each channel separately (Canny, 1986).

    The image is smoothed by a Gaussian. The gradient is that of the two Sobel kernels, whose entries are integers, so a
    slope of 1 per pixel has the magnitude 8. A pixel is kept if its magnitude is a maximum along the direction of the
    gradient, where magnitudes between pixels are interpolated linearly. Of the kept pixels, those of at least ``high``
    are edges, and so are those of at least ``low`` that are connected to them, also diagonally, by such pixels.

    The result has no gradient; that of :func:`cnn_jax.filters.apply` with :func:`cnn_jax.filters.sobel` has one.

    Args:
      x: ``(*batch, height, width, channels)`` of a floating dtype. The thresholds fit images from 0 to 1.
      sigma: The standard deviation of the Gaussian in pixels, above 0; its window is cut at ``4 * sigma``.
      kernel: The kernel that smooths, instead of the Gaussian of ``sigma``. :func:`cnn_jax.filters.canny_gaussian` is
        that of textbooks.
      low: The smaller threshold of the gradient's magnitude. It may be a traced number.
      high: The larger threshold, which an edge must reach somewhere. It may be a traced number.
      convention: ``'skimage'`` gives the edges of ``skimage.feature.canny``: smoothing averages over the part of the
        window that is inside the image, a pixel of a plateau is also a maximum, and the outermost pixels are never
        edges. ``'paper'``: the image is mirrored at its border, and of two equal neighbours only one is a maximum, so
        that edges are one pixel wide also where a step lies exactly between two pixels.

    Returns:
      True on edges, in the shape of ``x``.

    Raises:
      UsageError: ``x`` is not of a floating dtype or has fewer than three axes, an option is unknown, ``sigma`` is not
        above 0, or ``low`` is above ``high``.

    References:
      Canny, A computational approach to edge detection, 1986. scikit-image, ``skimage.feature.canny``.

    >>> square = jnp.zeros((16, 16, 1)).at[4:12, 4:12].set(1.0)
    >>> edges = canny(square)
    >>> edges.shape, edges.dtype, int(edges.sum())
    ((16, 16, 1), dtype('bool'), 28)
    """
    op = "filters.canny"
    check_option(op, "convention", convention, CONVENTIONS)
    x = check_array(op, "x", x, empty=True)
    flat, _ = split_batch(op, x, 2, "an image")
    if not (is_traced(low) or is_traced(high)) and not low <= high:
        raise UsageError(f"{op}: low={low} must be at most high={high}")
    if kernel is None:
        if not sigma > 0:
            raise UsageError(f"{op}: sigma={sigma!r} must be a number of pixels above 0")
        # scikit-image rounds halves up.
        row = gaussian(sigma, radius=math.floor(4 * sigma + 0.5), rank=1, dtype=x.dtype)
        kernels: tuple[Array, ...] = (row[:, None], row[None, :])
    else:
        kernels = (check_array(op, "kernel", kernel).astype(x.dtype),)
        if kernels[0].ndim != 2:
            raise UsageError(f"{op}: kernel of shape {kernels[0].shape} must be (height, width)")
    return _canny(flat, kernels, jnp.asarray(low), jnp.asarray(high), convention).reshape(x.shape)


@one_program("convention")
def _canny(x: Array, kernels: tuple[Array, ...], low: Array, high: Array, convention: str) -> Array:
    """:func:`canny` for checked arguments and one batch axis."""
    down, right = _gradient(x, kernels, convention)
    magnitude = lax.optimization_barrier(jnp.sqrt(jnp.square(down) + jnp.square(right)))
    kept = _is_maximum(magnitude, down, right, one_of_equals=convention == "paper")
    if convention == "skimage":
        height, width = x.shape[1:3]
        rows, columns = np.arange(height)[:, None, None], np.arange(width)[None, :, None]
        inside = (rows > 0) & (rows < height - 1) & (columns > 0) & (columns < width - 1)
        kept = kept & jnp.asarray(inside)[None]
    weak = kept & (magnitude >= low.astype(x.dtype)) & (magnitude > 0)
    return _connected(weak & (magnitude >= high.astype(x.dtype)), weak)


def _gradient(x: Array, kernels: tuple[Array, ...], convention: str) -> tuple[Array, Array]:
    """The gradient of the smoothed image, down and to the right."""

    def smoothed(image: Array, boundary: str) -> Array:
        for kernel in kernels:
            image = lax.optimization_barrier(apply(image, kernel, boundary=boundary))
        return image

    if convention == "paper":
        smooth, boundary = smoothed(x, "mirror"), "mirror"
    else:
        covered = smoothed(jnp.ones((1, *x.shape[1:3], 1), x.dtype), "zero")
        smooth, boundary = smoothed(x, "zero") / (covered + jnp.finfo(x.dtype).eps), "symmetric"
    # XLA would fuse each of these steps into the next one, and so compute it once for each entry of a window.
    smooth = lax.optimization_barrier(ops.pad(smooth, (1, 1), boundary=boundary))
    down, right = (apply(smooth, sobel(axis=axis, dtype=x.dtype), padding="VALID") for axis in (0, 1))
    return lax.optimization_barrier((down, right))


def _is_maximum(magnitude: Array, down: Array, right: Array, *, one_of_equals: bool) -> Array:
    """Where the magnitude is not exceeded by those one pixel further along the line of the gradient, on both sides."""
    height, width = magnitude.shape[1:3]
    around = jnp.pad(magnitude, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def at(row: int, column: int) -> Array:
        return around[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    steep, one_sign = abs(down) > abs(right), (down > 0) == (right > 0)
    # The neighbour along the axis that the gradient is nearer to, and the diagonal one that it lies towards.
    larger, smaller = jnp.maximum(abs(down), abs(right)), jnp.minimum(abs(down), abs(right))
    share = smaller / jnp.where(larger > 0, larger, 1)

    def between(straight: Array, diagonal: Array) -> Array:
        return diagonal * share + straight * (1 - share)

    ahead = between(
        jnp.where(steep, at(1, 0), at(0, 1)),
        jnp.where(one_sign, at(1, 1), jnp.where(steep, at(1, -1), at(-1, 1))),
    )
    behind = between(
        jnp.where(steep, at(-1, 0), at(0, -1)),
        jnp.where(one_sign, at(-1, -1), jnp.where(steep, at(-1, 1), at(1, -1))),
    )
    return (magnitude > ahead if one_of_equals else magnitude >= ahead) & (magnitude >= behind)


def _connected(strong: Array, weak: Array) -> Array:
    """The weak pixels that are connected to strong ones: strong ones spread over weak ones until nothing changes.

    A pixel is a bit of an integer that holds 32 pixels of a column, since a path may take hundreds of steps.
    """
    height = strong.shape[1]
    allowed, seeds = _packed(weak), _packed(strong)

    def step(bits: Array) -> Array:
        above, below = jnp.pad(bits, ((0, 0), (1, 1), (0, 0), (0, 0)))[:, :-2], bits[:, 1:]
        below = jnp.pad(below, ((0, 0), (0, 1), (0, 0), (0, 0)))
        bits = bits | (bits << 1) | (bits >> 1) | (above >> (_WORD - 1)) | (below << (_WORD - 1))
        sides = jnp.pad(bits, ((0, 0), (0, 0), (1, 1), (0, 0)))
        return (bits | sides[:, :, :-2] | sides[:, :, 2:]) & allowed

    def body(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        bits = step(carry[0])
        return bits, (bits != carry[0]).any()

    bits, _ = lax.while_loop(lambda carry: carry[1], body, (seeds, jnp.array(True)))
    return _unpacked(bits, height)


def _packed(pixels: Array) -> Array:
    """Booleans (batch, height, width, channels) as integers of 32 rows each."""
    batch, height, width, channels = pixels.shape
    words = -(-height // _WORD)
    pixels = jnp.pad(pixels, ((0, 0), (0, words * _WORD - height), (0, 0), (0, 0)))
    rows = pixels.reshape(batch, words, _WORD, width, channels).astype(jnp.uint32)
    # Not a sum over the axis: XLA would compute the maxima again for it, and without vector instructions.
    return functools.reduce(operator.or_, (rows[:, :, row] << row for row in range(_WORD)))


def _unpacked(bits: Array, height: int) -> Array:
    batch, words, width, channels = bits.shape
    rows = jnp.arange(_WORD, dtype=jnp.uint32)[None, None, :, None, None]
    pixels = ((bits[:, :, None] >> rows) & jnp.uint32(1)).astype(bool)
    return pixels.reshape(batch, words * _WORD, width, channels)[:, :height]
