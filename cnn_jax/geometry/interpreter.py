"""A walk through the program that JAX traces of a function, with what it calls, repeats and chooses between.

:class:`Interpreter` knows how programs nest, and nothing of what equations do: a subclass says what becomes of the
values that it follows in one equation.
"""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from cnn_jax.ops.primitives import program_of

Value = TypeVar("Value")
Values = list[Value | None]

# What equations are called that run one program on their operands; names differ between versions of JAX.
_CALLS = {
    *("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_vmap_call"),
}


class Interpreter(Generic[Value]):
    """Follows values through a program; None stands for one of which nothing is to be followed.

    Attributes:
      notes: What a subclass writes down on the way. Of a loop remain those of the last step, of a choice those of one
        branch.
    """

    def __init__(self) -> None:
        self.notes: list[Any] = []

    # --- What a subclass says ---

    def equation(self, equation: JaxprEqn, inputs: Values) -> Values:
        """The values of an equation's outputs; it calls no other program, or one that is not known here."""
        raise NotImplementedError

    def either(self, values: Values) -> Value | None:
        """A value that is one of these, it is not known which."""
        raise NotImplementedError

    def element(self, value: Value) -> Value | None:
        """One entry along the first axis: what a scan gives to a step."""
        raise NotImplementedError

    def stack(self, value: Value, size: int) -> Value:
        """Values that are all like this one, along a new first axis."""
        raise NotImplementedError

    def unknown(self, equation: JaxprEqn, inputs: Values) -> Values:
        """The values of the outputs of an equation that cannot be followed."""
        raise NotImplementedError

    def choose(self, branches: list[list[Any]]) -> list[Any]:
        """The notes that stand for a choice, of those of its branches."""
        raise NotImplementedError

    def repeated(self, notes: list[Any], times: int | None) -> list[Any]:
        """The notes of a loop that runs so often, None if that is not known, of those of a step."""
        raise NotImplementedError

    # --- The walk ---

    def run(self, program: ClosedJaxpr | Jaxpr, inputs: Values) -> Values:
        """The values of a program's outputs."""
        body = program.jaxpr if isinstance(program, ClosedJaxpr) else program
        values = dict(zip(body.invars, inputs, strict=True))

        def known(atoms: Sequence[Any]) -> Values:
            return [None if isinstance(atom, Literal) else values.get(atom) for atom in atoms]

        for equation in body.eqns:
            outputs = self._outputs(equation, known(equation.invars))
            values |= dict(zip(equation.outvars, outputs, strict=True))
        return known(body.outvars)

    def _outputs(self, equation: JaxprEqn, inputs: Values) -> Values:
        name = equation.primitive.name
        if name == "scan":
            return self._scan(equation, inputs)
        if name == "while":
            return self._while(equation, inputs)
        if name == "cond":
            return self._cond(equation, inputs)
        if name in _CALLS:
            bodies = [value for value in equation.params.values() if isinstance(value, ClosedJaxpr | Jaxpr)]
            if len(bodies) == 1:
                return self.call(equation, bodies[0], inputs)
        own = program_of(equation)
        if own is not None:
            return self.call(equation, own, inputs)
        return self.equation(equation, inputs)

    def call(self, equation: JaxprEqn, program: ClosedJaxpr | Jaxpr, inputs: Values) -> Values:
        """The values of the outputs of an equation that runs a program on its operands."""
        return self.run(program, inputs)

    def _noted(self, program: ClosedJaxpr, inputs: Values) -> tuple[Values, list[Any]]:
        """The outputs of a program, and the notes of it, which are not written down yet."""
        before, self.notes = self.notes, []
        outputs = self.run(program, inputs)
        notes, self.notes = self.notes, before
        return outputs, notes

    def _scan(self, equation: JaxprEqn, inputs: Values) -> Values:
        """A loop of known length, followed step by step until a step changes nothing."""
        consts, carried, length = (equation.params[name] for name in ("num_consts", "num_carry", "length"))
        fixed, carry = inputs[:consts], inputs[consts : consts + carried]
        elements = [value and self.element(value) for value in inputs[consts + carried :]]
        stacked: list[Values] = []
        notes: list[Any] = []
        for _ in range(length):
            outputs, notes = self._noted(equation.params["jaxpr"], [*fixed, *carry, *elements])
            stacked.append(outputs[carried:])
            if outputs[:carried] == carry:
                break
            carry = outputs[:carried]
        self.notes += self.repeated(notes, length)
        results = [self.either(list(column)) for column in zip(*stacked, strict=True)]
        return [
            *carry,
            *(value and self.stack(value, length) for value in results or [None] * (len(equation.outvars) - carried)),
        ]

    def _while(self, equation: JaxprEqn, inputs: Values) -> Values:
        """A loop of unknown length: known only is what a step leaves as it was."""
        numbers = equation.params
        tests, bodies = numbers["cond_nconsts"], numbers["body_nconsts"]
        carry = inputs[tests + bodies :]
        outputs, notes = self._noted(numbers["body_jaxpr"], [*inputs[tests : tests + bodies], *carry])
        self.notes += self.repeated(notes, None)
        return carry if outputs == carry else self.unknown(equation, inputs)

    def _cond(self, equation: JaxprEqn, inputs: Values) -> Values:
        """A choice between programs; those for different platforms compute the same."""
        results = [self._noted(branch, inputs[1:]) for branch in equation.params["branches"]]
        self.notes += self.choose([notes for _, notes in results])
        return [self.either(list(column)) for column in zip(*(outputs for outputs, _ in results), strict=True)]
