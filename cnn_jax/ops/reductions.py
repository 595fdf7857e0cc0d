"""Sums and maxima of windows, with fast gradients: the computations behind the pools.

A reduction is one pass over all axes together, or one pass per axis. Within a pass, small windows are reduced tap by
tap (``cnn_jax.ops.taps``). Wide windows are reduced by doubling: from windows of size 1 to sizes 2, 4, 8, and so on.
The number of operations then grows only with the logarithm of the window size.
"""

import math
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.native import calls, is_enabled, is_wanted
from cnn_jax.ops.arguments import Shape, accumulator, as_dtype
from cnn_jax.ops.primitives import LoweringContext, one_program, substitutable, transposes
from cnn_jax.ops.sharding import like
from cnn_jax.ops.taps import Axes, Axis, padded, taps, untap

_MOST_TAPS = 16
_FEWEST_CHANNELS = 16


def passes(axes: Axes, x: Array, *, native: bool = False) -> tuple[Axes, ...]:
    """The axes of each pass, in order: all axes in one pass, or one axis per pass, starting with the last.

    One pass for all axes reads memory fewer times. One pass per axis needs fewer taps. This is faster for few channels,
    whose slices are too short for vector instructions, and without native kernels if windows overlap at every position.
    In both cases the first of several maxima is the first in row-major order.

    Args:
      axes: The windows.
      x: An array with these axes.
      native: Whether the native kernels are to compute the passes where they can.
    """
    dense = all(axis.stride == 1 for axis in axes)
    by_kernel = native and x.dtype == jnp.float32
    together = x.shape[-1] >= _FEWEST_CHANNELS and not _wide(axes) and (by_kernel or not dense)
    return (axes,) if together else tuple((axis,) for axis in reversed(axes))


def _wide(axes: Axes) -> bool:
    return math.prod(axis.window for axis in axes) > _MOST_TAPS


# --- sums -------------------------------------------------------------------------------------------------------------


