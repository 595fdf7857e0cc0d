"""A network that does not name its activations, followed in the program that JAX traces of it.

Each call of a layer, a Flax NNX module without others inside, is marked in that program. What lies between the calls
(activations, sums, concatenations, means, pools as functions) is read off its equations; behind any other equation
nothing is known of receptive fields.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Primitive, Var

from cnn_jax.errors import UsageError
from cnn_jax.geometry.places import Place, Shape, behind
from cnn_jax.geometry.positions import inner_program, leaves_alone
from cnn_jax.geometry.receptive_field import Flow, ReceptiveField, join_flows
from cnn_jax.geometry.windows import Window

_POOLS = ("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum")

_mark = Primitive("cnn_jax_mark")  # the identity: where a call begins and ends
_mark.def_abstract_eval(lambda array, *, call, begins: array)


@dataclasses.dataclass
class Call:
    """One call of a layer.

    Attributes:
      name: The path to the layer, its parts joined by slashes; of a second call with ``#2`` behind it.
      layer: What was called.
      output: Of the call.
      again: Whether it was called before, so that its parameters have been counted.
      field: Of a unit of the output, None where it cannot be told.
    """

    name: str
    layer: Any
    output: jax.ShapeDtypeStruct
    again: bool = False
    field: ReceptiveField | None = None


def calls(model: Any, input_shape: Shape, *, train: bool = False) -> list[Call]:
    """The calls of the layers inside a network, in order, as it runs in evaluation.

    Args:
      model: Called with one array; its parameters may be abstract.
      input_shape: Of one input, channels last.
      train: Must be False: what a network does in training has no name here.

    Raises:
      UsageError: No NNX module, or one that cannot be called with an array of that shape.

    >>> class Net(nnx.Module):
    ...     def __init__(self, rngs):
    ...         self.conv = nnx.Conv(1, 8, (5, 5), padding="VALID", rngs=rngs)
    ...         self.fc = nnx.Linear(12 * 12 * 8, 10, rngs=rngs)
    ...     def __call__(self, x):
    ...         x = nnx.max_pool(nnx.relu(self.conv(x)), (2, 2), strides=(2, 2))
    ...         return self.fc(x.reshape(x.shape[0], -1))
    >>> [(call.name, call.output.shape, call.field.size) for call in calls(Net(nnx.Rngs(0)), (28, 28, 1))]
    [('conv', (1, 24, 24, 8), (5, 5)), ('fc', (1, 10), (28, 28))]
    """
    kind = type(model).__name__
    if not isinstance(model, nnx.Module):
        raise UsageError(f"trace: a {kind} is no nnx.Module; put layers into one, nn.Sequence({{name: layer}})")
    if train:
        raise UsageError(f"trace: train=True is for networks that name their activations, which {kind} does not")
    model = nnx.merge(*nnx.split(model))  # a copy, whose normalisations and dropout can be told to evaluate
    model.eval()
    graph, state = nnx.split(model)
    layers = {"/".join(map(str, path)): module for path, module in nnx.iter_modules(model) if _is_layer(module)}
    found: list[Call] = []

    def run(state: Any, x: jax.Array) -> Any:
        merged = nnx.merge(graph, state)
        for path, module in list(nnx.iter_modules(merged)):
            if _is_layer(module):
                _watch(module, "/".join(map(str, path)), layers, found)
        return merged(x)

    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    try:
        program = jax.make_jaxpr(run)(state, x)
    except UsageError:
        raise
    except Exception as error:  # whatever a stranger's network raises for this input
        where = f" behind {found[-1].name!r}" if found else ""
        raise UsageError(f"trace: {kind} does not take inputs of shape {x.shape}{where}: {error}") from error
    space = input_shape[:-1]
    start = Place(input_shape, Flow(ReceptiveField.of_input(len(space)), space))
    _Follower(found).through(program.jaxpr, {program.jaxpr.invars[-1]: start})
    return found


def _is_layer(module: Any) -> bool:
    return callable(module) and next((path for path, _ in nnx.iter_modules(module) if path), None) is None


def _watch(module: Any, name: str, layers: dict[str, Any], found: list[Call]) -> None:
    """Makes a module write down its calls."""
    kind: Any = type(module)

    def watched(self: Any, x: Any, *args: Any, **options: Any) -> Any:
        number = len(found)
        before = sum(call.name.partition("#")[0] == name for call in found)
        y = kind.__call__(self, _mark.bind(jnp.asarray(x), call=number, begins=True), *args, **options)
        if not hasattr(y, "shape"):
            return y
        title = f"{name}#{before + 1}" if before else name
        found.append(Call(title, layers[name], jax.ShapeDtypeStruct(y.shape, y.dtype), again=before > 0))
        return _mark.bind(y, call=number, begins=False)

    module.__class__ = type(kind.__name__, (kind,), {"__call__": watched})


class _Follower:
    """Follows places through a program, and writes down the fields of calls."""

    def __init__(self, found: Sequence[Call]) -> None:
        self.found = found
        self.entered: dict[int, Place] = {}

    def through(self, program: Jaxpr, places: dict[Var, Place]) -> list[Place | None]:
        """What is known of a program's outputs, from what is known of some of its inputs."""

        def known(atoms: Sequence[Var | Literal]) -> list[Place | None]:
            return [None if isinstance(atom, Literal) else places.get(atom) for atom in atoms]

        for equation in program.eqns:
            inputs = known(equation.invars)
            if not any(inputs):
                continue
            inner = inner_program(equation)
            if inner is not None:
                outputs = self.through(
                    inner, {var: place for var, place in zip(inner.invars, inputs, strict=True) if place}
                )
            else:
                outputs = [self.behind(equation, inputs)] * len(equation.outvars)
            places |= {var: place for var, place in zip(equation.outvars, outputs, strict=True) if place}
        return known(program.outvars)

    def behind(self, equation: JaxprEqn, inputs: Sequence[Place | None]) -> Place:
        """The place behind an equation."""
        shape = tuple(equation.outvars[0].aval.shape[1:])  # type: ignore[attr-defined]
        places = [place for place in inputs if place]
        first = places[0]
        if equation.primitive is _mark:
            number = equation.params["call"]
            if equation.params["begins"]:
                self.entered[number] = first
                return first
            place = behind(self.found[number].layer, self.entered[number], shape)
            self.found[number].field = place.flow.field
            return place
        if first.shape is None or len(first.shape) == 0:
            return Place.unknown(shape)
        rank = len(first.shape) - 1
        if leaves_alone(equation, [place is not None for place in inputs], 1 + rank + (rank == 0)):
            return Place(shape, join_flows([place.flow for place in places]))
        flow = first.flow
        if flow.field is None or flow.sizes is None or len(places) > 1:
            return Place.unknown(shape)
        window = _pool(equation, rank)
        if window is not None:
            return Place(shape, flow.slid(window, rank))
        if len(shape) == 1 and rank and equation.primitive.name == "reshape":  # flattened: the same units in a row
            return Place(shape, flow)
        if math.prod(shape[:-1]) == 1:
            return Place(shape, Flow(flow.field.of_all(flow.sizes), (1,) * len(flow.sizes)))
        return Place.unknown(shape)


def _pool(equation: JaxprEqn, rank: int) -> Window | None:
    """The window of a pool that is an equation; None for another one, or for windows over examples or channels."""
    numbers = equation.params
    if equation.primitive.name not in _POOLS or not rank:
        return None
    names = ("window_dimensions", "window_strides", "window_dilation", "base_dilation")
    sizes, strides, dilation, spread = (tuple(numbers[name]) for name in names)
    beside = (*sizes[:1], *sizes[rank + 1 :], *strides[:1], *strides[rank + 1 :])
    if len(sizes) != rank + 2 or {*beside} != {1}:
        return None
    space = slice(1, rank + 1)
    padding = tuple(numbers["padding"])[space]
    return Window(sizes[space], strides[space], padding, dilation[space], spread[space])
