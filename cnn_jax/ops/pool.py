"""Pooling of any rank: maxima, averages and p-norms of windows.

The length of the window determines the number of spatial axes in ``(*batch, *space, C)``: ``window=(2, 2)`` pools the
two axes before the channels. ``window=2`` applies to every axis except the first (the batch) and the last (the
channels). For one image without a batch axis it therefore does not pool the first spatial axis. The strides are equal
to the window by default.
"""

import functools
import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import (
    DERIVATIVES,
    AnyArray,
    Shape,
    accumulator,
    check_array,
    check_option,
    per_axis,
    split_batch,
    window_sizes,
)
from cnn_jax.ops.padding import Padding, slide
from cnn_jax.ops.primitives import one_program
from cnn_jax.ops.reductions import (
    choose,
    passes,
    tied_maxima,
    window_maxima,
    window_sums,
    winners,
)
from cnn_jax.ops.taps import Axes, Axis

TIES = ("first", "split", "all")


def max_pool(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    window: int | Sequence[int],
    *,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    rounding: str = "floor",
    ties: str = "first",
    return_indices: bool = False,
    derivatives: str = "custom",
) -> Any:
    """Computes the maximum of every window, per channel.

    Args:
      x: ``(*batch, *space, C)``, any number of batch axes, including none; bfloat16, float16, float32 or float64.
      window: Sizes of the window, one per spatial axis; one int applies to every axis except the first and the last.
      strides: The distance between neighbouring windows, one int or one per axis; equal to the window by default.
      padding: The same as in :func:`cnn_jax.ops.conv`. Padding is never the maximum.
      dilation: The distance between neighbouring entries of a window, one int or one per axis.
      rounding: What to do if the stride does not divide the axis: ``'strict'`` raises an error, ``'floor'`` ignores the
        remainder, ``'ceil'`` adds a last window with the remaining entries.
      ties: How the gradient is distributed if a window has several maxima. ``'first'``: to the first maximum in
        row-major order, as in PyTorch. ``'split'``: in equal parts to all maxima. ``'all'``: in full to each maximum,
        so that the sum of the gradient grows.
      return_indices: Whether to return the positions of the maxima as well.
      derivatives: Has no effect; still accepted for one release.

    Returns:
      ``(*batch, *output, C)``; with ``return_indices`` a pair of this array and int32 indices of the same shape. An
      index is the row-major position of the (first) maximum in the ``*space`` of ``x``, as in PyTorch; see
      :func:`cnn_jax.ops.max_unpool`.

    Raises:
      UsageError: The window does not fit, a window contains only padding, or an option is unknown.

    References:
      Weng, Ahuja and Huang, Cresceptron, 1992; Riesenhuber and Poggio, Hierarchical models of object recognition in
      cortex, 1999.

    >>> x = jnp.array([1.0, 3.0, 2.0, 5.0, 4.0])[:, None]
    >>> max_pool(x, (2,))[:, 0], max_pool(x, (2,), rounding="ceil")[:, 0]
    (Array([3., 5.], dtype=float32), Array([3., 5., 4.], dtype=float32))
    >>> max_pool(x, (3,), strides=2, return_indices=True)[1][:, 0]
    Array([1, 3], dtype=int32)
    """
    op = "max_pool"
    check_option(op, "ties", ties, TIES)
    check_option(op, "derivatives", derivatives, DERIVATIVES)
    x, batch, axes, origins = arguments(op, x, window, strides, padding, dilation, rounding)
    check_not_empty(op, padding, axes)
    y = _maxima(x, axes=axes, origins=origins, ties=ties)
    y = y.reshape(*batch, *y.shape[1:])
    if not return_indices:
        return y
    indices = _first_maxima(lax.stop_gradient(x), axes=axes, origins=origins)
    return y, indices.reshape(y.shape)


