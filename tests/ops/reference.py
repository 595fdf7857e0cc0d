"""Convolution in plain NumPy loops in float64, the reference for all methods.

It shares no code with the package. All functions walk over the same links: output position ``p``, entry ``t`` of
the window, input position ``q`` that they meet at. A convolution adds ``x[q] * kernel[t]`` to ``y[p]``, its adjoint
adds ``y[p] * kernel[t]`` to ``x[q]``, and the gradient of the kernel adds ``x[q] * y[p]`` to ``kernel[t]``.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Axis:
    """One spatial axis: everything a user can say about it, padding as numbers."""

    size: int
    window: int
    stride: int = 1
    low: int = 0
    high: int = 0
    input_dilation: int = 1
    dilation: int = 1

    @property
    def extent(self) -> int:
        return (self.size - 1) * self.input_dilation + 1

    @property
    def reach(self) -> int:
        return (self.window - 1) * self.dilation + 1

    def positions(self, rounding: str) -> list[int]:
        """Where the windows start, in coordinates of the dilated input."""
        last = self.extent + self.high - self.reach
        starts = list(range(-self.low, last + 1, self.stride))
        if not starts:
            return []
        following = starts[-1] + self.stride
        left_over = last - starts[-1]
        if rounding == "strict":
            assert left_over == 0
        if rounding == "ceil" and left_over and following < self.extent:
            starts.append(following)
        return starts

    def find(self, position: int, boundary: str) -> int | None:
        """The input at a position of the dilated and endlessly extended axis; None where it is zero or constant."""
        n = self.extent
        while not 0 <= position < n:
            if boundary in ("zero", "constant"):
                return None
            if boundary == "replicate":
                position = 0 if position < 0 else n - 1
            elif boundary == "periodic":
                position += n if position < 0 else -n
            elif boundary == "symmetric":
                position = -1 - position if position < 0 else 2 * n - 1 - position
            elif n == 1:
                position = 0
            else:
                position = -position if position < 0 else 2 * (n - 1) - position
        return position // self.input_dilation if position % self.input_dilation == 0 else None

    def outside(self, position: int) -> bool:
        return not 0 <= position < self.extent


Link = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None, bool]


def links(axes: list[Axis], boundary: str, rounding: str) -> Iterator[Link]:
    """Yields (output position, entry, input position or None, whether the window is outside the input there)."""
    starts = [axis.positions(rounding) for axis in axes]
    for p in itertools.product(*(range(len(start)) for start in starts)):
        for t in itertools.product(*(range(axis.window) for axis in axes)):
            met = [starts[i][p[i]] + t[i] * axis.dilation for i, axis in enumerate(axes)]
            q = [axis.find(m, boundary) for axis, m in zip(axes, met, strict=True)]
            outside = any(axis.outside(m) for axis, m in zip(axes, met, strict=True))
            yield p, t, None if None in q else tuple(q), outside  # type: ignore[arg-type]


def output_shape(axes: list[Axis], rounding: str = "floor") -> tuple[int, ...]:
    return tuple(len(axis.positions(rounding)) for axis in axes)


def grouped(channels: int, groups: int) -> list[slice]:
    return [slice(g * channels // groups, (g + 1) * channels // groups) for g in range(groups)]


def conv(x, kernel, axes, *, groups=1, boundary="zero", value=0.0, rounding="floor"):
    """``x (N, *space, C_in)``, ``kernel (*window, C_in / groups, C_out)`` -> ``(N, *output, C_out)``."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    y = np.zeros((x.shape[0], *output_shape(axes, rounding), kernel.shape[-1]))
    pairs = list(zip(grouped(x.shape[-1], groups), grouped(kernel.shape[-1], groups), strict=True))
    for p, t, q, outside in links(axes, boundary, rounding):
        if q is None and not (boundary == "constant" and outside):
            continue
        seen = np.full((x.shape[0], x.shape[-1]), value) if q is None else x[(slice(None), *q)]
        for inputs, outputs in pairs:
            y[(slice(None), *p, outputs)] += seen[:, inputs] @ kernel[t][:, outputs]
    return y


def conv_transpose(y, kernel, axes, *, groups=1, boundary="zero", rounding="floor"):
    """The adjoint of :func:`conv` in ``x``."""
    y, kernel = np.asarray(y, np.float64), np.asarray(kernel, np.float64)
    x = np.zeros((y.shape[0], *(axis.size for axis in axes), kernel.shape[-2] * groups))
    pairs = list(zip(grouped(x.shape[-1], groups), grouped(kernel.shape[-1], groups), strict=True))
    for p, t, q, _ in links(axes, boundary, rounding):
        if q is not None:
            for inputs, outputs in pairs:
                x[(slice(None), *q, inputs)] += y[(slice(None), *p, outputs)] @ kernel[t][:, outputs].T
    return x


def kernel_gradient(x, y, axes, *, groups=1, boundary="zero", value=0.0, rounding="floor"):
    """The adjoint of :func:`conv` in ``kernel``."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    window = tuple(axis.window for axis in axes)
    kernel = np.zeros((*window, x.shape[-1] // groups, y.shape[-1]))
    pairs = list(zip(grouped(x.shape[-1], groups), grouped(y.shape[-1], groups), strict=True))
    for p, t, q, outside in links(axes, boundary, rounding):
        if q is None and not (boundary == "constant" and outside):
            continue
        seen = np.full((x.shape[0], x.shape[-1]), value) if q is None else x[(slice(None), *q)]
        for inputs, outputs in pairs:
            kernel[(*t, slice(None), outputs)] += seen[:, inputs].T @ y[(slice(None), *p, outputs)]
    return kernel


def named_padding(name: str, extent: int, reach: int, stride: int) -> tuple[int, int]:
    """The numbers behind a name, from their definitions."""
    if name in ("SAME", "SAME_LOWER"):
        total = 0
        while (extent + total - reach) // stride + 1 < math.ceil(extent / stride):
            total += 1
        halves = total // 2, math.ceil(total / 2)
        return halves if name == "SAME" else halves[::-1]
    return {
        "VALID": (0, 0),
        "HALF": (reach // 2, reach // 2),
        "FULL": (reach - 1, reach - 1),
        "CAUSAL": (reach - 1, 0),
    }[name]
