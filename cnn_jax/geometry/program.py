"""A network that does not name its activations, followed in the program that JAX traces of it.

Each call of a layer, a Flax NNX module without others inside, is marked in that program. What lies between the calls
(activations, sums, concatenations, means, pools as functions) is read off its equations; behind an equation that is not
known (see :mod:`cnn_jax.geometry.primitives`) nothing is known of receptive fields.

A layer inside ``lax.scan`` is one call that runs as often as the scan does, with the field of the last step. Of
``lax.cond`` and ``lax.switch`` the branch with the most products stands for all, and fields are those of either. How
often ``lax.while_loop`` runs is not known: one step is counted.
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
from cnn_jax.geometry.interpreter import Values
from cnn_jax.geometry.places import Place, Shape
from cnn_jax.geometry.positions import by_description
from cnn_jax.geometry.primitives import WEIGHTS, shape_of
from cnn_jax.geometry.windows import window_of

_mark = Primitive("cnn_jax_mark")  # the identity: where a call begins and ends
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
      name: The path to the layer, its parts joined by slashes; of a second call with ``#2`` behind it.
      layer: What was called.
      called: The same, with its parameters' shapes at the call: in a scan, those of one step.
      input_shape: Of one example, as it is for one run.
      output: Likewise.
      runs: How often it runs for one input of the network; None inside of a loop of unknown length.
      products: Of all runs, as the program has them: those of weights with inputs.
      field: Of a unit of the output, None where it cannot be told.
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
class Program:
    """What is found in a network.

    Attributes:
      calls: Of its layers, in order.
      products: Of weights with inputs outside of layers, for one input.
      output: Of the network.
      place: What the output sees, None where there are several, or none that depends on the input.
    """

    calls: list[Call]
    products: int
    output: jax.ShapeDtypeStruct
    place: Place | None


def traced(model: Any, place: Place) -> Program:
    """The calls of the layers inside a network, as it runs in evaluation.

    Args:
      model: Called with one array; its parameters may be abstract.
      place: The array.

    Raises:
      UsageError: No NNX module, or one that cannot be called with an array of that shape.

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
        raise UsageError(f"trace: a {kind} is no nnx.Module; put layers into one, nn.Sequence({{name: layer}})")
    model = nnx.merge(*nnx.split(model))  # a copy, whose normalisations and dropout can be told to evaluate
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
    except Exception as error:  # whatever a stranger's network raises for this input
        where = f" behind {called[-1]!r}" if called else ""
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
    behind = outputs[0] if len(outputs) == 1 and isinstance(outputs[0], Place) else None
    return Program(calls, products, jax.tree.leaves(output)[0], behind)


def is_layer(module: Any) -> bool:
    """Whether a module is a row of its own: it can be called, and has no others inside."""
    return callable(module) and next((path for path, _ in nnx.iter_modules(module) if path), None) is None


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(map(str, path))


@dataclasses.dataclass(frozen=True, eq=False)
class _Called:
    """What is known of a call while it is traced; ``shape`` is that of its output."""

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
    """Makes a module mark its calls in the program that is traced."""
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
    """The layer; with a kernel of another shape, where a scan gave it one of many."""
    graph, state = nnx.split(module)
    own = nnx.merge(graph, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state))
    own.__class__ = type(layer)
    of_step, kept = (getattr(one, "kernel", None) for one in (own, layer))
    return layer if of_step is None or kept is None or of_step.shape == kept.shape else own


class _CallFollower(Follower):
    """Notes calls, with the products that lie inside of them."""

    def equation(self, equation: JaxprEqn, inputs: Values) -> Values:
        """The places behind an equation."""
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
            value = by_description(call.layer, begin.place, shape) or value
        window = window_of(call.layer)
        copies = shape[: len(shape) - len(call.shape)]  # those of vmap
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

    def choose(self, branches: list[list[Any]]) -> list[Any]:
        """Those of the branch with the most products."""
        return max(branches, key=lambda notes: sum(note if isinstance(note, int) else note.products for note in notes))

    def repeated(self, notes: list[Any], times: int | None) -> list[Any]:
        """As many runs, and products, in each step."""
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
