"""Analysis of a network that does not name its activations, from its jaxpr.

A layer is a Flax NNX module without submodules. Each call of a layer is marked in the jaxpr. Operations between the
calls (activations, sums, concatenations, means, pools as functions) are analysed equation by equation. After an unknown
equation (see :mod:`cnn_jax.geometry.primitives`) receptive fields are unknown.

A layer inside ``lax.scan`` is one call that runs once per step; its field is that of the last step. For ``lax.cond``
and ``lax.switch`` the branch with the most products is counted, and the field is the union over the branches. The
number of steps of ``lax.while_loop`` is unknown, so one step is counted.
"""

import dataclasses
import math
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import JaxprEqn, Primitive
from jax.interpreters import ad, batching

from cnn_jax.errors import UsageError
from cnn_jax.geometry.fields import ReceptiveField
from cnn_jax.geometry.follower import Follower
from cnn_jax.geometry.places import Place, Shape
from cnn_jax.geometry.positions import from_attributes
from cnn_jax.geometry.primitives import WEIGHTS, shape_of
from cnn_jax.geometry.windows import window_of
from cnn_jax.jaxprs import Values

_mark = Primitive("cnn_jax_mark")  # an identity that marks the start and the end of a call
_mark.def_abstract_eval(lambda array, *, call, begins: array)
ad.primitive_jvps[_mark] = lambda primals, tangents, **params: (_mark.bind(*primals, **params), tangents[0])
batching.primitive_batchers[_mark] = lambda args, dims, **params: (
    _mark.bind(jnp.moveaxis(args[0], dims[0], 0), **params),
    0,
)


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes:
      name: The path to the layer, with parts joined by slashes. The second call has the suffix ``#2``.
      layer: The layer.
      called: The layer with the shapes of its parameters in the call; in a scan these are the shapes of one step.
      input_shape: The input shape of one example in one run.
      output: The output shape of one example in one run.
      runs: The number of runs for one input of the network; None inside a loop of unknown length.
      products: The number of products of weights with inputs in the jaxpr, in all runs.
      field: The receptive field of an output unit; None if it is unknown.
    """

    name: str
    layer: Any
    called: Any
    input_shape: Shape
    output: jax.ShapeDtypeStruct
    runs: int | None
    products: int
    field: ReceptiveField | None


@dataclasses.dataclass(frozen=True)
class AnalysedNetwork:
    """The result of analysing a network.

    Attributes:
      calls: The calls of the network's layers, in order.
      products: The number of products of weights with inputs outside layers, for one input.
      output: The output of the network.
      place: The place of the output; None if there are several outputs, or none that depends on the input.
    """

    calls: list[Call]
    products: int
    output: jax.ShapeDtypeStruct
    place: Place | None


def traced(model: Any, place: Place) -> AnalysedNetwork:
    """Analyses the calls of the layers inside a network in evaluation mode.

    Args:
      model: A module that is called with one array; its parameters may be abstract.
      place: The place of the array.

    Raises:
      UsageError: The model is not an NNX module, or cannot be called with an array of this shape.

    >>> class Net(nnx.Module):
    ...     def __init__(self, rngs):
    ...         self.conv = nnx.Conv(1, 8, (5, 5), padding="VALID", rngs=rngs)
    ...         self.fc = nnx.Linear(12 * 12 * 8, 10, rngs=rngs)
    ...     def __call__(self, x):
    ...         x = nnx.max_pool(nnx.relu(self.conv(x)), (2, 2), strides=(2, 2))
    ...         return self.fc(x.reshape(x.shape[0], -1))
    >>> start = Place.of_input((1, 28, 28, 1), 2)
    >>> [(call.name, call.output.shape, call.field.size) for call in traced(Net(nnx.Rngs(0)), start).calls]
    [('conv', (24, 24, 8), (5, 5)), ('fc', (10,), (28, 28))]
    """
    kind = type(model).__name__
    if not isinstance(model, nnx.Module):
        raise UsageError(f"trace: a {kind} is not an nnx.Module; put layers into one, nn.Sequence({{name: layer}})")
    model = nnx.merge(*nnx.split(model))  # a copy, which can be set to evaluation mode
    model.eval()
    graph, state = nnx.split(model)
    layers = {_name(path): module for path, module in nnx.iter_modules(model) if is_layer(module)}
    called: list[str] = []

    def run(state: Any, x: jax.Array) -> Any:
        merged = nnx.merge(graph, state)
        for path, module in list(nnx.iter_modules(merged)):
            if is_layer(module):
                _watch(module, _name(path), layers[_name(path)], called)
        return merged(x)

    x = jax.ShapeDtypeStruct(place.shape, jnp.float32)
    try:
        program, output = jax.make_jaxpr(run, return_shape=True)(state, x)
    except UsageError:
        raise
    except Exception as error:  # a user's network may raise anything
        where = f" after {called[-1]!r}" if called else ""
        raise UsageError(f"trace: {kind} does not take inputs of shape {x.shape}{where}: {error}") from error
    follower = _CallFollower()
    outputs = follower.run(program, [*[WEIGHTS] * (len(program.jaxpr.invars) - 1), place])
    calls = [note for note in follower.notes if isinstance(note, Call)]
    before: Counter[str] = Counter()
    for index, call in enumerate(calls):
        before[call.name] += 1
        if before[call.name] > 1:
            calls[index] = dataclasses.replace(call, name=f"{call.name}#{before[call.name]}")
    products = sum(note for note in follower.notes if isinstance(note, int))
    result = outputs[0] if len(outputs) == 1 and isinstance(outputs[0], Place) else None
    return AnalysedNetwork(calls, products, jax.tree.leaves(output)[0], result)


def is_layer(module: Any) -> bool:
    """Whether a module is a layer, which has its own row: it is callable and has no submodules."""
    return callable(module) and not any(path for path, _ in nnx.iter_modules(module))


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(map(str, path))


@dataclasses.dataclass(frozen=True, eq=False)
class _Called:
    """A call while it is traced; ``shape`` is the shape of its output."""

    name: str
    layer: Any
    called: Any
    shape: Shape


@dataclasses.dataclass(frozen=True)
class _Begin:
    call: _Called
    place: Place | None
    shape: Shape


def _watch(module: Any, name: str, layer: Any, called: list[str]) -> None:
    """Makes a module mark its calls in the jaxpr."""
    kind: Any = type(module)

    def watched(self: Any, x: Any, *args: Any, **options: Any) -> Any:
        if not hasattr(x, "shape"):
            return kind.__call__(self, x, *args, **options)
        call = _Called(name, layer, _as_called(self, layer), ())
        y = kind.__call__(self, _mark.bind(jnp.asarray(x), call=call, begins=True), *args, **options)
        called.append(name)
        leaves, tree = jax.tree.flatten(y)
        if not leaves or not hasattr(leaves[0], "shape"):
            return y
        object.__setattr__(call, "shape", tuple(leaves[0].shape))
        return jax.tree.unflatten(tree, [_mark.bind(leaves[0], call=call, begins=False), *leaves[1:]])

    module.__class__ = type(kind.__name__, (kind,), {"__call__": watched})


def _as_called(module: Any, layer: Any) -> Any:
    """The layer with the parameter shapes of the call, which differ inside a scan over stacked parameters."""
    graph, state = nnx.split(module)
    own = nnx.merge(graph, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state))
    own.__class__ = type(layer)
    of_step, kept = (getattr(one, "kernel", None) for one in (own, layer))
    return layer if of_step is None or kept is None or of_step.shape == kept.shape else own


class _CallFollower(Follower):
    """Records calls and the products inside them."""

    def equation(self, equation: JaxprEqn, inputs: Values) -> Values:
        """The places of an equation's outputs."""
        if equation.primitive is not _mark:
            return super().equation(equation, inputs)
        call, shape = equation.params["call"], shape_of(equation.outvars[0])
        dtype = equation.outvars[0].aval.dtype  # type: ignore[attr-defined]
        (value,) = inputs
        if equation.params["begins"]:
            self.notes.append(_Begin(call, value if isinstance(value, Place) else None, shape))
            return inputs
        index = max(i for i, note in enumerate(self.notes) if isinstance(note, _Begin) and note.call is call)
        begin, inside = self.notes[index], self.notes[index + 1 :]
        if begin.place is not None:
            value = from_attributes(call.layer, begin.place, shape) or value
        window = window_of(call.layer)
        copies = shape[: len(shape) - len(call.shape)]  # the axes of vmap
        if window is not None and window.rank is not None:
            size = window.rank + 1
        else:
            size = len(call.shape) - (not copies or call.shape[:1] == (1,))
        size = min(size, len(shape))
        field = value.receptive_field if isinstance(value, Place) else None
        found = Call(
            name=call.name,
            layer=call.layer,
            called=call.called,
            input_shape=begin.shape[len(begin.shape) - size :],
            output=jax.ShapeDtypeStruct(shape[len(shape) - size :], dtype),
            runs=math.prod(shape[: len(shape) - size]),
            products=sum(note for note in inside if isinstance(note, int)),
            field=field,
        )
        self.notes[index:] = [found]
        return [value]

    def choose_branch(self, branches: list[list[Any]]) -> list[Any]:
        """The notes of the branch with the most products."""
        return max(branches, key=lambda notes: sum(note if isinstance(note, int) else note.products for note in notes))

    def repeated(self, notes: list[Any], times: int | None) -> list[Any]:
        """The notes of a loop, in which each step has the same runs and products."""
        return [
            note * (times or 1)
            if isinstance(note, int)
            else dataclasses.replace(
                note,
                runs=None if times is None or note.runs is None else note.runs * times,
                products=note.products * (times or 1),
            )
            for note in notes
        ]