def window_sums(axes: Axes, x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """The sum of every window, in at least float32."""
    return _window_sum.bind(as_dtype(x, accumulator(x.dtype)), axes=axes)


def _sums(x: Array, *, axes: Axes) -> Array:
    for group in passes(axes, x):
        x = _doubled_sums(group[0], x) if _wide(group) else reduce(jnp.add, taps(x, group, 0.0))
    return x


def _adjoint_of_sums(dy: Array, *, axes: Axes) -> Array:
    """The adjoint of ``_sums``: every input position gets the sum of the values of the windows that contain it."""
    for group in reversed(passes(axes, dy)):
        if _wide(group):
            (dy,) = jax.linear_transpose(partial(_doubled_sums, group[0]), _input_like(group[0], dy))(dy)
        else:
            dy = untap(group, lambda tap, dy: dy, [dy])
    return dy


# --- maxima -----------------------------------------------------------------------------------------------------------


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def window_maxima(axes: Axes, x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """The maximum of every window; its derivative is that of the first maximum."""
    return _maxima(x, groups=_groups(axes, x))[-1][0]


@window_maxima.defjvp
def _window_maxima_jvp(axes: Axes, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    groups = _groups(axes, x)
    found = _maxima(x, groups=groups)
    for group, (_, winner) in zip(groups, found, strict=True):
        dx = _window_choice.bind(dx, winner, axes=group)
    return found[-1][0], dx


def _groups(axes: Axes, x: Array) -> tuple[Axes, ...]:
    """The axes of each pass of a maximum, which are chosen before it is known what the program is compiled for."""
    return passes(axes, x, native=is_wanted())


@one_program("groups")
def _maxima(x: Array, *, groups: tuple[Axes, ...]) -> list[tuple[Array, Array]]:
    """The results of each pass: the maxima, and the numbers of the window entries that are the maxima."""
    found = []
    for group in groups:
        x, winner = _window_winners.bind(x, axes=group)
        found.append((x, winner))
    return found


def _chosen(x: Array, winner: Array, *, axes: Axes) -> Array:
    """The entry with number ``winner`` in every window."""
    if _wide(axes):
        return choose(axes[0], x, winner=winner)
    first, *others = taps(x, axes, 0.0)
    for tap, value in enumerate(others, start=1):
        first = jnp.where(winner == tap, value, first)
    return first


def _adjoint_of_choice(dy: Array, winner: Array, *, axes: Axes) -> Array:
    def share(tap: int, dy: Array, winner: Array) -> Array:
        return jnp.where(winner == tap, dy, jnp.zeros((), dy.dtype))

    if not _wide(axes):
        return untap(axes, share, [dy, winner])
    select = partial(choose, axes[0], winner=winner)
    return jax.linear_transpose(select, _input_like(axes[0], dy))(dy)[0]


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def tied_maxima(axes: Axes, split: bool, x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """The maximum of every window; its derivative is the mean (``split``) or sum of those of all maximal entries."""
    return _maxima(x, groups=_groups(axes, x))[-1][0]


@tied_maxima.defjvp
def _tied_maxima_jvp(axes: Axes, split: bool, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    y = tied_maxima(axes, split, x)  # Itself, so that higher derivatives follow the same rule for ties.
    # The choice of the maximal entries is constant for higher derivatives.
    x = lax.stop_gradient(x)
    count = jnp.ones_like(x, jnp.float32)
    groups = passes(axes, x)
    for group, (maxima, _) in zip(groups, _maxima(x, groups=groups), strict=True):
        count = _tied_sum.bind(count, x, maxima, axes=group)
        dx = _tied_sum.bind(dx, x, maxima, axes=group)
        x = maxima
    return y, dx / count.astype(dx.dtype) if split else dx


def _tied(dx: Array, x: Array, y: Array, *, axes: Axes) -> Array:
    """The sum of those entries of ``dx`` in every window at which ``x`` is maximal."""
    pairs = zip(taps(x, axes, -jnp.inf), taps(dx, axes, 0.0), strict=True)
    return reduce(jnp.add, [jnp.where(_is(value, y), entry, jnp.zeros((), dx.dtype)) for value, entry in pairs])


def _adjoint_of_tied(dy: Array, x: Array, y: Array, *, axes: Axes) -> Array:
    def share(tap: int, dy: Array, y: Array, x: Array) -> Array:
        return jnp.where(_is(x, y), dy, jnp.zeros((), dy.dtype))

    return untap(axes, share, [dy, y], [x])


def _is(value: Array, maximum: Array) -> Array:
    """Whether an entry is the maximum of its window. A NaN always counts as a maximum."""
    return (value == maximum) | jnp.isnan(value)


def winners(axes: Axes, x: Shaped[Array, "..."]) -> tuple[Shaped[Array, "..."], Shaped[Array, "..."]]:
    """The maximum of every window, and the row-major number of the first window entry with that value.

    A NaN counts as a maximum. If there are several, the last one is used, as in PyTorch.
    """
    y, winner = _doubled_winners(axes[0], x) if _wide(axes) else _tapped_winners(axes, x)
    # Padding is -inf. It is selected only if all other entries are -inf too; then the first of these is used instead.
    opening = np.zeros((), int)
    for axis in axes:
        opening = opening * axis.window + axis.along(axis.inside().argmax(axis=1), x.ndim)
    return y, jnp.maximum(winner, opening.astype(winner.dtype)) if opening.any() else winner


def _tapped_winners(axes: Axes, x: Array) -> tuple[Array, Array]:
    first, *others = taps(x, axes, -jnp.inf)
    dtype = np.min_scalar_type(len(others))
    y, winner = first, jnp.zeros(first.shape, dtype)
    for tap, value in enumerate(others, start=1):
        wins = (value > y) | jnp.isnan(value)
        y, winner = jnp.where(wins, value, y), jnp.where(wins, jnp.asarray(tap, dtype), winner)
    return y, winner


def _doubled_winners(axis: Axis, x: Array) -> tuple[Array, Array]:
    y = padded(x, (axis,), -jnp.inf)
    winner, width = jnp.zeros(y.shape, jnp.int32), 1
    while width < axis.window:
        step = min(width, axis.window - width)  # the two halves may overlap, which does not change a maximum
        (y, later), (winner, moved) = _halves(axis, y, step), _halves(axis, winner, step)
        wins = (later > y) | jnp.isnan(later)
        y, winner = jnp.where(wins, later, y), jnp.where(wins, moved + step, winner)
        width += step
    return _every(axis, y, 0), _every(axis, winner, 0)


def _doubled_sums(axis: Axis, x: Array) -> Array:
    sums = padded(x, (axis,), 0.0)
    parts, start, width = [], 0, 1
    while True:
        if axis.window & width:
            parts.append(_every(axis, sums, start))
            start += width * axis.dilation
        if 2 * width > axis.window:
            return reduce(jnp.add, parts)
        sums = jnp.add(*_halves(axis, sums, width))
        width *= 2


def _halves(axis: Axis, x: Array, step: int) -> tuple[Array, Array]:
    """All entries that have another entry ``step`` taps later, and those later entries."""
    shift, size = step * axis.dilation, x.shape[axis.index]
    earlier = lax.slice_in_dim(x, 0, size - shift, axis=axis.index)
    return earlier, lax.slice_in_dim(x, shift, size, axis=axis.index)


def _every(axis: Axis, x: Array, start: int) -> Array:
    """A slice with one entry per window."""
    return lax.slice_in_dim(x, start, start + (axis.out - 1) * axis.stride + 1, axis.stride, axis.index)


def choose(axis: Axis, x: Shaped[Array, "..."], *, winner: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """The entry with number ``winner`` in every window of one axis."""
    starts = axis.along(axis.positions()[:, 0].astype(np.int32), winner.ndim)
    return jnp.take_along_axis(x, starts + winner.astype(jnp.int32) * axis.dilation, axis=axis.index)


def _input_like(axis: Axis, y: Array) -> jax.ShapeDtypeStruct:
    shape = list(y.shape)
    shape[axis.index] = axis.size
    return like(tuple(shape), y)


# --- as primitives ----------------------------------------------------------------------------------------------------


def _output_shape(x: Shape, *constants: Shape, axes: Axes) -> Shape:
    sizes = {axis.index: axis.out for axis in axes}
    return tuple(sizes.get(index, size) for index, size in enumerate(x))


def _input_shape(y: Shape, *constants: Shape, axes: Axes) -> Shape:
    sizes = {axis.index: axis.size for axis in axes}
    return tuple(sizes.get(index, size) for index, size in enumerate(y))


def _windows(program: LoweringContext, x: Array, axes: Axes) -> tuple[list[calls.PooledAxis], int] | None:
    """The windows as the native kernels take them, where they can be used and are faster."""
    numbers = [axis.index for axis in axes]
    after = math.prod(x.shape[numbers[-1] + 1 :])
    neighbours = numbers == list(range(numbers[0], numbers[0] + len(axes))) and len(axes) <= 3
    possible = neighbours and x.dtype == jnp.float32 and x.size and not _wide(axes)
    if not (possible and after >= _FEWEST_CHANNELS and program.may_call and is_enabled()):
        return None
    fields = ("size", "out", "window", "stride", "dilation", "low")
    return [calls.PooledAxis(*(getattr(axis, name) for name in fields)) for axis in axes], numbers[0]


def _sums_on_cpu(x: Array, *, axes: Axes, program: LoweringContext) -> Array:
    if windows := _windows(program, x, axes):
        return calls.window_sums(x, *windows, backward=False)
    return _sums(x, axes=axes)


def _adjoint_of_sums_on_cpu(dy: Array, *, axes: Axes, program: LoweringContext) -> Array:
    if windows := _windows(program, dy, axes):
        return calls.window_sums(dy, *windows, backward=True)
    return _adjoint_of_sums(dy, axes=axes)


def _winners_as_written(x: Array, *, axes: Axes) -> list[Array]:
    return [*winners(axes, x)]


def _winners_on_cpu(x: Array, *, axes: Axes, program: LoweringContext) -> list[Array]:
    windows = _windows(program, x, axes)
    return [*(calls.window_maxima(x, *windows) if windows else winners(axes, x))]


def _adjoint_of_choice_on_cpu(dy: Array, winner: Array, *, axes: Axes, program: LoweringContext) -> Array:
    if windows := _windows(program, dy, axes):
        return calls.window_maxima_gradient(dy, winner, *windows)
    return _adjoint_of_choice(dy, winner, axes=axes)


_of_windows = partial(transposes, shape=_output_shape, input_shape=_input_shape, static=("axes",))
_window_sum, _ = _of_windows("window_sum", _sums, _adjoint_of_sums, on_cpu=(_sums_on_cpu, _adjoint_of_sums_on_cpu))
_window_choice, _ = _of_windows("window_choice", _chosen, _adjoint_of_choice, on_cpu=(None, _adjoint_of_choice_on_cpu))
_tied_sum, _ = _of_windows("tied_sum", _tied, _adjoint_of_tied)
_window_winners = substitutable(
    "window_winners", _winners_as_written, on_cpu=_winners_on_cpu, static=("axes",), by_rows=True
)
