"""Finds the rectifiers of a jaxpr between its inputs and its outputs.

A rectifier computes ``max(x, 0)`` or ``min(max(x, 0), cap)``. A function with a custom derivative rule, such as
``jax.nn.relu``, ``jax.nn.relu6`` and ``cnn_jax.ops.relu``, is an activation and always counts. The same computation
written out may not be an activation: Flax's ``LayerNorm`` contains ``maximum(0, variance)``. It is a *look-alike*,
which counts only on request.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax
import jax
import jaxlib
import jaxtyping
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn

from cnn_jax.attribution import target
from cnn_jax.errors import UsageError
from cnn_jax.jaxprs import CUSTOM_RULES, AnyJaxpr, Dataflow, Values, programs_in
from cnn_jax.ops.arguments import concrete

LOOKALIKES = ("maximum", "where", "clip")
"""The written-out rectifiers: ``jnp.maximum(x, 0)``, ``jnp.where(x > 0, x, 0)``, ``jnp.clip(x, 0, cap)``."""
_SMOOTH = {"hard_sigmoid", "hard_silu", "hard_swish"}  # functions of jax.nn that contain relu6 but are not rectifiers
_MOVES = {"convert_element_type", "broadcast_in_dim", "copy", "reshape", "squeeze", "expand_dims"}
_FOUNDATIONS = [Path(str(module.__file__)).parent for module in (jax, jaxlib, jaxtyping)]
_LAYERS = [Path(str(flax.__file__)).parent, Path(__file__).parents[1]]
_CALLER = target.__file__


@dataclasses.dataclass(frozen=True)
class Rectifier:
    """A rectifier, a look-alike, or a function with a custom derivative rule that contains rectifiers.

    Attributes:
      kind: ``'relu'``, ``'relu6'``, one of the look-alikes ``'maximum'``, ``'where'`` and ``'clip'``, or the name of a
        function that is not a rectifier but contains one, such as ``'hard_sigmoid'``.
      layer: The name of the layer, from ``jax.named_scope``, which ``cnn_jax`` sets for every layer; '' outside layers.
      source: The line of source code, ``'file.py:12 (function)'``; '' if it is unknown.
      runs: How many times it runs; more than once in a scan.
    """

    kind: str
    layer: str
    source: str
    runs: int = 1

    def __str__(self) -> str:
        parts = (self.kind, self.layer and f"in {self.layer!r}", self.source and f"at {self.source}")
        return " ".join(part for part in parts if part) + (f", {self.runs} times" if self.runs > 1 else "")


@dataclasses.dataclass(frozen=True)
class Found:
    """A rectifier and its position in the jaxpr.

    Attributes:
      rectifier: The description of the rectifier.
      role: ``'replace'``, ``'leave'``, or ``'open'`` for a function whose derivative rule is ignored.
      path: The path of its equation, see :class:`cnn_jax.jaxprs.Interpreter`.
      operand: The index of the rectified operand of the equation.
      cap: The upper limit, infinity if there is none.
    """

    rectifier: Rectifier
    role: str
    path: tuple[int, ...]
    operand: int = 0
    cap: float = math.inf

    @property
    def is_activation(self) -> bool:
        """Whether it is a rectifier with a custom derivative rule."""
        return self.role == "replace" and self.rectifier.kind not in LOOKALIKES


def find(program: ClosedJaxpr, op: str, also: tuple[str, ...]) -> list[Found]:
    """Finds all rectifiers and look-alikes whose operand depends on an input of a jaxpr.

    Args:
      program: The jaxpr.
      op: The calling function, for error messages.
      also: The look-alikes that count as rectifiers.

    Raises:
      UsageError: A rectifier is at a place where it cannot be replaced.

    >>> from cnn_jax.jaxprs import traced
    >>> program = traced(lambda x: jax.numpy.maximum(jax.nn.relu(x), 0), 1.0)
    >>> [(found.rectifier.kind, found.role) for found in find(program, "example", also=())]
    [('relu', 'replace'), ('maximum', 'leave')]
    """
    finder = _Finder(op, also)
    finder.run(program, [_Follows() for _ in program.jaxpr.invars])
    return finder.notes


@dataclasses.dataclass(frozen=True)
class _Constant:
    number: float


@dataclasses.dataclass(frozen=True, eq=False)
class _Compared:
    """The form of a boolean: whether another value is positive (or, if not ``positive``, negative)."""

    of: "_Follows"
    positive: bool


@dataclasses.dataclass(frozen=True, eq=False)
class _Rectified:
    """The form of a rectified value."""

    of: "_Follows"
    cap: float = math.inf


@dataclasses.dataclass(frozen=True)
class _Follows:
    """A value that depends on the inputs. Equality ignores the form, so that the analysis of loops ends."""

    form: _Compared | _Rectified | None = dataclasses.field(default=None, compare=False)


class _Finder(Dataflow[Any]):
    """Its values are constants and values that depend on an input. Its notes are of type :class:`Found`."""

    def __init__(self, op: str, also: tuple[str, ...]) -> None:
        super().__init__()
        self.op, self.also = op, also

    def constant(self, number: Any) -> _Constant | None:
        real = any(jax.dtypes.issubdtype(jax.dtypes.result_type(number), kind) for kind in (np.integer, np.floating))
        if not real or np.size(number) != 1:
            return None
        known = concrete(number) if isinstance(number, jax.Array) else np.asarray(number)
        return None if known is None else _Constant(float(known.item()))

    def equation(self, equation: JaxprEqn, inputs: Values) -> Values:
        name = equation.primitive.name
        for program in programs_in(equation):
            _, notes = self.noted(program, [_Follows() for _ in _invars(program)])
            if self._follows(inputs) and any(note.role == "replace" for note in notes):
                raise UsageError(f"{self.op}: a rectifier is inside {name}, where it cannot be replaced: {notes[0]}")
        if name in _MOVES and isinstance(inputs[0], _Constant):
            return [inputs[0]]
        form = self._form(name, inputs)
        if isinstance(form, _Rectified) and name != "min":
            kind = {"max": "maximum", "select_n": "where", "clamp": "clip"}[name]
            self._note(kind, "replace" if kind in self.also else "leave", inputs, form)
        return [_Follows(form)] if form else self.unknown(equation, inputs)

    def _form(self, name: str, inputs: Values) -> _Compared | _Rectified | None:
        """The form of an equation's output, if it is a comparison or a rectified value."""
        match name, inputs:
            case ("max", [_Follows() as x, _Constant(0)]) | ("max", [_Constant(0), _Follows() as x]):
                return _Rectified(x)
            case ("min", [_Follows(form=_Rectified() as inner), _Constant(cap)]) | (
                "min",
                [_Constant(cap), _Follows(form=_Rectified() as inner)],
            ) if cap > 0:
                return _Rectified(inner.of, min(cap, inner.cap))
            case "clamp", [_Constant(0), _Follows() as x, _Constant(cap)] if cap > 0:
                return _Rectified(x, cap)
            case ("gt" | "ge", [_Follows() as x, _Constant(0)]) | ("lt" | "le", [_Constant(0), _Follows() as x]):
                return _Compared(x, positive=True)
            case ("lt" | "le", [_Follows() as x, _Constant(0)]) | ("gt" | "ge", [_Constant(0), _Follows() as x]):
                return _Compared(x, positive=False)
            case "select_n", [_Follows(form=_Compared(of=x, positive=True)), _Constant(0), chosen] if chosen is x:
                return _Rectified(x)
            case "select_n", [_Follows(form=_Compared(of=x, positive=False)), chosen, _Constant(0)] if chosen is x:
                return _Rectified(x)
        return None

    def call(self, equation: JaxprEqn, program: AnyJaxpr, inputs: Values) -> Values:
        primitive, name = equation.primitive.name, equation.params.get("name", "")
        outputs, notes = self.noted(program, inputs)
        form = outputs[0].form if len(outputs) == 1 and isinstance(outputs[0], _Follows) else None
        # The output is one of the operands, rectified.
        rectified = form if isinstance(form, _Rectified) and any(value is form.of for value in inputs) else None
        if primitive in CUSTOM_RULES and rectified:
            kind = "relu" if rectified.cap == math.inf else f"relu{rectified.cap:g}"
            self._note(kind, "replace", inputs, rectified)
        elif primitive in CUSTOM_RULES and any(note.is_activation for note in notes):
            self._note(_name(program), "open", inputs)
            self.notes += notes
        elif name == "clip" and rectified:
            self._note("clip", "replace" if "clip" in self.also else "leave", inputs, rectified)
        elif notes and (primitive in CUSTOM_RULES or name in _SMOOTH):  # jax.nn.softplus contains a maximum
            self._note(_name(program), "leave", inputs)
        else:
            self.notes += notes
        return outputs

    def while_loop(self, equation: JaxprEqn, inputs: Values) -> Values:
        before = len(self.notes)
        outputs = super().while_loop(equation, inputs)
        if inside := [note.rectifier for note in self.notes[before:] if note.role == "replace"]:
            raise UsageError(
                f"{self.op}: {inside[0]} is in a loop of unknown length, which has no gradient in reverse mode; "
                f"use lax.scan, or lax.fori_loop with Python ints"
            )
        return outputs

    def union(self, values: Values) -> Any:
        if self._follows(values):
            return _Follows()
        return values[0] if all(value == values[0] for value in values) else None

    def element(self, value: Any) -> Any:
        return _Follows() if isinstance(value, _Follows) else value

    def stack(self, value: Any, size: int) -> Any:
        return self.element(value)

    def unknown(self, equation: JaxprEqn, inputs: Values) -> Values:
        return [_Follows() if self._follows(inputs) else None for _ in equation.outvars]

    def choose_branch(self, branches: list[list[Found]]) -> list[Found]:
        return [note for notes in branches for note in notes]

    def repeated(self, notes: list[Found], times: int | None) -> list[Found]:
        def again(rectifier: Rectifier) -> Rectifier:
            return dataclasses.replace(rectifier, runs=rectifier.runs * (times or 1))

        return [dataclasses.replace(note, rectifier=again(note.rectifier)) for note in notes]

    def _follows(self, values: Values) -> bool:
        return any(isinstance(value, _Follows) for value in values)

    def _note(self, kind: str, role: str, inputs: Values, form: _Rectified | None = None) -> None:
        layer = "/".join(scope for equation in self.enclosing if (scope := _scope(equation)))
        rectifier = Rectifier(kind, layer, _source(self.enclosing))
        if form is None:
            self.notes.append(Found(rectifier, role, self.path))
        else:
            operand = next(index for index, value in enumerate(inputs) if value is form.of)
            self.notes.append(Found(rectifier, role, self.path, operand, form.cap))


