"""Interpreters of jaxprs, with nested programs, loops and branches, for JAX 0.10 to 0.12.

:class:`Interpreter` visits the equations of a jaxpr in order and passes values between them. :class:`Dataflow` is an
interpreter whose values are properties of arrays, such as receptive fields. It analyses loops and branches without
running them. ``cnn_jax.geometry`` uses it for receptive fields. ``cnn_jax.attribution`` uses it to find rectifiers, and
evaluates the jaxpr with replaced rectifiers by another :class:`Interpreter`, whose values are arrays.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.interpreters import partial_eval

Value = TypeVar("Value")
Values = list[Value | None]
AnyJaxpr = ClosedJaxpr | Jaxpr

CUSTOM_RULES = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
CHECKPOINTS = {"remat2", "checkpoint", "remat"}
# The primitives that run one program on their operands. The names differ between versions of JAX.
_CALLS = {"jit", "pjit", "closed_call", "core_call", "custom_vmap_call"} | CUSTOM_RULES | CHECKPOINTS


def program_of_call(equation: JaxprEqn) -> AnyJaxpr | None:
    """The program that an equation runs on its operands; None for other equations.

    >>> (equation,) = jax.make_jaxpr(jax.nn.relu)(1.0).eqns
    >>> equation.primitive.name, program_of_call(equation).eqns[0].params["name"]
    ('custom_jvp_call', 'relu')
    """
    if equation.primitive.name not in _CALLS:
        return None
    bodies = [value for value in equation.params.values() if isinstance(value, AnyJaxpr)]
    return bodies[0] if len(bodies) == 1 else None


def programs_in(equation: JaxprEqn) -> list[AnyJaxpr]:
    """All programs among the parameters of an equation, of whatever primitive."""
    leaves = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda value: isinstance(value, AnyJaxpr))
    return [leaf for leaf in leaves if isinstance(leaf, AnyJaxpr)]


def constants_and_carried(scan: JaxprEqn) -> tuple[int, int]:
    """How many operands of a scan are constants, and how many are carried; JAX 0.12 groups the operands instead."""
    if "ft_in" not in scan.params:
        return scan.params["num_consts"], scan.params["num_carry"]
    constants, carried, _ = scan.params["ft_in"].unpack()
    return len(list(constants)), len(list(carried))


def traced(function: Callable[..., Any], *operands: Any) -> ClosedJaxpr:
    """The program of a function without the equations that its results do not depend on.

    >>> traced(lambda x: (x + 1, x * 2)[0], 1.0).eqns[0].primitive.name
    'add'
    """
    program = jax.make_jaxpr(function)(*operands)
    live, _ = partial_eval.dce_jaxpr(program.jaxpr, [True] * len(program.jaxpr.outvars), instantiate=True)
    return live if isinstance(live, ClosedJaxpr) else ClosedJaxpr(live, program.consts)


class Interpreter(Generic[Value]):
    """Passes values through a jaxpr; None stands for an unknown value.

    A subclass defines :meth:`equation`, and how it handles calls, loops and branches.

    Attributes:
      enclosing: The equations that the current one is nested in, and the current one, from the outermost to the
        innermost.
      path: The position of the current equation: for each of ``enclosing`` its index in its jaxpr, and for a branch the
        index of the branch.
    """

    def __init__(self) -> None:
        self.enclosing: tuple[JaxprEqn, ...] = ()
        self.path: tuple[int, ...] = ()

    # --- Methods of subclasses ---

    def constant(self, number: Any) -> Value | None:
        """The value of a constant: a literal, or an array that the program has closed over."""
        return None

    def equation(self, equation: JaxprEqn, inputs: Values) -> Values:
        """The values of an equation's outputs, for an equation without a known nested program."""
        raise NotImplementedError

    def call(self, equation: JaxprEqn, program: AnyJaxpr, inputs: Values) -> Values:
        """The values of the outputs of an equation that runs a program on its operands."""
        return self.run(program, inputs)

    def scan(self, equation: JaxprEqn, inputs: Values) -> Values:
        """The values of the outputs of a loop of known length."""
        raise NotImplementedError

    def while_loop(self, equation: JaxprEqn, inputs: Values) -> Values:
        """The values of the outputs of a loop of unknown length."""
        raise NotImplementedError

    def cond(self, equation: JaxprEqn, inputs: Values) -> Values:
        """The values of the outputs of a conditional."""
        raise NotImplementedError

    # --- Interpretation ---

    def run(self, program: AnyJaxpr, inputs: Values) -> Values:
        """The values of a program's outputs."""
        body = program.jaxpr if isinstance(program, ClosedJaxpr) else program
        consts = program.consts if isinstance(program, ClosedJaxpr) else []
        values = dict(zip(body.constvars, map(self.constant, consts), strict=True))
        values |= zip(body.invars, inputs, strict=True)

        def known(atoms: Sequence[Any]) -> Values:
            return [self.constant(atom.val) if isinstance(atom, Literal) else values.get(atom) for atom in atoms]

        for index, equation in enumerate(body.eqns):
            with self.at(index, equation):
                outputs = self.outputs(equation, known(equation.invars))
            values |= zip(equation.outvars, outputs, strict=True)
        return known(body.outvars)

    @contextmanager
    def at(self, index: int, *equations: JaxprEqn) -> Iterator[None]:
        """Makes an equation of the program, or a branch of the current equation, the current one."""
        before = self.path, self.enclosing
        self.path, self.enclosing = (*self.path, index), (*self.enclosing, *equations)
        try:
            yield
        finally:
            self.path, self.enclosing = before

    def outputs(self, equation: JaxprEqn, inputs: Values) -> Values:
        """The values of an equation's outputs."""
        nested = {"scan": self.scan, "while": self.while_loop, "cond": self.cond}.get(equation.primitive.name)
        if nested is not None:
            return nested(equation, inputs)
        body = program_of_call(equation)
        return self.equation(equation, inputs) if body is None else self.call(equation, body, inputs)


