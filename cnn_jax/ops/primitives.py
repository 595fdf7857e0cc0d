"""JAX primitives for linear functions whose transposes are written by hand.

``jax.custom_vjp`` gives a function a fast gradient but disables forward mode: ``jax.jvp``, ``jax.hessian``,
``jax.jacfwd`` and ``jax.linearize`` raise. Linear functions do not need ``custom_vjp``. A linear function is its own
derivative, so JAX only needs its transpose, which is linear too. If both are registered as primitives, forward mode,
reverse mode and all higher orders work and use the formulations of this project. Outside ``jit`` a primitive compiles
once per shape.

==================  ===================================================================================================
:func:`bilinear`    ``f(a, b)``, linear in each operand, such as the products of a convolution
:func:`transposes`  ``f(x, *constants)`` and its transpose, linear in their first operand, such as sums over windows
:func:`substitutable`  any function that a CPU computes by a kernel instead
==================  ===================================================================================================

:func:`gradient_rule` replaces the gradient of a function by something that is not its derivative.

The operands of a primitive have the same dtype (except constants) and as many axes as its result. The first axis is a
batch axis.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from cnn_jax.ops.arguments import Shape


def one_program(*static: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``jax.jit`` for the part of an op that follows its checks: outside ``jit`` it runs as one compiled program.

    Inside another ``jit`` it is inlined.

    Args:
      *static: The names of the arguments that are static options.
    """
    return partial(jax.jit, static_argnames=static, inline=True)


class LoweringContext(NamedTuple):
    """What a lowering rule knows about the program that its operation becomes a part of."""

    devices: int = 1
    """The number of devices that the compiler partitions the program over."""
    may_call: bool = False
    """Whether it may call functions of this process. An exported program runs elsewhere, and a partitioned one would
    gather the operands of a call from all devices."""


Compute = Callable[..., Array]
"""``compute(*operands, **static)``: a function of arrays and of hashable options."""
Computes = Callable[..., list[Array]]
"""The same with several results."""
ShapeOf = Callable[..., Shape]
"""``shape(*shapes_of_operands, **static)``: the shape of the result."""


_COMPUTE: dict[Primitive, Callable[..., Any]] = {}


def program_of(equation: JaxprEqn) -> ClosedJaxpr | None:
    """The program of an equation if its primitive was made in this module, else None; for code that analyses jaxprs.

    >>> def sums(x, *, axis):
    ...     return lax.cumsum(x, axis)
    >>> def reversed_sums(y, *, axis):
    ...     return lax.cumsum(y, axis, reverse=True)
    >>> def same(shape, *, axis):
    ...     return shape
    >>> primitive, _ = transposes("sums", sums, reversed_sums, same, same, static=("axis",))
    >>> (equation,) = jax.make_jaxpr(lambda x: primitive.bind(x, axis=0))(jnp.ones(3)).eqns
    >>> [inner.primitive.name for inner in program_of(equation).eqns]
    ['cumsum']
    """
    compute = _COMPUTE.get(equation.primitive)
    if compute is None:
        return None
    return jax.make_jaxpr(partial(compute, **equation.params))(*(atom.aval for atom in equation.invars))


def bilinear(
    name: str,
    compute: Compute,
    shape: ShapeOf,
    *,
    on_cpu: Compute,
    by_first: Compute,
    by_second: Compute,
    batch: Callable[..., tuple[Array, int]],
    static: Sequence[str],
) -> Primitive:
    """A primitive of two operands that is linear in each of them.

    Args:
      name: The name in jaxprs.
      compute: The function it computes: ``compute(a, b, program=..., **static)`` with a :class:`LoweringContext`.
      shape: The shape of the result.
      on_cpu: The function it computes on a CPU instead.
      by_first: The transpose in the first operand: ``by_first(cotangent, b, **static)``.
      by_second: The transpose in the second operand: ``by_second(cotangent, a, **static)``.
      batch: The rule for ``jax.vmap``: ``batch(operands, dims, **static) -> (result, dim)``.
      static: The names of the options.
    """
    primitive = _primitive(name, shape, static)
    _COMPUTE[primitive] = partial(compute, program=LoweringContext())
    mlir.register_lowering(primitive, _lowered(compute))
    mlir.register_lowering(primitive, _lowered(on_cpu), platform="cpu")
    ad.defbilinear(
        primitive,
        lambda cotangent, a, b, **static: by_first(cotangent, b, **static),
        lambda cotangent, a, b, **static: by_second(cotangent, a, **static),
    )
    batching.primitive_batchers[primitive] = batch
    return primitive


