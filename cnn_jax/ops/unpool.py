"""Enlarging feature maps: unpooling with the positions of the maxima, and upsampling without them."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.adaptive_pool import mix
from cnn_jax.ops.arguments import AnyArray, as_array, by, check_array, check_option, concrete, split_batch, window_sizes
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
    values = merged.reshape(merged.shape[0], math.prod(merged.shape[1:-1]), merged.shape[-1])
    places = indices.reshape(values.shape)
    places = jnp.where(places < 0, size, places)  # .at counts negative indices from the end

    def scatter(values: Array, places: Array) -> Array:
        empty = jnp.zeros(size, values.dtype).at[places]
        return empty.add(values, mode="drop") if overlap == "add" else empty.set(values, mode="drop")

    per_channel = jax.vmap(jax.vmap(scatter, in_axes=1, out_axes=1))
    unpooled = in_float32(lambda values: per_channel(values, places), values)
    return unpooled.reshape(*batch, *sizes, merged.shape[-1])


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
