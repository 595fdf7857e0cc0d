"""Convolution in XLA's own convolutions and matrix products, with gradients that are as fast as the forward pass.

A convolution is linear in its input, in its kernel, and, paired with a cotangent, in that too: one trilinear form

    T(x, kernel, dy) = sum over n, i, t, c, o of  dy[n, i, o] * x[n, i * stride + t * kernel_dilation - low, c] * kernel[t, c, o]

Its three partial derivatives are the output (by ``dy``), the input gradient (by ``x``) and the kernel gradient (by
``kernel``), and the derivatives of each are the other two. So three functions with custom VJPs, each written as an
ordinary channels-last convolution, give reverse-mode derivatives of every order. JAX's own transposition rules permute
dimensions instead, which XLA's CPU backend computes 10 to 200 times slower inside ``lax.scan`` (``docs/decisions.md``).

``conv`` has the fast gradients, ``conv_jax`` is the plain twin for forward mode (``jvp``, ``hessian``).
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped


class Axis(NamedTuple):
    """One spatial axis of a convolution: everything that its size depends on."""

    size: int
    window: int
    stride: int
    low: int
    high: int
    input_dilation: int
    kernel_dilation: int

    @property
    def spread(self) -> int:
        """Size of the dilated input."""
        return (self.size - 1) * self.input_dilation + 1

    @property
    def reach(self) -> int:
        """Size of the dilated kernel."""
        return (self.window - 1) * self.kernel_dilation + 1

    @property
    def out(self) -> int:
        """Number of output positions."""
        return max(0, (self.spread + self.low + self.high - self.reach) // self.stride + 1)


class Plan(NamedTuple):
    """The static half of a convolution; hashable, so that it can be a non-differentiable argument."""

    axes: tuple[Axis, ...]
    groups: int
    precision: lax.PrecisionLike

    def each(self, field: str) -> tuple[int, ...]:
        """One property of all axes."""
        return tuple(getattr(axis, field) for axis in self.axes)


def _plan(
    x: Array,
    kernel: Array,
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    input_dilation: tuple[int, ...],
    kernel_dilation: tuple[int, ...],
    groups: int,
    precision: lax.PrecisionLike,
) -> Plan:
    sizes, window = x.shape[1:-1], kernel.shape[:-2]
    low, high = zip(*padding, strict=True) if padding else ((), ())
    columns = zip(sizes, window, strides, low, high, input_dilation, kernel_dilation, strict=True)
    return Plan(tuple(Axis(*column) for column in columns), groups, precision)


def conv(
    x: Shaped[Array, "batch *space channels"],
    kernel: Shaped[Array, "*window features_in features"],
    *,
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    input_dilation: tuple[int, ...],
    kernel_dilation: tuple[int, ...],
    feature_group_count: int,
    precision: lax.PrecisionLike = None,
) -> Shaped[Array, "batch *space_out features"]:
    """Cross-correlation of checked arguments, with fast gradients; forward mode is shut out (see ``conv_jax``).

    Args:
      x: channels-last input of any rank.
      kernel: of the same dtype; ``channels == features_in * feature_group_count``.
      strides: one per spatial axis, like every tuple here.
      padding: pairs of zeros to add before and after; never negative.
      input_dilation: distance between neighbouring inputs, zeros between them.
      kernel_dilation: distance between neighbouring kernel entries.
      feature_group_count: channel groups that do not see each other.
      precision: as for ``jax.lax.conv_general_dilated``.

    >>> x, kernel = jnp.ones((1, 5, 2)), jnp.ones((3, 2, 1))
    >>> same = dict(input_dilation=(1,), kernel_dilation=(1,), feature_group_count=1)
    >>> conv(x, kernel, strides=(2,), padding=((1, 1),), **same).ravel()
    Array([4., 6., 4.], dtype=float32)
    """
    plan = _plan(x, kernel, strides, padding, input_dilation, kernel_dilation, feature_group_count, precision)
    return _output(plan, x, kernel)


def conv_jax(
    x: Shaped[Array, "batch *space channels"],
    kernel: Shaped[Array, "*window features_in features"],
    *,
    strides: tuple[int, ...],
    padding: tuple[tuple[int, int], ...],
    input_dilation: tuple[int, ...],
    kernel_dilation: tuple[int, ...],
    feature_group_count: int,
    precision: lax.PrecisionLike = None,
) -> Shaped[Array, "batch *space_out features"]:
    """The same convolution with the derivatives that JAX makes itself: slower, but forward mode works too."""
    return _channels_last(
        x,
        kernel,
        window_strides=strides,
        padding=padding,
        lhs_dilation=input_dilation,
        rhs_dilation=kernel_dilation,
        feature_group_count=feature_group_count,
        precision=precision,
    )


def _channels_last(lhs: Array, rhs: Array, **options) -> Array:  # type: ignore[no-untyped-def]
    """``lax.conv_general_dilated`` in the one layout that XLA's CPU backend computes fast: N..C, ..IO, N..C."""
    rank = lhs.ndim - 2
    space = tuple(range(1, rank + 1))
    dims = lax.ConvDimensionNumbers((0, rank + 1, *space), (rank + 1, rank, *range(rank)), (0, rank + 1, *space))
    return lax.conv_general_dilated(lhs, rhs, dimension_numbers=dims, **options)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _output(plan: Plan, x: Array, kernel: Array) -> Array:
    """The derivative of the trilinear form by ``dy``: the convolution itself."""
    return _channels_last(
        x,
        kernel,
        window_strides=plan.each("stride"),
        padding=[(axis.low, axis.high) for axis in plan.axes],
        lhs_dilation=plan.each("input_dilation"),
        rhs_dilation=plan.each("kernel_dilation"),
        feature_group_count=plan.groups,
        precision=plan.precision,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _input_gradient(plan: Plan, dy: Array, kernel: Array) -> Array:
    """The derivative by ``x``: ``dy``, spread out by the stride, convolved with the inverted and regrouped kernel."""
    widths = [(axis.reach - 1 - axis.low, axis.spread + axis.low - (axis.out - 1) * axis.stride - 1) for axis in plan.axes]
    per_group, features = kernel.shape[-2:]
    shape = (dy.shape[0], *plan.each("size"), per_group * plan.groups)
    placed = _place(dy, plan.each("stride"), widths)
    if placed is None:
        return jnp.zeros(shape, dy.dtype)
    dy, padding = placed
    return _channels_last(
        dy,
        _inverted(kernel, plan.groups),
        window_strides=plan.each("input_dilation"),
        padding=padding,
        lhs_dilation=plan.each("stride"),
        rhs_dilation=plan.each("kernel_dilation"),
        feature_group_count=plan.groups,
        precision=plan.precision,
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(plan: Plan, x: Array, dy: Array) -> Array:
    """The derivative by ``kernel``: the input convolved with ``dy`` as the kernel, batch as the contracted channel."""
    widths = [
        (axis.low, (axis.out - 1) * axis.stride + axis.reach - axis.spread - axis.low) for axis in plan.axes
    ]
    groups, per_group = plan.groups, x.shape[-1] // plan.groups
    placed = _place(x, plan.each("input_dilation"), widths) if 0 not in dy.shape else None
    if placed is None:
        return jnp.zeros((*plan.each("window"), per_group, dy.shape[-1]), dy.dtype)
    x, padding = placed
    batch, *space = x.shape[:-1]
    # The groups go to the contracted side: channel (group, c) becomes row c, contracted channel (group, n).
    x = jnp.moveaxis(x.reshape(batch, *space, groups, per_group), (0, -2, -1), (-1, -2, 0))
    gradient = _channels_last(
        x.reshape(per_group, *space, groups * batch),
        jnp.moveaxis(dy, 0, -2),
        window_strides=plan.each("kernel_dilation"),
        padding=padding,
        lhs_dilation=plan.each("input_dilation"),
        rhs_dilation=plan.each("stride"),
        feature_group_count=groups,
        precision=plan.precision,
    )
    return jnp.moveaxis(gradient, 0, -2)


_output.defvjp(
    lambda plan, x, kernel: (_output(plan, x, kernel), (x, kernel)),
    lambda plan, saved, dy: (_input_gradient(plan, dy, saved[1]), _kernel_gradient(plan, saved[0], dy)),
)
_input_gradient.defvjp(
    lambda plan, dy, kernel: (_input_gradient(plan, dy, kernel), (dy, kernel)),
    lambda plan, saved, x: (_output(plan, x, saved[1]), _kernel_gradient(plan, x, saved[0])),
)
_kernel_gradient.defvjp(
    lambda plan, x, dy: (_kernel_gradient(plan, x, dy), (x, dy)),
    lambda plan, saved, kernel: (_input_gradient(plan, saved[1], kernel), _output(plan, saved[0], kernel)),
)


def _inverted(kernel: Array, groups: int) -> Array:
    """The kernel flipped along its window, inputs and outputs exchanged within each group."""
    *window, per_group, features = kernel.shape
    kernel = jnp.flip(kernel, range(len(window))).reshape(*window, per_group, groups, features // groups)
    return jnp.moveaxis(kernel, -1, -3).swapaxes(-1, -2).reshape(*window, features // groups, groups * per_group)


def _place(
    x: Array, dilation: tuple[int, ...], widths: list[tuple[int, int]]
) -> tuple[Array, list[tuple[int, int]]] | None:
    """``x`` and paddings such that dilating, then padding by ``widths`` (negative crops), needs no negative padding.

    XLA's CPU backend computes wrong float32 convolutions for some negative paddings (openxla/xla#48713), so what they
    would crop is sliced away here. Returns None when nothing of ``x`` is left.
    """
    starts, stops, padding = [0], [x.shape[0]], []
    for size, step, (low, high) in zip(x.shape[1:-1], dilation, widths, strict=True):
        front, back = math.ceil(max(0, -low) / step), math.ceil(max(0, -high) / step)
        starts.append(front)
        stops.append(size - back)
        padding.append((low + front * step, high + back * step))
    if any(stop <= start for start, stop in zip(starts[1:], stops[1:], strict=True)):
        return None
    return lax.slice(x, (*starts, 0), (*stops, x.shape[-1])), padding
