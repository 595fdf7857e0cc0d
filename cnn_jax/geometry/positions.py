"""Whether a layer works position by position: read off what JAX traces of it, and never guessed from its name.

An activation, a normalisation, dropout at test time, a sum over channels: each output position depends on the input at
the same position and nowhere else, so that a receptive field passes through unchanged.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

_ELEMENTWISE = {
    *("abs", "acos", "acosh", "add", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "clamp"),
    *("convert_element_type", "copy", "cos", "cosh", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1"),
    *("floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min"),
    *("mul", "ne", "neg", "nextafter", "not", "or", "pow", "reduce_precision", "rem", "round", "rsqrt", "select_n"),
    *("sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor"),
}
_CALLS = {"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "remat2"}
# Those that move or join entries, each with a condition that it leaves the first ``lead`` axes alone.
_ALONG_OTHER_AXES: dict[str, Callable[[dict[str, Any], Sequence[int], int], bool]] = {
    "broadcast_in_dim": lambda p, shape, lead: tuple(p["broadcast_dimensions"][:lead]) == tuple(range(lead)),
    "concatenate": lambda p, shape, lead: p["dimension"] >= lead,
    "dot_general": lambda p, shape, lead: (
        min(p["dimension_numbers"][0][0]) >= lead and not p["dimension_numbers"][1][0]
    ),
    "pad": lambda p, shape, lead: not any(map(any, p["padding_config"][:lead])),
    "reshape": lambda p, shape, lead: True,  # row-major, so equal leading sizes mean equal positions
    "slice": lambda p, shape, lead: True,  # a slice as long as its axis is all of it
    "squeeze": lambda p, shape, lead: min(p["dimensions"], default=lead) >= lead,
    "transpose": lambda p, shape, lead: tuple(p["permutation"][:lead]) == tuple(range(lead)),
    **{
        f"reduce_{kind}": lambda p, shape, lead: min(p["axes"], default=lead) >= lead
        for kind in ("sum", "max", "min", "prod", "and", "or")
    },
}


def keeps_positions(layer: Callable[..., Any], shape: Sequence[int], *, mixing_channels: bool = True) -> bool:
    """Whether every output of a layer depends on the input at its own position only.

    Args:
      layer: A function, or a module, whose parameters may be abstract.
      shape: Of one input, without the batch axis, channels last.
      mixing_channels: Whether an output may depend on all channels of its position.

    Returns:
      False also where it cannot be told.

    >>> keeps_positions(jax.nn.softmax, (28, 28, 6)), keeps_positions(lambda x: x[:, ::-1], (28, 28, 6))
    (True, False)
    """
    graph, state = nnx.split(layer) if isinstance(layer, nnx.Module) else (None, ())
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    try:
        closed = jax.make_jaxpr(lambda state, x: (layer if graph is None else nnx.merge(graph, state))(x))(state, x)
    except Exception:  # whatever a stranger's layer raises for this input, nothing is known of it
        return False
    if [output.shape[:-1] for output in closed.out_avals] != [x.shape[:-1]]:
        return False
    marked = [False] * (len(closed.jaxpr.invars) - 1) + [True]
    return _follow(closed.jaxpr, marked, lead=len(shape) + (not mixing_channels)) is not None


def _follow(jaxpr: Jaxpr, marked: Sequence[bool], *, lead: int) -> list[bool] | None:
    """Which outputs depend on the marked inputs; None if on a way there the first ``lead`` axes are touched."""
    depends = {var for var, mark in zip(jaxpr.invars, marked, strict=True) if mark}

    def marks(atoms: Sequence[Var | Literal]) -> list[bool]:
        return [not isinstance(atom, Literal) and atom in depends for atom in atoms]

    for equation in jaxpr.eqns:
        inputs = marks(equation.invars)
        if not any(inputs):
            continue
        inner = inner_program(equation)
        if inner is not None:
            outputs = _follow(inner, inputs, lead=lead)
            if outputs is None:
                return None
        elif leaves_alone(equation, inputs, lead):
            outputs = [True] * len(equation.outvars)
        else:
            return None
        depends |= {var for var, mark in zip(equation.outvars, outputs, strict=True) if mark}
    return marks(jaxpr.outvars)


def inner_program(equation: JaxprEqn) -> Jaxpr | None:
    """The program that an equation calls, or None."""
    if equation.primitive.name not in _CALLS:
        return None
    bodies = [value for value in equation.params.values() if isinstance(value, ClosedJaxpr | Jaxpr)]
    if len(bodies) != 1:
        return None
    return bodies[0].jaxpr if isinstance(bodies[0], ClosedJaxpr) else bodies[0]


def leaves_alone(equation: JaxprEqn, marked: Sequence[bool], lead: int) -> bool:
    """Whether an equation keeps its operands' entries where they are along their first ``lead`` axes."""
    operands = [atom for atom, mark in zip(equation.invars, marked, strict=True) if mark]
    heads = {tuple(atom.aval.shape[:lead]) for atom in (*operands, *equation.outvars)}  # type: ignore[attr-defined]
    name = equation.primitive.name
    if len(heads) != 1:
        return False
    if name in _ELEMENTWISE:
        return True
    if name == "dot_general" and not marked[0]:
        return False
    condition = _ALONG_OTHER_AXES.get(name)
    return condition is not None and condition(equation.params, operands[0].aval.shape, lead)  # type: ignore[attr-defined]