def avg_pool(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    window: int | Sequence[int],
    *,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    rounding: str = "floor",
    count_include_pad: bool = True,
    derivatives: str = "custom",
) -> Shaped[Array, "*batch_and_output channels"]:
    """Computes the average of every window, per channel.

    Args:
      x: ``(*batch, *space, C)``, any number of batch axes, including none; bfloat16, float16, float32 or float64. The
        two half-precision types are summed in float32.
      window: Sizes of the window, one per spatial axis; one int applies to every axis except the first and the last.
      strides: The distance between neighbouring windows, one int or one per axis; equal to the window by default.
      padding: The same as in :func:`cnn_jax.ops.conv`. Padding is zero.
      dilation: The distance between neighbouring entries of a window, one int or one per axis.
      rounding: What to do if the stride does not divide the axis: ``'strict'`` raises an error, ``'floor'`` ignores the
        remainder, ``'ceil'`` adds a last window, which averages the remaining entries.
      count_include_pad: Whether the number that a sum is divided by includes padding. It never includes missing entries
        of a last, partial window.
      derivatives: Has no effect; still accepted for one release.

    Returns:
      ``(*batch, *output, C)``.

    Raises:
      UsageError: The window does not fit, a window contains no entries to average, or an option is unknown.

    References:
      LeCun et al., Handwritten digit recognition with a back-propagation network, 1990.

    >>> x = jnp.array([1.0, 3.0, 2.0, 5.0, 4.0])[:, None]
    >>> avg_pool(x, (2,), rounding="ceil")[:, 0]
    Array([2. , 3.5, 4. ], dtype=float32)
    >>> avg_pool(x, (3,), padding=1, count_include_pad=False)[:, 0]
    Array([2. , 3.6666667], dtype=float32)
    """
    op = "avg_pool"
    check_option(op, "derivatives", derivatives, DERIVATIVES)
    x, batch, axes, origins = arguments(op, x, window, strides, padding, dilation, rounding)
    if not count_include_pad:
        check_not_empty(op, padding, axes)
    y = _averages(x, axes=axes, origins=origins, count_include_pad=count_include_pad)
    return y.reshape(*batch, *y.shape[1:])


@one_program("axes", "origins", "count_include_pad")
def _averages(x: Array, *, axes: Axes, origins: tuple[int, ...], count_include_pad: bool) -> Array:
    y = window_sums(axes, crop(x, axes, origins))
    counts = [slide.inside(padded=count_include_pad).sum(axis=1) for slide in axes]
    if all((count == count[0]).all() for count in counts):
        y = y / math.prod(int(count[0]) for count in counts)
    else:
        y = y / reduce(np.multiply, [slide.along(c, y.ndim) for slide, c in zip(axes, counts, strict=True)]).astype(
            y.dtype
        )
    return y.astype(x.dtype)


def lp_pool(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    window: int | Sequence[int],
    *,
    p: int | float = 2,
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    rounding: str = "floor",
    derivatives: str = "custom",
) -> Shaped[Array, "*batch_and_output channels"]:
    """Computes the p-norm ``(sum |x|^p)^(1/p)`` of every window, per channel.

    It ranges from a sum (p = 1) to a maximum (large p).

    The gradient of a window that contains only zeros is 0.

    Args:
      x: ``(*batch, *space, C)``, any number of batch axes, including none; bfloat16, float16, float32 or float64. The
        two half-precision types are summed in float32.
      window: Sizes of the window, one per spatial axis; one int applies to every axis except the first and the last.
      p: The exponent, at least 1.
      strides: The same as in :func:`avg_pool`.
      padding: The same as in :func:`avg_pool`.
      dilation: The same as in :func:`avg_pool`.
      rounding: The same as in :func:`avg_pool`.
      derivatives: Has no effect; still accepted for one release.

    Returns:
      ``(*batch, *output, C)``.

    Raises:
      UsageError: The window does not fit, p is below 1, or an option is unknown.

    References:
      Sermanet, Chintala and LeCun, Convolutional neural networks applied to house numbers digit classification, 2012.

    >>> lp_pool(jnp.array([3.0, -4.0, 5.0, 12.0])[:, None], (2,))[:, 0]
    Array([ 5., 13.], dtype=float32)
    """
    op = "lp_pool"
    if not isinstance(p, int | float) or not 1 <= p < math.inf:
        raise UsageError(f"{op}: p={p!r} must be a finite number, at least 1; for the limit use max_pool(abs(x), ...)")
    check_option(op, "derivatives", derivatives, DERIVATIVES)
    x, batch, axes, origins = arguments(op, x, window, strides, padding, dilation, rounding)
    y = _norms(x, axes=axes, origins=origins, p=p)
    return y.reshape(*batch, *y.shape[1:])


@one_program("axes", "origins", "p")
def _norms(x: Array, *, axes: Axes, origins: tuple[int, ...], p: int | float) -> Array:
    wide = crop(x, axes, origins).astype(accumulator(x.dtype))
    # The sign makes the derivative of |x| at 0 equal to 0 (JAX's is 1). Even powers do not need it.
    sums = window_sums(axes, wide ** int(p) if p % 2 == 0 else (wide * jnp.sign(wide)) ** p)
    # The derivative of the root at 0 is infinite. Replacing 0 by 1 keeps it out of the gradient.
    return jnp.where(sums > 0, jnp.where(sums > 0, sums, 1) ** (1 / p), 0).astype(x.dtype)


