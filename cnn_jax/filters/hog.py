"""Histograms of oriented gradients."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.filters.apply import apply
from cnn_jax.ops.arguments import AnyArray, by, check_array, check_option, integer, per_axis, split_batch
from cnn_jax.ops.primitives import one_program

CONVENTIONS = ("skimage", "paper")
NORMS = ("L2-Hys", "L2", "L1", "L1-sqrt")
_SMALL = 1e-5  # added to norms
_CLIPPED_AT = 0.2  # by L2-Hys


def hog(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    *,
    orientations: int = 9,
    pixels_per_cell: int | Sequence[int] = 8,
    cells_per_block: int | Sequence[int] = 2,
    block_norm: str = "L2-Hys",
    convention: str = "skimage",
) -> Float[Array, "*batch rows columns features"]:
    """Computes histograms of oriented gradients: how strong edges of each direction are, cell by cell.

    The gradient is that of ``-1 0 1`` along each axis; among several channels, each pixel takes that of the largest
    magnitude. Every pixel of a cell votes with its magnitude for the direction of its gradient, from 0 to 180 degrees.
    Blocks of neighbouring cells, which overlap in all but one cell, are normalised together. An image of 128 x 64
    pixels has 15 x 7 blocks of 2 x 2 cells with 9 numbers each: 3,780 numbers. Rows and columns that do not fill a cell
    are ignored.

    It is differentiable, except where a gradient is 0 (its derivative is 0 there), where two channels have the same
    magnitude, and where ``'L2-Hys'`` begins to clip. With ``convention='skimage'`` the result jumps where a gradient
    turns from one bin into the next, and the derivative leaves these jumps out; ``'paper'`` is continuous.

    Args:
      x: ``(*batch, height, width, channels)`` of a floating dtype. The scale of the values has nearly no effect.
      orientations: The number of bins, each ``180 / orientations`` degrees wide; the first begins at 0.
      pixels_per_cell: The height and width of a cell, or one number for both.
      cells_per_block: The height and width of a block in cells, or one number for both.
      block_norm: ``'L2-Hys'`` divides a block by its Euclidean norm, clips it at 0.2 and divides again. ``'L2'``
        divides by the Euclidean norm, ``'L1'`` by the sum, and ``'L1-sqrt'`` takes the root of that.
      convention: ``'skimage'`` gives the numbers of ``skimage.feature.hog``: a pixel votes for one bin of one cell.
        ``'paper'``: a pixel votes for the two nearest bins and, within each block, for the nearest cells, by linear
        interpolation, after weighting by a Gaussian around the block's centre whose standard deviation is half of the
        block's size.

    Returns:
      ``(*batch, rows, columns, features)``: the blocks. The features are those of the cells in row-major order, each
      with ``orientations`` numbers, so that a flattened result is the vector of scikit-image.

    Raises:
      UsageError: ``x`` is not of a floating dtype or smaller than a block, or an option is unknown or below 1.

    References:
      Dalal and Triggs, Histograms of oriented gradients for human detection, 2005. scikit-image,
        ``skimage.feature.hog``.

    >>> person = jnp.zeros((128, 64, 1)).at[20:100, 24:40].set(1.0)
    >>> hog(person).shape, hog(person).size
    ((15, 7, 36), 3780)
    """
    op = "filters.hog"
    check_option(op, "convention", convention, CONVENTIONS)
    check_option(op, "block_norm", block_norm, NORMS)
    x = check_array(op, "x", x, empty=True)
    flat, batch = split_batch(op, x, 2, "an image")
    orientations = integer(op, "orientations", orientations, least=1)
    cell = per_axis(op, "pixels_per_cell", pixels_per_cell, 2)
    block = per_axis(op, "cells_per_block", cells_per_block, 2)
    least = tuple(pixels * cells for pixels, cells in zip(cell, block, strict=True))
    if any(size < needed for size, needed in zip(x.shape[-3:-1], least, strict=True)):
        raise UsageError(
            f"{op}: x of shape {x.shape} has {by(x.shape[-3:-1])} pixels, less than a block of {by(block)} cells of "
            f"{by(cell)}, which is {by(least)}; choose smaller cells"
        )
    blocks = _hog(flat, orientations, cell, block, block_norm, convention)
    return blocks.reshape(*batch, *blocks.shape[1:])


@one_program("orientations", "cell", "block", "block_norm", "convention")
def _hog(
    x: Array, orientations: int, cell: tuple[int, ...], block: tuple[int, ...], block_norm: str, convention: str
) -> Array:
    """:func:`hog` for checked arguments and one batch axis."""
    down, right = _gradient(x)
    squared = jnp.square(down) + jnp.square(right)
    moves = squared > 0
    magnitude = jnp.where(moves, jnp.sqrt(jnp.where(moves, squared, 1)), 0)
    if convention == "skimage":
        votes = magnitude[..., None] * _bin_of(down, right, orientations)
        blocks = _blocks_of_cells(ops.avg_pool(votes, cell), block)
    else:
        votes = magnitude[..., None] * _shares_of_bins(down, right, moves, orientations)
        blocks = _weighted_blocks(votes, cell, block)
    return _normalized(blocks, block_norm)


def _gradient(x: Array) -> tuple[Array, Array]:
    """The central differences down and to the right, (batch, height, width), of the channel that changes most.

    A mirrored border has no difference across it.
    """
    difference = jnp.asarray([-1, 0, 1], x.dtype)
    down, right = apply(x, difference[:, None]), apply(x, difference[None, :])
    if x.shape[-1] == 1:
        return down[..., 0], right[..., 0]
    strongest = (jnp.square(down) + jnp.square(right)).argmax(axis=-1, keepdims=True)
    return tuple(jnp.take_along_axis(part, strongest, axis=-1)[..., 0] for part in (down, right))  # type: ignore[return-value]


def _bin_of(down: Array, right: Array, orientations: int) -> Array:
    """One for the bin that contains the direction of the gradient, zero for the others; no angle is rounded."""
    flipped = (down < 0) | ((down == 0) & (right < 0))  # the opposite direction is the same one
    down, right = (jnp.where(flipped, -part, part)[..., None] for part in (down, right))
    edges = np.arange(orientations) * np.pi / orientations
    # The larger of the two is 1, so that diagonal gradients, which are frequent, are compared without rounding.
    longer = np.maximum(abs(np.sin(edges)), abs(np.cos(edges)))
    sines, cosines = (
        jnp.asarray(function(edges) / longer, down.dtype)[None, None, None] for function in (np.sin, np.cos)
    )
    reached = down * cosines >= right * sines  # the direction is at or beyond the beginning of the bin
    beyond = jnp.concatenate([reached[..., 1:], jnp.zeros_like(reached[..., :1])], axis=-1)
    return (reached & ~beyond).astype(down.dtype)


def _shares_of_bins(down: Array, right: Array, moves: Array, orientations: int) -> Array:
    """How much of a vote each bin has: 1 where the direction is its centre, falling to 0 at the centres beside it."""
    angle = jnp.arctan2(jnp.where(moves, down, 0), jnp.where(moves, right, 1))
    centres = jnp.asarray(np.arange(orientations) + 0.5, angle.dtype)[None, None, None]
    place = angle[..., None] * (orientations / math.pi) - centres
    distance = abs(place - orientations * jnp.round(place / orientations))
    if orientations == 1:
        return jnp.ones_like(place)
    if orientations == 2:  # the two bins are neighbours on both sides
        return 1 - distance
    return jnp.maximum(1 - distance, 0)


def _blocks_of_cells(cells: Array, block: tuple[int, ...]) -> Array:
    """Neighbouring cells side by side, (batch, rows, columns, cells * orientations)."""
    rows, columns = (size - count + 1 for size, count in zip(cells.shape[1:3], block, strict=True))
    parts = [cells[:, i : i + rows, j : j + columns] for i in range(block[0]) for j in range(block[1])]
    return jnp.concatenate(parts, axis=-1)


def _weighted_blocks(votes: Array, cell: tuple[int, ...], block: tuple[int, ...]) -> Array:
    """The blocks by one strided convolution of the votes: each cell of a block is a window of weights."""
    profiles = []  # of each axis, (cells, pixels): the share of each pixel in each cell
    for pixels, cells in zip(cell, block, strict=True):
        places = np.arange(pixels * cells) + 0.5
        shares = np.maximum(1 - abs(places - (np.arange(cells)[:, None] + 0.5) * pixels) / pixels, 0)
        profiles.append(shares * np.exp(-2 * (places / (pixels * cells) - 0.5) ** 2))
    windows = np.einsum("iy,jx->yxij", *profiles).reshape(*profiles[0].shape[1:], *profiles[1].shape[1:], 1, -1)
    orientations = votes.shape[-1]
    kernel = jnp.asarray(np.broadcast_to(windows, (*windows.shape[:2], orientations, windows.shape[-1])), votes.dtype)
    blocks = ops.depthwise_conv(votes, kernel / math.prod(cell), strides=cell)
    return blocks.reshape(*blocks.shape[:-1], orientations, math.prod(block)).swapaxes(-1, -2).reshape(blocks.shape)


def _normalized(blocks: Array, block_norm: str) -> Array:
    def by_euclidean(blocks: Array) -> Array:
        return blocks * lax.rsqrt(jnp.square(blocks).sum(axis=-1, keepdims=True) + _SMALL**2)

    if block_norm == "L2-Hys":
        return by_euclidean(jnp.minimum(by_euclidean(blocks), _CLIPPED_AT))
    if block_norm == "L2":
        return by_euclidean(blocks)
    shares = blocks / (blocks.sum(axis=-1, keepdims=True) + _SMALL)  # no vote is negative
    if block_norm == "L1":
        return shares
    return jnp.where(shares > 0, jnp.sqrt(jnp.where(shares > 0, shares, 1)), 0)
