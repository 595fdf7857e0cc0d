"""Windows along one axis, as strided slices: what every pool is made of, and its adjoint.

Tap ``t`` of a window is one strided slice of the padded axis, which holds entry ``t`` of every window. Maxima and sums
over windows are then elementwise operations on a few slices, and a pool of any rank is one such pass per axis. On a CPU
this is several times faster than ``lax.reduce_window``, and its gradient tens of times faster than the
``select-and-scatter`` that JAX derives (``docs/decisions.md``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped


@dataclass(frozen=True)
class Axis:
    """Where the windows of one axis are; hashable, so that it can be a static argument."""

    index: int
    size: int
    """Size of the axis without padding."""
    window: int
    stride: int
    dilation: int
    low: int
    """Padding before, at least 0."""
    high: int
    """Padding behind, at least 0; the last window may reach beyond it."""
    out: int
    """The number of windows."""

    def positions(self) -> np.ndarray:
        """The input position of each tap of each window, ``(out, window)``; outside ``range(size)`` in padding.

        >>> Axis(index=0, size=5, window=3, stride=2, dilation=1, low=1, high=1, out=3).positions().tolist()
        [[-1, 0, 1], [1, 2, 3], [3, 4, 5]]
        """
        return np.arange(self.out)[:, None] * self.stride + np.arange(self.window) * self.dilation - self.low

    def inside(self, *, padded: bool = False) -> np.ndarray:
        """Whether each tap of each window is in the input (with its padding, if asked), ``(out, window)``."""
        positions = self.positions()
        low, high = (self.low, self.high) if padded else (0, 0)
        return (-low <= positions) & (positions < self.size + high)

    def along(self, table: np.ndarray, rank: int) -> np.ndarray:
        """A vector of ``out`` entries, shaped to broadcast along this axis of an array of that rank.

        >>> Axis(index=1, size=4, window=2, stride=2, dilation=1, low=0, high=0, out=2).along(np.ones(2), rank=4).shape
        (2, 1, 1)
        """
        return table.reshape(-1, *(1,) * (rank - self.index - 1))


def taps(x: Shaped[Array, "..."], axis: Axis, fill: float) -> list[Shaped[Array, "..."]]:
    """One array per tap of the window, each with ``axis.out`` entries along the axis; padding reads ``fill``.

    >>> x = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> [tap.tolist() for tap in taps(x, Axis(0, 5, window=3, stride=2, dilation=1, low=1, high=1, out=3), fill=0.0)]
    [[0.0, 2.0, 4.0], [1.0, 3.0, 5.0], [2.0, 4.0, 0.0]]
    """
    last = (axis.out - 1) * axis.stride
    end = last + (axis.window - 1) * axis.dilation + 1
    x = _fit(x, axis.index, axis.low, end, fill)
    starts = [tap * axis.dilation for tap in range(axis.window)]
    return [lax.slice_in_dim(x, start, start + last + 1, axis.stride, axis.index) for start in starts]


def untap(parts: Sequence[Shaped[Array, "..."]], axis: Axis) -> Shaped[Array, "..."]:
    """The adjoint of :func:`taps`: adds every entry of every part to the input position it was read from.

    Entries from padding are dropped. Positions are split by their remainder modulo the stride, because then each
    remainder gathers shifted parts, with no gaps between entries, and interleaving them is a reshape.

    >>> parts = [jnp.array([1.0, 2.0]), jnp.array([10.0, 20.0]), jnp.array([100.0, 200.0])]
    >>> untap(parts, Axis(0, 5, window=3, stride=2, dilation=1, low=0, high=0, out=2)).tolist()
    [1.0, 10.0, 102.0, 20.0, 200.0]
    """
    index, stride = axis.index, axis.stride
    per_phase = -(-(axis.low + axis.size) // stride)
    phases: list[Array | None] = [None] * stride
    for tap, part in enumerate(parts):
        shift, phase = divmod(tap * axis.dilation, stride)
        part = _fit(part, index, shift, per_phase, 0.0)
        total = phases[phase]
        phases[phase] = part if total is None else total + part
    filled = [jnp.zeros_like(_fit(parts[0], index, 0, per_phase, 0.0)) if total is None else total for total in phases]
    x = filled[0]
    if stride > 1:
        stacked = jnp.stack(filled, index + 1)
        x = stacked.reshape(*stacked.shape[:index], per_phase * stride, *stacked.shape[index + 2 :])
    return _fit(x, index, -axis.low, axis.size, 0.0)


def _fit(x: Array, index: int, low: int, size: int, fill: float) -> Array:
    """Pads (or, below 0, crops) an axis before by ``low``, and behind to the given size."""
    widths = [(0, 0, 0)] * x.ndim
    widths[index] = (low, size - low - x.shape[index], 0)
    return x if widths[index] == (0, 0, 0) else lax.pad(x, jnp.asarray(fill, x.dtype), widths)
