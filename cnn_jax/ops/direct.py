"""Convolution in XLA's own convolutions and matrix products, with gradients that are as fast as the forward pass.

A convolution is linear in its input, in its kernel, and, paired with a cotangent, in that too: one trilinear form

    T(x, kernel, dy) = sum over n, i, t, c, o of dy[n, i, o] x[n, i stride + t dilation - low, c] kernel[t, c, o]

Its three partial derivatives are the output (by ``dy``), the input gradient (by ``x``) and the kernel gradient (by
``kernel``), and the derivatives of each are the other two. So three functions with custom VJPs give reverse-mode
derivatives of every order, all of them fast. The transposes that JAX derives permute the dimensions of a convolution,
which XLA's CPU backend computes 10 to 200 times slower inside ``lax.scan``.

``conv`` has the fast gradients, ``conv_jax`` is the plain twin for forward mode (``jvp``, ``hessian``).
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Shaped

from cnn_jax.ops.canonical import accumulator
from cnn_jax.ops.choice import formulation
from cnn_jax.ops.formulations import COLUMNS, TRANSPOSED, Axis, Plan, channels_last
from cnn_jax.ops.padding import Pairs
from cnn_jax.ops.sharding import zeros


def conv(
    x: Shaped[Array, "batch *space channels"],
    kernel: Shaped[Array, "*window channels_per_group features"],
    *,
    strides: tuple[int, ...],
    padding: Pairs,
    input_dilation: tuple[int, ...],
    kernel_dilation: tuple[int, ...],
    feature_group_count: int,
    precision: lax.PrecisionLike = None,
) -> Shaped[Array, "batch *output features"]:
    """Cross-correlation of checked arguments, with fast gradients; forward mode is shut out (see ``conv_jax``).

    Args:
      x: Channels last, of any rank.
      kernel: Of the same dtype; ``channels == channels_per_group * feature_group_count``.
      strides: One per spatial axis, like every tuple here.
      padding: Pairs of zeros to add before and behind; never negative.
      input_dilation: The distance between neighbouring inputs, zeros between them.
      kernel_dilation: The distance between neighbouring kernel entries.
      feature_group_count: The number of channel groups that do not see each other.
      precision: As for ``jax.lax.conv_general_dilated``.

    >>> x, kernel = jnp.ones((1, 5, 2)), jnp.ones((3, 2, 1))
    >>> plain = dict(input_dilation=(1,), kernel_dilation=(1,), feature_group_count=1)
    >>> conv(x, kernel, strides=(2,), padding=((1, 1),), **plain).ravel()
    Array([4., 6., 4.], dtype=float32)
    """
    options = (strides, padding, input_dilation, kernel_dilation, feature_group_count, precision)
    return _output(plan_of(x.shape, kernel.shape, *options), x, kernel)


def conv_jax(
    x: Shaped[Array, "batch *space channels"],
    kernel: Shaped[Array, "*window channels_per_group features"],
    *,
    strides: tuple[int, ...],
    padding: Pairs,
    input_dilation: tuple[int, ...],
    kernel_dilation: tuple[int, ...],
    feature_group_count: int,
    precision: lax.PrecisionLike = None,
) -> Shaped[Array, "batch *output features"]:
    """The same convolution with the derivatives that JAX makes itself: slower, but forward mode works too."""
    return channels_last(
        x,
        kernel,
        window_strides=strides,
        padding=padding,
        lhs_dilation=input_dilation,
        rhs_dilation=kernel_dilation,
        feature_group_count=feature_group_count,
        precision=precision,
    )


def plan_of(
    x: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Pairs,
    input_dilation: Sequence[int],
    kernel_dilation: Sequence[int],
    feature_group_count: int,
    precision: lax.PrecisionLike = None,
) -> Plan:
    """The static half of a call of ``conv``, from the shapes of its arrays."""
    low, high = zip(*padding, strict=True)
    columns = (x[1:-1], kernel[:-2], strides, low, high, input_dilation, kernel_dilation)
    axes = tuple(Axis(*column) for column in zip(*columns, strict=True))
    return Plan(axes, x[0], x[-1], kernel[-1], feature_group_count, precision)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _output(plan: Plan, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _product("output", plan, x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _input_gradient(plan: Plan, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    return _product("input_gradient", plan, dy, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(plan: Plan, x: jax.Array, dy: jax.Array) -> jax.Array:
    return _product("kernel_gradient", plan, x, dy)


# Each derivative, by each of its operands, is one of the other two.
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

_OPERANDS = {"output": ("x", "kernel"), "input_gradient": ("dy", "kernel"), "kernel_gradient": ("x", "dy")}
_RESULT = {"output": "dy", "input_gradient": "x", "kernel_gradient": "kernel"}


def _product(product: str, plan: Plan, *operands: jax.Array) -> jax.Array:
    """One of the three products, for one model or, under ``vmap``, for several."""
    if 0 in plan.each("out"):
        return zeros(plan.shapes[_RESULT[product]], operands[0])

    @custom_vmap
    def compute(*operands: jax.Array) -> jax.Array:
        return lax.platform_dependent(
            *operands, cpu=partial(_on_cpu, product, plan), default=partial(getattr(TRANSPOSED, product), plan)
        )

    @compute.def_vmap
    def compute_many(size: int, batched: list[bool], *operands: jax.Array) -> tuple[jax.Array, bool]:
        return _product_of_many(product, plan, size, batched, operands), True

    return compute(*operands)


def _on_cpu(product: str, plan: Plan, *operands: jax.Array) -> jax.Array:
    """The chosen formulation, with sums in at least float32: some are sums of several results."""
    chosen = getattr(formulation(product, plan), product)
    dtype = operands[0].dtype
    return chosen(plan, *(operand.astype(accumulator(dtype)) for operand in operands)).astype(dtype)


# --- vmap -------------------------------------------------------------------------------------------------------------

_SHARED = {  # the dimension that two roles have in common: its name in the plan, its axis in each
    frozenset({"x", "dy"}): ("batch", {"x": 0, "dy": 0}),
    frozenset({"x", "kernel"}): ("channels", {"x": -1, "kernel": -2}),
    frozenset({"kernel", "dy"}): ("features", {"kernel": -1, "dy": -1}),
}


def _product_of_many(
    product: str, plan: Plan, size: int, batched: list[bool], operands: tuple[jax.Array, ...]
) -> jax.Array:
    """A product under ``vmap``: larger where one operand is common to all, otherwise by :func:`_each_by_itself`.

    Where one operand is common, the vmapped axis joins the dimension that the other shares with the result: one product
    of the same kind.
    """
    if all(batched):
        grouped = jax.vmap(partial(getattr(TRANSPOSED, product), plan))
        return lax.platform_dependent(*operands, cpu=partial(_each_by_itself, product, plan), default=grouped)
    (role,) = [name for name, own in zip(_OPERANDS[product], batched, strict=True) if own]
    dimension, axis = _SHARED[frozenset({role, _RESULT[product]})]

    def groups(name: str) -> int:  # a group is a block of channels; a kernel has only the channels of one
        return 1 if dimension == "batch" or (name, dimension) == ("kernel", "channels") else plan.groups

    merged = [
        _merge(operand, axis[role], groups(role)) if own else operand
        for operand, own in zip(operands, batched, strict=True)
    ]
    larger = plan._replace(**{dimension: getattr(plan, dimension) * size})
    result = _RESULT[product]
    return _split(_product(product, larger, *merged), size, axis[result], groups(result))


def _each_by_itself(product: str, plan: Plan, *operands: jax.Array) -> jax.Array:
    """The products of models that share nothing, on a CPU (measurements: ``docs/decisions.md``).

    JAX would make a grouped convolution of them, which is slow there. With a window of 1, which needs no copies of the
    input, one batched matrix product is faster than one model after the other; else it is slower, often by far.
    """
    pointwise = plan.groups == 1 and set(plan.each("window")) == {1}
    if pointwise and plan.channels >= 8 and product != "kernel_gradient":
        dtype = operands[0].dtype
        many = jax.vmap(partial(getattr(COLUMNS, product), plan))
        return many(*(operand.astype(accumulator(dtype)) for operand in operands)).astype(dtype)
    return lax.map(lambda pair: _product(product, plan, *pair), operands)


def _merge(stack: jax.Array, axis: int, groups: int) -> jax.Array:
    """Moves the first axis into another one, within each of its groups."""
    shape = stack.shape[1:]
    axis %= len(shape)
    stack = stack.reshape(-1, *shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
    return jnp.moveaxis(stack, 0, axis + 1).reshape(*shape[:axis], -1, *shape[axis + 1 :])


def _split(array: jax.Array, size: int, axis: int, groups: int) -> jax.Array:
    """The inverse of ``_merge``."""
    shape = array.shape
    axis %= len(shape)
    array = array.reshape(*shape[:axis], groups, size, -1, *shape[axis + 1 :])
    return jnp.moveaxis(array, axis + 1, 0).reshape(size, *shape[:axis], -1, *shape[axis + 1 :])
