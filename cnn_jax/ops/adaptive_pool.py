"""Adaptive and global pools, which are given their output size instead of a window.

Window ``i`` of ``m`` over an axis of size ``n`` covers the positions from ``floor(i n / m)`` to
``ceil((i + 1) n / m)``, excluding the latter, as in PyTorch. If ``m`` does not divide ``n``, windows differ in size and
overlap.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import (
    AnyArray,
    Shape,
    accumulator,
    as_dtype,
    check_array,
    check_filled,
    split_batch,
    window_sizes,
)
from cnn_jax.ops.pool import max_pool


def adaptive_avg_pool(
    x: Shaped[AnyArray, "*batch_and_space channels"], output_size: int | Sequence[int]
) -> Shaped[Array, "*batch_and_output channels"]:
    """Computes the averages of ``output_size`` windows that cover the input evenly.

    Args:
      x: ``(*batch, *space, C)``, any number of batch axes, including none; bfloat16, float16, float32 or float64.
      output_size: The number of windows, one int per spatial axis; one int applies to every axis except the first and
        the last.

    Returns:
      ``(*batch, *output_size, C)``.

    Raises:
      UsageError: A size is below 1, or there is not one size per spatial axis.

    References:
      He, Zhang, Ren and Sun, Spatial pyramid pooling in deep convolutional networks, 2014.

    >>> adaptive_avg_pool(jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])[:, None], (2,))[:, 0]
    Array([2., 4.], dtype=float32)
    """
    op = "adaptive_avg_pool"
    merged, batch, sizes = _arguments(op, x, output_size)
    y = as_dtype(merged, accumulator(merged.dtype))
    for axis, size in enumerate(sizes, start=1):
        starts, stops = windows(y.shape[axis], size)
        position = np.arange(y.shape[axis])
        covered = (starts[:, None] <= position) & (position < stops[:, None])
        y = mix(y, covered / (stops - starts)[:, None], axis)
    return as_dtype(y, merged.dtype).reshape(*batch, *y.shape[1:])


def adaptive_max_pool(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    output_size: int | Sequence[int],
    *,
    return_indices: bool = False,
    derivatives: str = "custom",
) -> Any:
    """Computes the maxima of ``output_size`` windows that cover the input evenly; gradients go to the first maximum.

    Args:
      x: ``(*batch, *space, C)``, any number of batch axes, including none; bfloat16, float16, float32 or float64.
      output_size: The number of windows, one int per spatial axis; one int applies to every axis except the first and
        the last.
      return_indices: Whether to return the positions of the maxima as well.
      derivatives: Has no effect; still accepted for one release.

    Returns:
      ``(*batch, *output_size, C)``; with ``return_indices`` a pair of this array and int32 indices, as from
      :func:`max_pool`.

    Raises:
      UsageError: A size is below 1, or there is not one size per spatial axis.

    >>> adaptive_max_pool(jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])[:, None], (2,))[:, 0]
    Array([3., 5.], dtype=float32)
    """
    op = "adaptive_max_pool"
    merged, batch, sizes = _arguments(op, x, output_size)
    # Each window is copied, and the last entry of shorter windows is repeated, so that all windows have the same size.
    # The copy is in at least float32, because the gradient of an entry sums over all windows that contain it.
    tables, spread = [], as_dtype(merged, accumulator(merged.dtype))
    for axis, size in enumerate(sizes, start=1):
        starts, stops = windows(merged.shape[axis], size)
        taps = np.arange(int((stops - starts).max()))
        tables.append(np.minimum(starts[:, None] + taps, stops[:, None] - 1))
        if tables[-1].size != merged.shape[axis]:
            spread = jnp.take(spread, tables[-1].reshape(-1), axis=axis)
    window = tuple(table.shape[1] for table in tables)
    y = as_dtype(max_pool(spread, window, derivatives=derivatives), merged.dtype)
    shape = (*batch, *y.shape[1:])
    if not return_indices:
        return y.reshape(shape)
    _, indices = max_pool(lax.stop_gradient(spread), window, return_indices=True)
    places = jnp.unravel_index(indices, spread.shape[1:-1])
    columns = [jnp.asarray(table.reshape(-1), jnp.int32)[place] for table, place in zip(tables, places, strict=True)]
    steps = [math.prod(merged.shape[axis + 1 : -1]) for axis in range(1, merged.ndim - 1)]
    flat = reduce(jnp.add, [column * step for column, step in zip(columns, steps, strict=True)])
    return y.reshape(shape), flat.astype(jnp.int32).reshape(shape)


def global_avg_pool(x: Shaped[AnyArray, "batch *space channels"], *, keepdims: bool = False) -> Shaped[Array, "..."]:
    """Computes the average of each channel over all spatial positions.

    Args:
      x: ``(N, *space, C)``, with exactly one batch axis; bfloat16, float16, float32 or float64.
      keepdims: Whether to keep the spatial axes with size 1.

    Returns:
      ``(N, C)``, or ``(N, *(1, ..., 1), C)`` with ``keepdims``.

    Raises:
      UsageError: ``x`` has no spatial axis.

    References:
      Lin, Chen and Yan, Network in network, 2014.

    >>> global_avg_pool(jnp.ones((8, 7, 7, 512))).shape
    (8, 512)
    """
    x, space = _space("global_avg_pool", x)
    wide = as_dtype(x, accumulator(x.dtype))
    return as_dtype(wide.mean(axis=space, keepdims=keepdims), x.dtype)


def global_max_pool(x: Shaped[AnyArray, "batch *space channels"], *, keepdims: bool = False) -> Shaped[Array, "..."]:
    """Computes the maximum of each channel over all spatial positions.

    The gradient goes to the first maximum in row-major order.

    Args:
      x: ``(N, *space, C)``, with exactly one batch axis; bfloat16, float16, float32 or float64.
      keepdims: Whether to keep the spatial axes with size 1.

    Returns:
      ``(N, C)``, or ``(N, *(1, ..., 1), C)`` with ``keepdims``.

    Raises:
      UsageError: ``x`` has no spatial axis.

    >>> global_max_pool(jnp.ones((8, 7, 7, 512))).shape
    (8, 512)
    """
    x, space = _space("global_max_pool", x)
    flat = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
    y = jnp.take_along_axis(flat, flat.argmax(axis=1, keepdims=True), axis=1)
    return y.reshape(x.shape[0], *(1,) * (len(space) if keepdims else 0), x.shape[-1])


def windows(size: int, output_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The start of each window of an axis, and the position after its end.

    >>> starts, stops = windows(10, 4)
    >>> starts.tolist(), stops.tolist()
    ([0, 2, 5, 7], [3, 5, 8, 10])
    """
    index = np.arange(output_size)
    return index * size // output_size, -(-(index + 1) * size // output_size)


def mix(x: Shaped[Array, "..."], matrix: np.ndarray, axis: int) -> Shaped[Array, "..."]:
    """Multiplies one axis of an array by a matrix of shape ``(output, input)``, in full precision."""
    product = jnp.tensordot(jnp.asarray(matrix, x.dtype), x, (1, axis), precision=lax.Precision.HIGHEST)
    return jnp.moveaxis(product, 0, axis)


def _arguments(op: str, x: AnyArray, output_size: int | Sequence[int]) -> tuple[Array, Shape, tuple[int, ...]]:
    x = check_array(op, "x", x, empty=True)
    sizes = window_sizes(op, "output_size", output_size, x)
    return *split_batch(op, x, len(sizes), f"output_size={sizes}"), sizes


def _space(op: str, x: AnyArray) -> tuple[Array, tuple[int, ...]]:
    x = check_array(op, "x", x, empty=True)
    if x.ndim < 3:
        raise UsageError(f"{op}: x of shape {x.shape} has no spatial axes to pool; it must be (N, *space, C)")
    check_filled(op, "x", x, range(1, x.ndim))
    return x, tuple(range(1, x.ndim - 1))