def arguments(
    op: str,
    x: AnyArray,
    window: int | Sequence[int],
    strides: int | Sequence[int] | None,
    padding: Padding,
    dilation: int | Sequence[int],
    rounding: str,
) -> tuple[jax.Array, Shape, Axes, tuple[int, ...]]:
    """Checks the arguments that all pools share.

    Returns:
      ``x`` with one batch axis; the shape of the original batch axes; the positions of the windows in ``x`` after
      negative paddings have cropped it; and the position in ``x`` at which each cropped axis starts.
    """
    x = check_array(op, "x", x, empty=True)
    window = window_sizes(op, "window", window, x)
    rank = len(window)
    merged, batch = split_batch(op, x, rank, f"window={window}")
    steps = window if strides is None else per_axis(op, "strides", strides, rank)
    gaps = per_axis(op, "dilation", dilation, rank)
    if isinstance(padding, Sequence) and not isinstance(padding, str):  # hashable, as lists are not
        padding = tuple(tuple(entry) if isinstance(entry, list) else entry for entry in padding)
    return merged, batch, *_places(op, merged.shape[1:-1], window, steps, padding, gaps, rounding)


@functools.lru_cache(maxsize=1024)  # outside jit it would be a third of a small pool's time
def _places(
    op: str,
    sizes: tuple[int, ...],
    window: tuple[int, ...],
    steps: tuple[int, ...],
    padding: Padding,
    gaps: tuple[int, ...],
    rounding: str,
) -> tuple[Axes, tuple[int, ...]]:
    """Where windows are, and where each cropped axis starts."""
    sliding = slide(op, sizes, window, strides=steps, padding=padding, dilation=gaps, rounding=rounding, noun="window")
    axes = tuple(
        Axis(index, size + min(low, 0) + min(high, 0), span, step, gap, max(low, 0), max(high, 0), out)
        for index, (size, span, step, gap, (low, high), out) in enumerate(
            zip(sizes, window, steps, gaps, sliding.padding, sliding.output, strict=True), start=1
        )
    )
    return axes, tuple(max(-low, 0) for low, _ in sliding.padding)


@functools.lru_cache(maxsize=1024)
def check_not_empty(op: str, padding: Padding, axes: Axes) -> None:
    """Raises a ``UsageError`` if all entries of a window are padding."""
    for number, axis in enumerate(axes):
        empty = ~axis.inside().any(axis=1)
        if empty.any():
            raise UsageError(
                f"{op}: window {int(empty.argmax())} of spatial axis {number} (size {axis.size}) contains only "
                f"padding; padding={padding!r} must be less than window {axis.window} (dilation {axis.dilation})"
            )


def crop(x: jax.Array, axes: Axes, origins: Sequence[int]) -> jax.Array:
    """``x``, cropped by negative paddings."""
    kept = [slice(origin, origin + axis.size) for axis, origin in zip(axes, origins, strict=True)]
    return x[(slice(None), *kept)]


@one_program("axes", "origins", "ties")
def _maxima(x: Array, *, axes: Axes, origins: tuple[int, ...], ties: str) -> Array:
    x = crop(x, axes, origins)
    return window_maxima(axes, x) if ties == "first" else tied_maxima(axes, ties == "split", x)


@one_program("axes", "origins")
def _first_maxima(x: Array, *, axes: Axes, origins: tuple[int, ...]) -> Array:
    """The row-major position in the space of ``x`` of the first maximum of each window."""
    strides = {axis.index: math.prod(x.shape[axis.index + 1 : -1]) for axis in axes}
    begins = {axis.index: origin for axis, origin in zip(axes, origins, strict=True)}
    x = crop(x, axes, origins)
    index = jnp.zeros(x.shape, jnp.int32)
    for group in passes(axes, x):
        x, winner = winners(group, x)
        # This pass covers either all axes, and there is no index yet, or one axis.
        index = choose(group[0], index, winner=winner) if len(group) == 1 else jnp.zeros(x.shape, jnp.int32)
        numbers = jnp.unravel_index(winner.astype(jnp.int32), tuple(axis.window for axis in group))
        for axis, number in zip(group, numbers, strict=True):
            starts = axis.along(axis.positions()[:, 0] + begins[axis.index], x.ndim)
            index += (starts.astype(np.int32) + number * axis.dilation) * strides[axis.index]
    return index
