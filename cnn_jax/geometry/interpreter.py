"""An interpreter of jaxprs that handles nested programs, loops and branches.

:class:`Interpreter` handles the nesting of programs. A subclass defines how a single equation transforms the values
that it follows.
"""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from cnn_jax.ops.primitives import program_of

Value = TypeVar("Value")
Values = list[Value | None]

# The primitives that run one program on their operands. The names differ between versions of JAX.
_CALLS = {
    *("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_vmap_call"),
}


def _constants_and_carried(params: dict[str, Any]) -> tuple[int, int]:
    """How many operands of a scan are constants, and how many are carried; JAX 0.12 groups the operands instead."""
    if "ft_in" not in params:
        return params["num_consts"], params["num_carry"]
    constants, carried, _ = params["ft_in"].unpack()
    return len(list(constants)), len(list(carried))


class Interpreter(Generic[Value]):
    """Follows values through a jaxpr; None stands for a value that is not followed.

    Attributes:
      notes: The records that a subclass makes. For a loop only the notes of the last step remain; for a conditional
        only those of one branch.
    """

    def __init__(self) -> None:
        self.notes: list[Any] = []

    # --- Methods of subclasses ---

    def equation(self, equation: JaxprEqn, inputs: Values) -> Values:
        """The values of an equation's outputs, for an equation without a known nested program."""
        raise NotImplementedError

    def union(self, values: Values) -> Value | None:
        """The value of an output that is one of several values, when it is unknown which."""
        raise NotImplementedError

    def element(self, value: Value) -> Value | None:
        """The value of one entry along the first axis, as a scan passes it to a step."""
        raise NotImplementedError

    def stack(self, value: Value, size: int) -> Value:
        """The value of ``size`` equal values, stacked along a new first axis."""
        raise NotImplementedError

    def unknown(self, equation: JaxprEqn, inputs: Values) -> Values:
        """The values of the outputs of an equation that cannot be followed."""
        raise NotImplementedError

    def choose_branch(self, branches: list[list[Any]]) -> list[Any]:
        """The notes of a conditional, selected from the notes of its branches."""
        raise NotImplementedError

    def repeated(self, notes: list[Any], times: int | None) -> list[Any]:
        """The notes of a loop with the given number of steps (None if unknown), from the notes of one step."""
        raise NotImplementedError

    # --- Interpretation ---

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
        """The outputs and notes of a program, without adding the notes to ``self.notes``."""
        before, self.notes = self.notes, []
        outputs = self.run(program, inputs)
        notes, self.notes = self.notes, before
        return outputs, notes

    def _scan(self, equation: JaxprEqn, inputs: Values) -> Values:
        """A loop of known length, followed step by step until the values no longer change."""
        (consts, carried), length = _constants_and_carried(equation.params), equation.params["length"]
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
        results = [self.union(list(column)) for column in zip(*stacked, strict=True)]
        return [
            *carry,
            *(value and self.stack(value, length) for value in results or [None] * (len(equation.outvars) - carried)),
        ]

    def _while(self, equation: JaxprEqn, inputs: Values) -> Values:
        """A loop of unknown length: only values that a step does not change are known."""
        numbers = equation.params
        tests, bodies = numbers["cond_nconsts"], numbers["body_nconsts"]
        carry = inputs[tests + bodies :]
        outputs, notes = self._noted(numbers["body_jaxpr"], [*inputs[tests : tests + bodies], *carry])
        self.notes += self.repeated(notes, None)
        return carry if outputs == carry else self.unknown(equation, inputs)

    def _cond(self, equation: JaxprEqn, inputs: Values) -> Values:
        """A conditional. Branches for different platforms compute the same values."""
        results = [self._noted(branch, inputs[1:]) for branch in equation.params["branches"]]
        self.notes += self.choose_branch([notes for _, notes in results])
        return [self.union(list(column)) for column in zip(*(outputs for outputs, _ in results), strict=True)]