def transposes(
    name: str,
    forward: Compute,
    backward: Compute,
    shape: ShapeOf,
    input_shape: ShapeOf,
    *,
    on_cpu: tuple[Compute | None, Compute | None] = (None, None),
    static: Sequence[str],
) -> tuple[Primitive, Primitive]:
    """Two primitives that are each other's transposes, linear in their first operand and constant in the others.

    Args:
      name: The name in jaxprs; the second primitive has the suffix ``_transpose``.
      forward: The function of the first primitive: ``forward(x, *constants, **static) -> y``.
      backward: The function of the second primitive: ``backward(y, *constants, **static) -> x``.
      shape: The shape of the result of ``forward``.
      input_shape: The shape of the result of ``backward``.
      on_cpu: The functions that the two compute on a CPU instead, with a keyword ``program``; None for the same.
      static: The names of the options.
    """
    pair = _primitive(name, shape, static), _primitive(f"{name}_transpose", input_shape, static)
    for primitive, other, compute, special in zip(pair, pair[::-1], (forward, backward), on_cpu, strict=True):
        _COMPUTE[primitive] = compute
        mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=False))
        if special is not None:
            mlir.register_lowering(primitive, _lowered(special), platform="cpu")
        ad.primitive_jvps[primitive] = _linear_in_the_first(primitive)
        ad.primitive_transposes[primitive] = _transposed_to(other.bind)
        batching.primitive_batchers[primitive] = partial(merged_into_first, primitive)
    return pair


def substitutable(
    name: str, compute: Computes, *, on_cpu: Computes, static: Sequence[str], by_rows: bool = False
) -> Primitive:
    """A primitive of several results that a CPU computes in another way; otherwise it behaves like ``compute``.

    Its derivatives are those of ``compute``.

    Args:
      name: The name in jaxprs.
      compute: The function it computes: ``compute(*operands, **static) -> list of arrays``.
      on_cpu: The function it computes on a CPU instead: ``on_cpu(*operands, program=..., **static)``.
      static: The names of the options.
      by_rows: Whether operands and results share their first axis, whose entries are independent of each other, so that
        ``jax.vmap`` can merge the mapped axis into it; otherwise its rule is that of ``compute``.
    """
    primitive = Primitive(name)
    primitive.multiple_results = True

    def abstract(*operands: Any, **static: Any) -> Any:
        return jax.make_jaxpr(partial(compute, **static))(*operands).out_avals

    def derivative(primals: Sequence[Any], tangents: Sequence[Any], **static: Any) -> Any:
        return jax.jvp(partial(compute, **static), [*primals], [*map(ad.instantiate_zeros, tangents)])

    def batch(operands: Sequence[Array], dims: Sequence[int | None], **static: Any) -> Any:
        results = jax.vmap(partial(compute, **static), dims)(*operands)
        return results, [0] * len(results)

    _COMPUTE[primitive] = compute
    primitive.def_impl(_compiled(primitive, static))
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=True))
    mlir.register_lowering(primitive, _lowered(on_cpu, multiple_results=True), platform="cpu")
    ad.primitive_jvps[primitive] = derivative
    batching.primitive_batchers[primitive] = partial(merged_into_first, primitive) if by_rows else batch
    return primitive


def gradient_rule(name: str, backward: Compute, refuse: Compute, *, static: Sequence[str]) -> Primitive:
    """A primitive that gives an elementwise function a gradient that differs from its derivative.

    Apply it to the tangent in a JVP rule. JAX treats it as linear in its first operand. Reverse mode transposes it,
    which calls ``backward``. Forward mode evaluates it, which calls ``refuse``.

    Args:
      name: The name in jaxprs.
      backward: The gradient: ``backward(dy, *constants, **static)``. It may be nonlinear.
      refuse: A function that raises: ``refuse(dx, *constants, **static)``.
      static: The names of the options.
    """
    primitive = _primitive(name, lambda x, *_, **__: x, static)
    mlir.register_lowering(primitive, mlir.lower_fun(refuse, multiple_results=False))
    ad.primitive_jvps[primitive] = _linear_in_the_first(primitive)
    ad.primitive_transposes[primitive] = _transposed_to(backward)
    batching.primitive_batchers[primitive] = lambda operands, dims, **static: (
        primitive.bind(*stacked(operands, dims), **static),
        0,
    )
    return primitive


