"""Winograd's minimal filtering for windows of 3 at stride 1: fewer multiplications, more additions.

``F(m, 3)`` computes ``m`` outputs of a 3-tap filter from ``m + 2`` inputs with ``m + 2`` multiplications instead of
``3 m``. It transforms the kernel by ``G`` and each tile of the input by ``B^T``, multiplies them, and transforms back
by ``A^T``. In two dimensions F(2,3) needs 2.25 times and F(4,3) 4 times fewer multiplications, at the cost of accuracy:
see :func:`amplification`.

References:
  Winograd, Arithmetic complexity of computations, 1980.
  Lavin and Gray, Fast algorithms for convolutional neural networks, 2016, sections 4.1 and 4.3.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.ops.padding import Pairs


class Transform(NamedTuple):
    """The three matrices of F(m, 3)."""

    output: np.ndarray
    """``A^T``, of shape ``(m, m + 2)``."""
    kernel: np.ndarray
    """``G``, of shape ``(m + 2, 3)``."""
    input: np.ndarray
    """``B^T``, of shape ``(m + 2, m + 2)``."""


# Interpolation at 0, 1, -1 and infinity.
F23 = Transform(
    output=np.array([[1, 1, 1, 0], [0, 1, -1, -1]], float),
    kernel=np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2,
    input=np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], float),
)
# Interpolation at 0, 1, -1, 2, -2 and infinity.
F43 = Transform(
    output=np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], float),
    kernel=np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24,
    input=np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        float,
    ),
)


def amplification(transform: Transform) -> float:
    """The factor by which one axis can amplify a rounding error: the product of the row-sum norms of the matrices.

    >>> amplification(F23), amplification(F43)
    (9.0, 190.0)
    """
    return float(np.prod([np.abs(matrix).sum(axis=1).max() for matrix in transform]))


def conv_winograd(
    x: Shaped[Array, "batch *space channels"],
    kernel: Shaped[Array, "*window channels_per_group features"],
    *,
    transform: Transform,
    strides: tuple[int, ...],
    padding: Pairs,
    input_dilation: tuple[int, ...],
    kernel_dilation: tuple[int, ...],
    feature_group_count: int,
    precision: lax.PrecisionLike = None,
) -> Shaped[Array, "batch *output features"]:
    """Convolution of canonical arguments with windows of 3 and without strides or dilation."""
    del strides, input_dilation, kernel_dilation  # all are 1: `cnn_jax.ops.methods` has checked it
    *window, per_group, features = kernel.shape
    rank, groups, step = len(window), feature_group_count, len(transform.output)
    output = [size + low + high - 2 for size, (low, high) in zip(x.shape[1:-1], padding, strict=True)]
    tiles = [-(-size // step) for size in output]
    fill = [tile * step - size for tile, size in zip(tiles, output, strict=True)]
    around = [(low, high + more, 0) for (low, high), more in zip(padding, fill, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *around, (0, 0, 0)])

    # Each spatial axis becomes (tile) in place, plus a transformed axis appended at the end: (N, *tiles, C, *points).
    for axis, count in enumerate(tiles, start=1):
        shifts = [lax.slice_in_dim(x, start, start + (count - 1) * step + 1, step, axis) for start in range(step + 2)]
        x = _apply(transform.input, jnp.stack(shifts, axis=-1), -1)
    for axis in range(rank):
        kernel = _apply(transform.kernel, kernel, axis)

    points = kernel.shape[:rank]
    x = x.reshape(x.shape[0], *tiles, groups, per_group, math.prod(points))
    kernel = kernel.reshape(-1, per_group, groups, features // groups)
    y = jnp.einsum("...gcp,pcgo->...gop", x, kernel, precision=precision)
    y = y.reshape(y.shape[0], *tiles, features, *points)

    for axis in range(rank):
        y = _apply(transform.output, y, axis - rank)
    # (N, *tiles, C_out, *steps) -> (N, tile, step, tile, step, ..., C_out)
    order = [0, *(i for axis in range(rank) for i in (1 + axis, 2 + rank + axis)), 1 + rank]
    y = y.transpose(order).reshape(y.shape[0], *(tile * step for tile in tiles), features)
    return y[(slice(None), *(slice(size) for size in output))]


def _apply(matrix: np.ndarray, array: jax.Array, axis: int) -> jax.Array:
    """Multiplies one axis of an array by a matrix, always in full precision: its entries are exact and small."""
    moved = jnp.tensordot(array, matrix.T.astype(array.dtype), axes=(axis, 0), precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(moved, -1, axis)
