"""Convolution by XLA's own convolutions and matrix products, with gradients that are as fast as the forward pass.

The product of a convolution with a cotangent is linear in the input, the kernel and the cotangent. It is the trilinear
form

    T(x, kernel, dy) = sum over n, i, t, c, o of dy[n, i, o] x[n, i stride + t dilation - low, c] kernel[t, c, o]

Its three partial derivatives are the output (with respect to ``dy``), the input gradient (to ``x``) and the kernel
gradient (to ``kernel``). Each is bilinear, and its transposes are the other two. All three are one JAX primitive,
``conv_product``. Derivatives of every order and mode therefore consist of these three products, which are all fast. The
transposes that JAX derives for ``lax.conv_general_dilated`` permute the dimensions of a convolution. XLA's CPU backend
computes such convolutions 10 to 200 times slower inside ``lax.scan``.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.native import is_enabled
from cnn_jax.ops.arguments import Shape, accumulator
from cnn_jax.ops.choice import formulation
from cnn_jax.ops.formulations import COLUMNS, TRANSPOSED, ConvAxis, ConvPlan
from cnn_jax.ops.padding import Pairs
from cnn_jax.ops.primitives import LoweringContext, bilinear, merged_into_first, stacked
from cnn_jax.ops.sharding import whole_in_space, zeros


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
    native: bool = False,
) -> Shaped[Array, "batch *output features"]:
    """Cross-correlation of checked arguments.

    Args:
      x: An array of any rank with channels last.
      kernel: The kernel, of the same dtype as ``x``; ``channels == channels_per_group * feature_group_count``.
      strides: One int per spatial axis, like every tuple here.
      padding: The numbers of zeros to add before and after each axis, as pairs; never negative.
      input_dilation: The distance between neighbouring inputs, with zeros between them.
      kernel_dilation: The distance between the inputs that neighbouring kernel entries read.
      feature_group_count: The number of groups; each output channel depends only on the inputs of its group.
      precision: The same as in ``jax.lax.conv_general_dilated``.
      native: Whether to use the kernels of ``cnn_jax.native`` wherever they can be called, instead of where they are
        faster.

    >>> x, kernel = jnp.ones((1, 5, 2)), jnp.ones((3, 2, 1))
    >>> plain = dict(input_dilation=(1,), kernel_dilation=(1,), feature_group_count=1)
    >>> conv(x, kernel, strides=(2,), padding=((1, 1),), **plain).ravel()
    Array([4., 6., 4.], dtype=float32)
    """
    options = (strides, padding, input_dilation, kernel_dilation, feature_group_count, precision)
    plan = plan_of(x.shape, kernel.shape, *options)._replace(native=native)
    return _bind("output", plan, x, kernel)


def plan_of(
    x: Shape,
    kernel: Shape,
    strides: Sequence[int],
    padding: Pairs,
    input_dilation: Sequence[int],
    kernel_dilation: Sequence[int],
    feature_group_count: int,
    precision: lax.PrecisionLike = None,
) -> ConvPlan:
    """The static arguments of a call of ``conv``, from its options and the shapes of its arrays."""
    low, high = zip(*padding, strict=True)
    columns = (x[1:-1], kernel[:-2], strides, low, high, input_dilation, kernel_dilation)
    axes = tuple(ConvAxis(*column) for column in zip(*columns, strict=True))
    return ConvPlan(axes, x[0], x[-1], kernel[-1], feature_group_count, precision)


# --- the primitive ----------------------------------------------------------------------------------------------------

_OPERANDS = {"output": ("x", "kernel"), "input_gradient": ("dy", "kernel"), "kernel_gradient": ("x", "dy")}
_RESULT = {"output": "dy", "input_gradient": "x", "kernel_gradient": "kernel"}
_PRODUCT = {result: product for product, result in _RESULT.items()}


def _bind(product: str, plan: ConvPlan, a: Array, b: Array, *, models: bool = False) -> Array:
    """One of the three products; with ``models``, both operands have a leading axis of independent models."""
    return conv_product.bind(a, b, product=product, plan=plan, models=models)


def _shape(a: Shape, b: Shape, *, product: str, plan: ConvPlan, models: bool) -> Shape:
    return (*a[:models], *plan.shapes[_RESULT[product]])


def _transpose(number: int, cotangent: Array, other: Array, *, product: str, plan: ConvPlan, models: bool) -> Array:
    """The transpose of a product with respect to operand ``number``: the product whose result is that operand."""
    roles = _OPERANDS[product]
    given = {_RESULT[product]: cotangent, roles[1 - number]: other}
    wanted = _PRODUCT[roles[number]]
    return _bind(wanted, plan, *(given[role] for role in _OPERANDS[wanted]), models=models)


def _product(
    compute: Callable[[str, ConvPlan, bool, LoweringContext, Array, Array], Array],
    a: Array,
    b: Array,
    *,
    product: str,
    plan: ConvPlan,
    models: bool,
    program: LoweringContext,
) -> Array:
    """What all platforms have in common, for ``compute(product, plan, models, program, a, b)``."""
    if _is_empty(plan):
        return zeros(_shape(a.shape, b.shape, product=product, plan=plan, models=models), a)
    if product == "kernel_gradient":
        a, b = (whole_in_space(array, program.devices, rank=len(plan.axes)) for array in (a, b))
    return compute(product, plan, models, program, a, b)


def _by_default(product: str, plan: ConvPlan, models: bool, program: LoweringContext, a: Array, b: Array) -> Array:
    """As accelerators compute it."""
    compute = partial(getattr(TRANSPOSED, product), plan)
    return (jax.vmap(compute) if models else compute)(a, b)


def _on_cpu(product: str, plan: ConvPlan, models: bool, program: LoweringContext, a: Array, b: Array) -> Array:
    """In the formulation that is selected for a CPU, with sums in at least float32."""
    dtype, wide = a.dtype, accumulator(a.dtype)
    a, b = a.astype(wide), b.astype(wide)
    native = program.may_call and wide == jnp.float32 and is_enabled()
    compute = partial(getattr(formulation(product, plan, native=native), product), plan)
    if not models:
        return compute(a, b).astype(dtype)
    # JAX would make one grouped convolution of independent models, which is slow on a CPU. For a window of 1, which
    # needs no copies of the input, one batched matrix product is faster than a loop over the models. Otherwise the loop
    # is faster, often by far (measurements: docs/decisions.md).
    pointwise = plan.groups == 1 and set(plan.each("window")) == {1}
    if pointwise and plan.channels >= 8 and product != "kernel_gradient":
        return jax.vmap(partial(getattr(COLUMNS, product), plan))(a, b).astype(dtype)
    return lax.map(lambda pair: compute(*pair), (a, b)).astype(dtype)


def _is_empty(plan: ConvPlan) -> bool:
    """Whether the result contains no products of entries, so that it is empty or all zeros."""
    sizes = (plan.batch, plan.channels, plan.features, *plan.each("out"))
    return any(isinstance(size, int) and size == 0 for size in sizes)  # it is unknown whether a symbolic batch is empty


# --- vmap -------------------------------------------------------------------------------------------------------------

_SHARED = {  # the dimension that two operands have in common: its name in the plan and its axis in each
    frozenset({"x", "dy"}): ("batch", {"x": 0, "dy": 0}),
    frozenset({"x", "kernel"}): ("channels", {"x": -1, "kernel": -2}),
    frozenset({"kernel", "dy"}): ("features", {"kernel": -1, "dy": -1}),
}


def _batch(
    operands: Sequence[Array], dims: Sequence[int | None], *, product: str, plan: ConvPlan, models: bool
) -> tuple[Array, int]:
    """The rule of a product for ``vmap``.

    If one operand is not mapped, the mapped axis is merged into the dimension that the other operand has in common with
    the result. This gives one larger product of the same kind. Otherwise the mapped axis becomes the axis of models, or
    is merged into it.
    """
    if models:
        return merged_into_first(conv_product, operands, dims, product=product, plan=plan, models=True)
    own = [dim is not None for dim in dims]
    if all(own):
        return _bind(product, plan, *stacked(operands, dims), models=True), 0
    (role,) = [name for name, mapped in zip(_OPERANDS[product], own, strict=True) if mapped]
    dimension, axis = _SHARED[frozenset({role, _RESULT[product]})]

    def groups(name: str) -> int:  # a group is a block of channels; a kernel has only the channels of one group
        return 1 if dimension == "batch" or (name, dimension) == ("kernel", "channels") else plan.groups

    merged, size = [], 1
    for operand, dim in zip(operands, dims, strict=True):
        if dim is not None:
            size = operand.shape[dim]
            operand = _merge(jnp.moveaxis(operand, dim, 0), axis[role], groups(role))
        merged.append(operand)
    larger = plan._replace(**{dimension: getattr(plan, dimension) * size})
    result = _RESULT[product]
    joint = _bind(product, larger, *merged)
    return _split(joint, plan.shapes[result], size, axis[result], groups(result)), 0


def _merge(stack: jax.Array, axis: int, groups: int) -> jax.Array:
    """Merges the first axis into another axis, within each of its groups."""
    size, *shape = stack.shape
    axis %= len(shape)
    stack = stack.reshape(size, *shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
    return jnp.moveaxis(stack, 0, axis + 1).reshape(*shape[:axis], size * shape[axis], *shape[axis + 1 :])


def _split(array: jax.Array, shape: Shape, size: int, axis: int, groups: int) -> jax.Array:
    """The inverse of ``_merge``: ``(size, *shape)``."""
    axis %= len(shape)
    array = array.reshape(*shape[:axis], groups, size, shape[axis] // groups, *shape[axis + 1 :])
    return jnp.moveaxis(array, axis + 1, 0).reshape(size, *shape)


conv_product = bilinear(
    "conv_product",
    partial(_product, _by_default),
    _shape,
    on_cpu=partial(_product, _on_cpu),
    by_first=partial(_transpose, 0),
    by_second=partial(_transpose, 1),
    batch=_batch,
    static=("product", "plan", "models"),
)
