"""Pooling in plain NumPy loops in float64, the reference for every pool.

It shares no code with the package. Every function walks over the same windows: output position ``p`` and, in
row-major order, the input positions ``q`` that the window holds.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from tests.ops.reference import Axis


@dataclass(frozen=True)
class Case:
    """A pool of an array ``(batch, *space, channels)``, with a cotangent for its output."""

    axes: tuple[Axis, ...]
    rounding: str
    x: np.ndarray
    dy: np.ndarray

    @property
    def options(self):
        return {
            "strides": tuple(axis.stride for axis in self.axes),
            "padding": tuple((axis.low, axis.high) for axis in self.axes),
            "dilation": tuple(axis.dilation for axis in self.axes),
            "rounding": self.rounding,
        }

    @property
    def window(self):
        return tuple(axis.window for axis in self.axes)

    def windows(self):
        """Output position, input positions, and how many entries count if padding does."""
        starts = [list(enumerate(axis.positions(self.rounding))) for axis in self.axes]
        for corner in itertools.product(*starts):
            seen, counted = [], 0
            for tap in itertools.product(*(range(axis.window) for axis in self.axes)):
                q = tuple(start + t * axis.dilation for (_, start), t, axis in zip(corner, tap, self.axes, strict=True))
                ends = [(axis.size + min(axis.high, 0), axis.size + axis.high) for axis in self.axes]
                begins = [max(-axis.low, 0) for axis in self.axes]
                counted += all(i < end for i, (_, end) in zip(q, ends, strict=True))
                if all(begin <= i < end for begin, i, (end, _) in zip(begins, q, ends, strict=True)):
                    seen.append(q)
            yield tuple(p for p, _ in corner), seen, counted

    def rows(self):
        """For every window, batch entry and channel: where it is in the output, and its values, with positions."""
        for p, seen, counted in self.windows():
            for n, c in itertools.product(range(self.x.shape[0]), range(self.x.shape[-1])):
                yield (n, *p, c), [(n, *q, c) for q in seen], counted

    def max_pool(self, ties):
        """Output, row-major positions in space, and the gradient."""
        y, dx = np.zeros(self.dy.shape), np.zeros(self.x.shape)
        indices = np.zeros(self.dy.shape, int)
        for p, seen, _ in self.rows():
            values = [self.x[q] for q in seen]
            y[p] = max(values)
            tied = [q for q, value in zip(seen, values, strict=True) if value == y[p]]
            indices[p] = np.ravel_multi_index(tied[0][1:-1], self.x.shape[1:-1])
            for q in tied[:1] if ties == "first" else tied:
                dx[q] += self.dy[p] / (len(tied) if ties == "split" else 1)
        return y, indices, dx

    def avg_pool(self, count_include_pad):
        y, dx = np.zeros(self.dy.shape), np.zeros(self.x.shape)
        for p, seen, counted in self.rows():
            count = counted if count_include_pad else len(seen)
            y[p] = sum(self.x[q] for q in seen) / count
            for q in seen:
                dx[q] += self.dy[p] / count
        return y, dx

    def lp_pool(self, power):
        y, dx = np.zeros(self.dy.shape), np.zeros(self.x.shape)
        for p, seen, _ in self.rows():
            y[p] = sum(abs(self.x[q]) ** power for q in seen) ** (1 / power)
            for q in seen:
                if y[p]:
                    dx[q] += self.dy[p] * np.sign(self.x[q]) * (abs(self.x[q]) / y[p]) ** (power - 1)
        return y, dx


# Around 16 channels the pools of XLA change from one axis after the other to all axes at once.
def build(pick, dtype=np.float64, channels=(1, 2, 16)):
    """A valid pool of rank 1 to 3, made of the choices of ``pick``; every window sees some of the input."""
    rank = pick([1, 1, 2, 2, 2, 3])
    rounding = pick(["floor", "floor", "ceil", "strict"])
    axes = []
    for _ in range(rank):
        size = pick(range(1, 10 if rank < 3 else 6)) if rank > 1 else pick([*range(1, 10), 20, 30])
        window, stride, dilation = pick(range(1, 5 if rank < 3 else 4)), pick([1, 1, 2, 3]), pick([1, 1, 1, 2, 3])
        if size >= 20:  # wide enough for a window that is reduced by doubling
            window, dilation = pick(range(17, 21)), 1
        reach = (window - 1) * dilation + 1
        low, high = pick(range(-1, min(window, 4))), pick(range(-1, min(window, 4)))
        if size + min(low, 0) + min(high, 0) < 1:
            low, high = max(low, 0), max(high, 0)
        high = max(high, reach - size - low)
        if rounding == "strict":
            high += -(size + low + high - reach) % stride
        axes.append(Axis(size, window, stride, low, high, dilation=dilation))
    rng = np.random.default_rng(pick(range(2**20)))
    batch, depth = pick([1, 2]), pick(channels)
    shape = (batch, *(axis.size for axis in axes), depth)
    x = rng.integers(-2, 3, shape) if pick([True, False]) else rng.standard_normal(shape)
    output = tuple(len(axis.positions(rounding)) for axis in axes)
    dy = rng.standard_normal((batch, *output, depth))
    case = Case(tuple(axes), rounding, x.astype(dtype), dy.astype(dtype))
    return case if all(seen for _, seen, _ in case.windows()) else build(pick, dtype, channels)