def _lowered(compute: Callable[..., Any], *, multiple_results: bool = False) -> Callable[..., Any]:
    """The lowering rule of a primitive. It passes the :class:`LoweringContext` to ``compute``."""

    def rule(context: Any, *operands: Any, **static: Any) -> Any:
        of_program = partial(compute, program=_program(context.module_context))
        rule = mlir.lower_fun(of_program, multiple_results=multiple_results)
        return rule(context, *operands, **static)

    return rule


def _program(module: Any) -> LoweringContext:
    axes = module.axis_context
    devices = axes.num_devices if isinstance(axes, mlir.ShardingContext) else 1
    partitioned = devices > 1
    if isinstance(axes, mlir.SPMDAxisContext):  # in shard_map, the compiler partitions along the axes that are left
        partitioned = axes.manual_axes != frozenset(axes.mesh.axis_names)
    return LoweringContext(devices, may_call=not partitioned and not module.lowering_parameters.for_export)


def _primitive(name: str, shape: ShapeOf, static: Sequence[str]) -> Primitive:
    primitive = Primitive(name)

    def abstract(first: Any, *others: Any, **static: Any) -> Any:
        # Update the type of the operand instead of creating a new one, to keep the axes of shard_map it varies over.
        shapes = (operand.shape for operand in (first, *others))
        return first.update(shape=shape(*shapes, **static), weak_type=False)

    primitive.def_impl(_compiled(primitive, static))
    primitive.def_abstract_eval(abstract)
    return primitive


def _compiled(primitive: Primitive, static: Sequence[str]) -> Callable[..., Any]:
    """A primitive as a program, which runs outside of other programs."""

    def bind(*operands: Array, **static: Any) -> Any:
        return primitive.bind(*operands, **static)

    compiled = jax.jit(bind, static_argnames=tuple(static))

    def evaluate(*operands: Array, **static: Any) -> Any:
        with jax.disable_jit(False):  # the primitive can only run in compiled programs
            return compiled(*operands, **static)

    return evaluate


def _linear_in_the_first(primitive: Primitive) -> Callable[..., Any]:
    def rule(primals: Sequence[Any], tangents: Sequence[Any], **static: Any) -> tuple[Any, Any]:
        _, *constants = primals
        y = primitive.bind(*primals, **static)
        if type(tangents[0]) is ad.Zero:
            return y, ad.Zero(jax.typeof(y).to_tangent_aval())
        return y, primitive.bind(tangents[0], *constants, **static)

    return rule


def _transposed_to(other: Compute) -> Callable[..., Any]:
    def rule(cotangent: Any, x: Any, *constants: Any, **static: Any) -> list[Any]:
        nothing = [None] * len(constants)
        if type(cotangent) is ad.Zero:
            return [ad.Zero(x.aval), *nothing]
        return [other(cotangent, *constants, **static), *nothing]

    return rule


def merged_into_first(
    primitive: Primitive, operands: Sequence[Array], dims: Sequence[int | None], **static: Any
) -> Any:
    """The ``vmap`` rule of a primitive whose operands share their first axis: merges the mapped axis into that axis."""
    stacks = stacked(operands, dims)
    size, first = stacks[0].shape[:2]
    found = primitive.bind(*(stack.reshape(size * first, *stack.shape[2:]) for stack in stacks), **static)
    split = jax.tree.map(lambda y: y.reshape(size, first, *y.shape[1:]), found)
    return split, jax.tree.map(lambda _: 0, split)


def stacked(operands: Sequence[Array], dims: Sequence[int | None]) -> list[Array]:
    """The operands of a ``vmap`` rule with the mapped axis first in each; unmapped operands are repeated."""
    (size,) = {operand.shape[dim] for operand, dim in zip(operands, dims, strict=True) if dim is not None}
    return [
        lax.broadcast(operand, (size,)) if dim is None else jnp.moveaxis(operand, dim, 0)
        for operand, dim in zip(operands, dims, strict=True)
    ]
