"""Follows receptive fields through the jaxpr of a function."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import JaxprEqn

from cnn_jax.geometry import primitives
from cnn_jax.geometry.places import Place, concatenated, joined
from cnn_jax.geometry.primitives import WEIGHTS, Seen, shape_of
from cnn_jax.geometry.shapes import in_evaluation
from cnn_jax.jaxprs import AnyJaxpr, Dataflow, Values
from cnn_jax.ops.primitives import program_of


class Follower(Dataflow[Any]):
    """Computes the receptive fields of array entries. Its notes are the numbers of products of weights with inputs."""

    def __init__(self) -> None:
        super().__init__()
        self._pads = False  # inside jnp.pad

    def equation(self, equation: JaxprEqn, inputs: Values) -> Values:
        """The places of an equation's outputs."""
        own = program_of(equation)
        if own is not None:
            return self.call(equation, own, inputs)
        number = primitives.products(equation, inputs)
        if number:
            self.notes.append(number)
        if self._pads and equation.primitive.name == "concatenate":
            axis = int(equation.params["dimension"])
            sizes = [shape_of(atom)[axis] for atom in equation.invars]
            pieces = [value if isinstance(value, Place) else None for value in inputs]
            if any(pieces):
                return [concatenated(pieces, sizes, axis, padding=True)]
        return list(primitives.after_equation(equation, inputs))

    def call(self, equation: JaxprEqn, program: AnyJaxpr, inputs: Values) -> Values:
        """Marks all values that ``jnp.pad`` adds to an array as padding."""
        before = self._pads
        self._pads = before or equation.params.get("name") == "_pad"
        outputs = super().call(equation, program, inputs)
        self._pads = before
        return outputs

    def union(self, values: Values) -> Seen:
        """The union of places, for a value that may be any of them."""
        places = primitives.places_of(values)
        return joined(places) if places else next((value for value in values if value), None)

    def element(self, value: Any) -> Seen:
        """One entry along the first axis."""
        if not isinstance(value, Place):
            return value
        return value.unknown(value.running(0)).collapsed(0).squeezed(0)

    def stack(self, value: Any, size: int) -> Seen:
        """Places along a new first axis."""
        if not isinstance(value, Place):
            return value
        return value.broadcast((size, *value.shape), range(1, 1 + len(value.shape)))

    def unknown(self, equation: JaxprEqn, inputs: Values) -> Values:
        """The places of outputs that cannot be followed."""
        if not primitives.places_of(inputs):
            return [self.union(inputs)] * len(equation.outvars)
        return list(primitives.unknown(equation, inputs))

    def choose_branch(self, branches: list[list[Any]]) -> list[Any]:
        """The notes of the branch with the most products."""
        return max(branches, key=lambda notes: sum(note for note in notes if isinstance(note, int)))

    def repeated(self, notes: list[Any], times: int | None) -> list[Any]:
        """The notes of a loop, in which each step has the same number of products."""
        return [note * (times or 1) for note in notes]


def follow(layer: Callable[..., Any], place: Place) -> tuple[Place | None, int]:
    """Traces a layer in evaluation mode; computes the place of its output and its number of products.

    Args:
      layer: A function or module of one array; the parameters of a module may be abstract.
      place: The place of the input.

    Returns:
      The place of the output, and the number of products of weights with inputs. The place is None if the layer cannot
      be traced or has several outputs.
    """
    run, state = in_evaluation(layer)
    try:
        program = jax.make_jaxpr(run)(state, jax.ShapeDtypeStruct(place.shape, jnp.float32))
    except Exception:  # a user's layer may raise anything; its field is then unknown
        return None, 0
    inputs: Sequence[Seen] = [*[WEIGHTS] * (len(program.jaxpr.invars) - 1), place]
    follower = Follower()
    outputs = follower.run(program, list(inputs))
    result = outputs[0] if len(outputs) == 1 and isinstance(outputs[0], Place) else None
    return result, sum(follower.notes)