class Dataflow(Interpreter[Value]):
    """Passes properties of arrays through a jaxpr, which does not run.

    Attributes:
      notes: The records that a subclass makes. For a loop only the notes of the last step remain.
    """

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Any] = []

    # --- Methods of subclasses ---

    def union(self, values: Values) -> Value | None:
        """The value of an output that is one of several values, if it is unknown which one."""
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

    # --- Loops and branches ---

    def noted(self, program: AnyJaxpr, inputs: Values) -> tuple[Values, list[Any]]:
        """The outputs and notes of a program, without adding the notes to ``self.notes``."""
        before, self.notes = self.notes, []
        outputs = self.run(program, inputs)
        notes, self.notes = self.notes, before
        return outputs, notes

    def scan(self, equation: JaxprEqn, inputs: Values) -> Values:
        """A loop of known length, analysed step by step until the values no longer change."""
        (consts, carried), length = constants_and_carried(equation), equation.params["length"]
        fixed, carry = inputs[:consts], inputs[consts : consts + carried]
        elements = [value and self.element(value) for value in inputs[consts + carried :]]
        stacked: list[Values] = []
        notes: list[Any] = []
        for _ in range(length):
            outputs, notes = self.noted(equation.params["jaxpr"], [*fixed, *carry, *elements])
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

    def while_loop(self, equation: JaxprEqn, inputs: Values) -> Values:
        """A loop of unknown length: only values that a step does not change are known."""
        numbers = equation.params
        tests, bodies = numbers["cond_nconsts"], numbers["body_nconsts"]
        carry = inputs[tests + bodies :]
        outputs, notes = self.noted(numbers["body_jaxpr"], [*inputs[tests : tests + bodies], *carry])
        self.notes += self.repeated(notes, None)
        return carry if outputs == carry else self.unknown(equation, inputs)

    def cond(self, equation: JaxprEqn, inputs: Values) -> Values:
        """A conditional. Branches for different platforms compute the same values."""
        results = []
        for index, branch in enumerate(equation.params["branches"]):
            with self.at(index):
                results.append(self.noted(branch, inputs[1:]))
        self.notes += self.choose_branch([notes for _, notes in results])
        return [self.union(list(column)) for column in zip(*(outputs for outputs, _ in results), strict=True)]
