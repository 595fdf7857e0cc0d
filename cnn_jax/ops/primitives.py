"""JAX primitives for linear functions whose transposes are written by hand.

``jax.custom_vjp`` gives a function a fast gradient and takes away forward mode: ``jax.jvp``, ``jax.hessian``,
``jax.jacfwd`` and ``jax.linearize`` raise. Linear functions do not need it. A linear function is its own derivative, so
JAX only has to know its transpose, which is linear too. Registered as primitives, such functions have forward mode,
reverse mode and every order of both, and all of these use the formulations of this project. Outside ``jit`` a primitive
compiles once per shape.

==================  ===================================================================================================
:func:`bilinear`    ``f(a, b)``, linear in each operand, as the products of a convolution are
:func:`transposes`  ``f(x, *constants)`` and its transpose, linear in their first operand, as sums over windows are
==================  ===================================================================================================

:func:`gradient_rule` is for a rule that is none: what is to come back through a function in place of its gradient.

The operands of a primitive have one dtype (constants aside) and as many axes as its result; the first is a batch axis.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array


def one_program(*static: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``jax.jit`` for the part of an op behind its checks: outside ``jit`` it runs as one compiled program.

    Within another program it leaves no trace.

    Args:
      *static: The names of the arguments that are options and not arrays.
    """
    return partial(jax.jit, static_argnames=static, inline=True)


Compute = Callable[..., Array]
"""``compute(*operands, **static)``: a function of arrays, and of hashable options."""
Shape = Callable[..., tuple[int, ...]]
"""``shape(*shapes_of_operands, **static)``: the shape of the result."""


_COMPUTE: dict[Primitive, Compute] = {}


def program_of(equation: JaxprEqn) -> ClosedJaxpr | None:
    """What an equation computes, if its primitive is one of these: for code that reads the programs of others.

    >>> def sums(x, *, axis):
    ...     return lax.cumsum(x, axis)
    >>> def sums_from_behind(y, *, axis):
    ...     return lax.cumsum(y, axis, reverse=True)
    >>> def same(shape, *, axis):
    ...     return shape
    >>> primitive, _ = transposes("sums", sums, sums_from_behind, same, same, static=("axis",))
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
    shape: Shape,
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
      compute: What it computes: ``compute(a, b, devices=..., **static)``, where the compiler spreads the program over
        so many devices.
      shape: The shape of the result.
      on_cpu: What it computes on a CPU instead.
      by_first: ``by_first(cotangent, b, **static)``: its transpose in the first operand.
      by_second: ``by_second(cotangent, a, **static)``: its transpose in the second operand.
      batch: Its rule under ``jax.vmap``: ``batch(operands, dims, **static) -> (result, dim)``.
      static: The names of the options.
    """
    primitive = _primitive(name, shape, static)
    _COMPUTE[primitive] = partial(compute, devices=1)
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
    name: str, forward: Compute, backward: Compute, shape: Shape, input_shape: Shape, *, static: Sequence[str]
) -> tuple[Primitive, Primitive]:
    """Two primitives that are each other's transposes, linear in their first operand and constant in the others.

    Args:
      name: The name in jaxprs, of the second one with ``_transpose`` behind it.
      forward: ``forward(x, *constants, **static) -> y``.
      backward: ``backward(y, *constants, **static) -> x``.
      shape: The shape of the result of ``forward``.
      input_shape: The shape of the result of ``backward``.
      static: The names of the options.
    """
    pair = _primitive(name, shape, static), _primitive(f"{name}_transpose", input_shape, static)
    for primitive, other, compute in zip(pair, pair[::-1], (forward, backward), strict=True):
        _COMPUTE[primitive] = compute
        mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=False))
        ad.primitive_jvps[primitive] = _linear_in_the_first(primitive)
        ad.primitive_transposes[primitive] = _transposed_to(other.bind)
        batching.primitive_batchers[primitive] = _merged_batches(primitive)
    return pair


def gradient_rule(name: str, backward: Compute, refuse: Compute, *, static: Sequence[str]) -> Primitive:
    """A primitive that gives an elementwise function another gradient than its derivative.

    To be applied to the tangent in a JVP rule. JAX takes it for linear in its first operand and transposes it for a
    gradient, which calls ``backward``; forward mode, which would compute it, calls ``refuse``.

    Args:
      name: The name in jaxprs.
      backward: ``backward(dy, *constants, **static)``, what the gradient is; need not be linear.
      refuse: ``refuse(dx, *constants, **static)``, which raises.
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


def _lowered(compute: Compute) -> Callable[..., Any]:
    """The rule that turns a primitive into a program, which says how many devices will share it."""

    def rule(context: Any, *operands: Any, **static: Any) -> Any:
        shared = context.module_context.axis_context
        devices = shared.num_devices if isinstance(shared, mlir.ShardingContext) else 1
        return mlir.lower_fun(partial(compute, devices=devices), multiple_results=False)(context, *operands, **static)

    return rule


def _primitive(name: str, shape: Shape, static: Sequence[str]) -> Primitive:
    primitive = Primitive(name)

    def abstract(first: Any, *others: Any, **static: Any) -> Any:
        # Updated, not made anew: the mapped axes of shard_map over which the operand varies must stay.
        shapes = (operand.shape for operand in (first, *others))
        return first.update(shape=shape(*shapes, **static), weak_type=False)

    def bind(*operands: Array, **static: Any) -> Array:
        return primitive.bind(*operands, **static)

    compiled = jax.jit(bind, static_argnames=tuple(static))

    def evaluate(*operands: Array, **static: Any) -> Array:
        with jax.disable_jit(False):  # the primitive only exists in compiled programs
            return compiled(*operands, **static)

    primitive.def_impl(evaluate)
    primitive.def_abstract_eval(abstract)
    return primitive


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


def _merged_batches(primitive: Primitive) -> Callable[..., tuple[Array, int]]:
    """The rule under ``vmap``: the mapped axis joins the batch axis of the operands."""

    def rule(operands: Sequence[Array], dims: Sequence[int | None], **static: Any) -> tuple[Array, int]:
        stacks = stacked(operands, dims)
        size, batch = stacks[0].shape[:2]
        y = primitive.bind(*(stack.reshape(size * batch, *stack.shape[2:]) for stack in stacks), **static)
        return y.reshape(size, batch, *y.shape[1:]), 0

    return rule


def stacked(operands: Sequence[Array], dims: Sequence[int | None]) -> list[Array]:
    """The operands of a rule under ``vmap`` with the mapped axis first in each; shared operands are repeated."""
    (size,) = {operand.shape[dim] for operand, dim in zip(operands, dims, strict=True) if dim is not None}
    return [
        lax.broadcast(operand, (size,)) if dim is None else jnp.moveaxis(operand, dim, 0)
        for operand, dim in zip(operands, dims, strict=True)
    ]