def _invars(program: AnyJaxpr) -> list[Any]:
    return program.jaxpr.invars if isinstance(program, ClosedJaxpr) else program.invars


def _name(program: AnyJaxpr) -> str:
    """The name of the function that was traced."""
    return program.jaxpr.debug_info.func_name.rpartition(".")[2] if isinstance(program, ClosedJaxpr) else ""


def _scope(equation: JaxprEqn) -> str:
    """The scopes of an equation without the names of transformations: ``'conv1'`` for ``'vmap(conv1)'``."""
    parts = str(equation.source_info.name_stack).split("/")
    return "/".join(name for part in parts if (name := part.rpartition("(")[2].rstrip(")")))


def _source(enclosing: Sequence[JaxprEqn]) -> str:
    """The innermost line of the user's code, or else of ``cnn_jax`` or Flax, that an equation comes from.

    Args:
      enclosing: The enclosing equations, then the equation itself.
    """
    library = ""
    for equation in reversed(enclosing):
        traceback: Any = equation.source_info.traceback
        for frame in traceback.frames if traceback else []:
            place = _place_of(frame.file_name)
            if frame.file_name == _CALLER:
                break  # the frames beyond belong to the caller of the method
            line = f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
            if place == "user":
                return line
            library = library or (line if place == "library" else "")
    return library


@functools.lru_cache(maxsize=1024)
def _place_of(file: str) -> str:
    """Whether a file is the user's, of a library of layers, or of neither, such as JAX and the standard library."""
    if file.startswith("<@") or Path(file).parent == Path(contextlib.__file__).parent:
        return "neither"
    if any(Path(file).is_relative_to(folder) for folder in _FOUNDATIONS):
        return "neither"
    return "library" if any(Path(file).is_relative_to(folder) for folder in _LAYERS) else "user"
