"""The three products of a convolution in float64, by one matrix product per entry of the window."""

import itertools

import numpy as np

from tests.ops.reference import Axis, grouped, output_shape


def _padded(x: np.ndarray, axes: list[Axis]) -> np.ndarray:
    """With its zeros, or without what a negative padding crops."""
    widths = [(0, 0), *((max(axis.low, 0), max(axis.high, 0)) for axis in axes), (0, 0)]
    crops = [slice(max(-axis.low, 0), axis.size - max(-axis.high, 0)) for axis in axes]
    return np.pad(np.asarray(x, np.float64)[:, *crops], widths)


def _seen(tap: tuple[int, ...], axes: list[Axis]) -> tuple[slice, ...]:
    """The inputs that the outputs read for an entry of the window."""
    starts = [t * axis.dilation for t, axis in zip(tap, axes, strict=True)]
    counts = output_shape(axes)
    spans = zip(starts, counts, axes, strict=True)
    return (slice(None), *(slice(start, start + (n - 1) * axis.stride + 1, axis.stride) for start, n, axis in spans))


def products(x, kernel, dy, axes, groups):
    """Output, input gradient and kernel gradient."""
    seen, kernel, dy = _padded(x, axes), np.asarray(kernel, np.float64), np.asarray(dy, np.float64)
    y, dx, dk = np.zeros(dy.shape), np.zeros(seen.shape), np.zeros(kernel.shape)
    sums = tuple(range(x.ndim - 1))
    pairs = list(zip(grouped(x.shape[-1], groups), grouped(dy.shape[-1], groups), strict=True))
    for tap in itertools.product(*(range(axis.window) for axis in axes)):
        where = _seen(tap, axes)
        for inputs, outputs in pairs:
            y[..., outputs] += seen[where][..., inputs] @ kernel[tap][:, outputs]
            dx[(*where, inputs)] += dy[..., outputs] @ kernel[tap][:, outputs].T
            dk[tap][:, outputs] += np.tensordot(seen[where][..., inputs], dy[..., outputs], (sums, sums))
    crops = [slice(max(axis.low, 0), axis.size + axis.low - max(-axis.high, 0)) for axis in axes]
    widths = [(0, 0), *((max(-axis.low, 0), max(-axis.high, 0)) for axis in axes), (0, 0)]
    return y, np.pad(dx[:, *crops], widths), dk
