"""Enlarging feature maps: unpooling with the positions of the maxima, and upsampling without them."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.adaptive_pool import mix
from cnn_jax.ops.arguments import (
    AnyArray,
    Shape,
    as_array,
    by,
    check_array,
    check_option,
    concrete,
    split_batch,
    window_sizes,
)
from cnn_jax.ops.primitives import transposes
from cnn_jax.ops.wide import in_float32

UPSAMPLINGS = ("nearest", "bilinear", "bed_of_nails")


def max_unpool(
    y: Shaped[AnyArray, "*batch_and_output channels"],
    indices: Shaped[AnyArray, "..."],
    output_shape: int | Sequence[int],
    *,
    overlap: str = "set",
) -> Shaped[Array, "*batch_and_space channels"]:
    """Writes each pooled value to the position of its maximum; all other entries are zero.

    Args:
      y: ``(*batch, *output, C)``; bfloat16, float16, float32 or float64.
      indices: Integers with the shape of ``y``, as from ``max_pool(..., return_indices=True)``.
      output_shape: The spatial sizes of the map that was pooled; one int applies to every axis except the first and the
        last.
      overlap: What to do if overlapping windows share a maximum. ``'set'`` keeps one of their values, as in PyTorch;
        the values are equal unless ``y`` was changed after the pool. ``'add'`` sums them, which makes this function the
        adjoint of the pool and equal to its gradient.

    Returns:
      ``(*batch, *output_shape, C)``.

    Raises:
      UsageError: The indices have another shape, are not integers, or are outside the map. Under ``jit`` indices
        outside the map are ignored.

    References:
      Zeiler and Fergus, Visualizing and understanding convolutional networks, 2014.

    >>> from cnn_jax.ops import max_pool
    >>> pooled, indices = max_pool(jnp.array([1.0, 3.0, 2.0, 5.0])[:, None], (2,), return_indices=True)
    >>> max_unpool(pooled, indices, (4,))[:, 0]
    Array([0., 3., 0., 5.], dtype=float32)
    """
    op = "max_unpool"
    check_option(op, "overlap", overlap, ("set", "add"))
    y, indices = check_array(op, "y", y, empty=True), as_array(op, "indices", indices)
    sizes = window_sizes(op, "output_shape", output_shape, y)
    merged, batch = split_batch(op, y, len(sizes), f"output_shape={sizes}")
    if indices.shape != y.shape or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise UsageError(
            f"{op}: indices of shape {indices.shape} and dtype {indices.dtype.name} do not match y of shape "
            f"{y.shape}; use the indices that max_pool(..., return_indices=True) returns with y"
        )
    size = math.prod(sizes)
    known = concrete(indices)
    if known is not None and known.size:
        least, most = known.min(), known.max()
        if least < 0 or most >= size:
            raise UsageError(
                f"{op}: indices run from {least} to {most}, but a map of {by(sizes)} has positions 0 to {size - 1}; "
                f"output_shape must be the spatial shape of the array that was pooled"
            )
    places = indices.reshape(merged.shape)
    unpooled = in_float32(lambda values: _unpool.bind(values, places, sizes=sizes, overlap=overlap), merged)
    return unpooled.reshape(*batch, *sizes, merged.shape[-1])


def _written(y: Array, places: Array, *, sizes: Shape, overlap: str) -> Array:
    """``(batch, *output, C)`` written to ``(batch, *sizes, C)``."""
    strides = _strides(sizes, places.shape[1:-1])

    def in_windows() -> Array:
        chosen = jnp.where(_in_blocks(places) == _positions(sizes, places.shape[1:-1]), _in_blocks(y), 0)
        covered = tuple(count * stride for count, stride in zip(y.shape[1:-1], strides, strict=True))
        ends = [(0, size - end) for size, end in zip(sizes, covered, strict=True)]
        return jnp.pad(chosen.reshape(y.shape[0], *covered, y.shape[-1]), [(0, 0), *ends, (0, 0)])

    return _by_windows(places, sizes, in_windows, lambda: _scattered(y, places, sizes, overlap))


def _read(x: Array, places: Array, *, sizes: Shape, overlap: str) -> Array:
    """The transpose of :func:`_written`: the entries of ``(batch, *sizes, C)`` that it writes."""
    strides = _strides(sizes, places.shape[1:-1])

    def in_windows() -> Array:
        covered = [slice(count * stride) for count, stride in zip(places.shape[1:-1], strides, strict=True)]
        shape = [number for pair in zip(places.shape[1:-1], strides, strict=True) for number in pair]
        blocks = x[(slice(None), *covered)].reshape(x.shape[0], *shape, x.shape[-1])
        chosen = jnp.where(_in_blocks(places) == _positions(sizes, places.shape[1:-1]), blocks, 0)
        return chosen.sum(axis=tuple(range(2, chosen.ndim - 1, 2)))

    def anywhere() -> Array:
        write = functools.partial(_scattered, places=places, sizes=sizes, overlap=overlap)
        return jax.vjp(write, jnp.zeros(places.shape, x.dtype))[1](x)[0]

    return _by_windows(places, sizes, in_windows, anywhere)


def _scattered(y: Array, places: Array, sizes: Shape, overlap: str) -> Array:
    """Entries written to any places of a map; those outside of it are dropped."""
    size = math.prod(sizes)

    def scatter(values: Array, places: Array) -> Array:
        empty = jnp.zeros(size, values.dtype).at[places]
        return empty.add(values, mode="drop") if overlap == "add" else empty.set(values, mode="drop")

    flat = (y.shape[0], math.prod(y.shape[1:-1]), y.shape[-1])
    places = jnp.where(places < 0, size, places)  # .at counts negative indices from the end
    per_channel = jax.vmap(jax.vmap(scatter, in_axes=1, out_axes=1))
    return per_channel(y.reshape(flat), places.reshape(flat)).reshape(y.shape[0], *sizes, y.shape[-1])


def _by_windows(places: Array, sizes: Shape, in_windows: Callable[[], Array], anywhere: Callable[[], Array]) -> Array:
    """One of two equal results: a fast one if each place is in a window of its own, or one for any places.

    Scattering and gathering take two to four times as long as to compare every entry of the map with the place that
    its window was given. The windows of a pool whose strides equal them do not overlap.
    """
    counts, strides = places.shape[1:-1], _strides(sizes, places.shape[1:-1])
    if 0 in (*counts, *strides) or any(
        count * stride > size for count, stride, size in zip(counts, strides, sizes, strict=True)
    ):
        return anywhere()
    own = jnp.ones((), bool)
    for axis, (count, stride, size) in enumerate(zip(counts, strides, sizes, strict=True)):
        coordinate = places // math.prod(sizes[axis + 1 :])
        coordinate = coordinate % size if axis else coordinate  # places outside the map stay outside
        window = jnp.arange(count).reshape([-1 if other == axis + 1 else 1 for other in range(places.ndim)])
        own &= jnp.all(coordinate // stride == window)
    return lax.cond(own, in_windows, anywhere)


def _strides(sizes: Shape, counts: Shape) -> Shape:
    """Those of a pool without padding, from the sizes of its input and output."""
    return tuple(size // max(count, 1) for size, count in zip(sizes, counts, strict=True))


def _in_blocks(y: Array) -> Array:
    """``(batch, *output, C)`` with an axis of size 1 behind each spatial axis, for the entries of its window."""
    return y.reshape(y.shape[0], *(number for count in y.shape[1:-1] for number in (count, 1)), y.shape[-1])


def _positions(sizes: Shape, counts: Shape) -> Array:
    """The row-major position in a map of each entry of each window, (1, rows, window rows, ..., 1)."""
    total: Any = 0
    for axis, (count, stride) in enumerate(zip(counts, _strides(sizes, counts), strict=True)):
        along = jnp.arange(count * stride, dtype=jnp.int32) * math.prod(sizes[axis + 1 :])
        shape = [1] * (2 * len(sizes) + 2)
        shape[1 + 2 * axis : 3 + 2 * axis] = count, stride
        total = total + along.reshape(shape)
    return total


_unpool, _ = transposes(
    "max_unpool",
    _written,
    _read,
    lambda y, places, *, sizes, overlap: (y[0], *sizes, y[-1]),
    lambda x, places, *, sizes, overlap: places,
    static=("sizes", "overlap"),
)


def upsample(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    scale: int | Sequence[int],
    *,
    method: str = "nearest",
    align_corners: bool = False,
) -> Shaped[Array, "*batch_and_output channels"]:
    """Enlarges a map by integer factors.

    Args:
      x: ``(*batch, *space, C)``, any number of batch axes, including none; bfloat16, float16, float32 or float64.
      scale: The factors, one int per spatial axis; one int applies to every axis except the first and the last.
      method: ``'nearest'`` repeats each entry. ``'bilinear'`` interpolates linearly along each axis (so it is linear in
        1-D and trilinear in 3-D). ``'bed_of_nails'`` writes each entry to the first position of its block and zeros
        elsewhere.
      align_corners: Only for ``'bilinear'``: whether the outermost entries stay at the outermost positions. Otherwise
        entries are at the centres of equal cells and the border values are repeated, as in image resizing.

    Returns:
      ``(*batch, *space * scale, C)``.

    Raises:
      UsageError: A factor is below 1, the method is unknown, or ``align_corners`` is used with another method than
        ``'bilinear'``.

    >>> x = jnp.array([1.0, 2.0])[:, None]
    >>> for method in ("nearest", "bilinear", "bed_of_nails"):
    ...     print(upsample(x, (2,), method=method)[:, 0])
    [1. 1. 2. 2.]
    [1.   1.25 1.75 2.  ]
    [1. 0. 2. 0.]
    """
    op = "upsample"
    check_option(op, "method", method, UPSAMPLINGS)
    if align_corners and method != "bilinear":
        raise UsageError(f"{op}: align_corners=True has no effect with method={method!r}; use method='bilinear'")
    x = check_array(op, "x", x, empty=True)
    factors = window_sizes(op, "scale", scale, x)
    merged, batch = split_batch(op, x, len(factors), f"scale={factors}")

    def enlarge(y: Array) -> Array:
        for axis, factor in enumerate(factors, start=1):
            if method == "nearest":
                y = jnp.repeat(y, factor, axis=axis)
            elif method == "bilinear":
                y = mix(y, interpolation(merged.shape[axis], factor, align_corners), axis)
            else:
                widths = [(0, 0, 0)] * y.ndim
                widths[axis] = (0, factor - 1, factor - 1)
                y = lax.pad(y, jnp.zeros((), y.dtype), widths)
        return y

    y = in_float32(enlarge, merged)
    return y.reshape(*batch, *y.shape[1:])


def interpolation(size: int, factor: int, align_corners: bool) -> np.ndarray:
    """The matrix ``(size * factor, size)`` of linear interpolation along one axis.

    >>> interpolation(2, 2, False).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    index = np.arange(size * factor)
    if align_corners:
        position = index * (size - 1) / max(size * factor - 1, 1)
    else:
        position = (index + 0.5) / factor - 0.5
    position = np.clip(position, 0, size - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(size)))
