"""Search spaces as one line of text, for ``--sweep='optimizer.learning_rate=log(1e-3,1); seed=0..4'``."""

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from cnn_jax.errors import UsageError, nearest
from cnn_jax.sweep import space
from cnn_jax.typed import typed

HELP = "key=0.1,0.01 (these values), 0..4 (whole numbers), uniform(0,1), log(1e-3,1), int(8,512), logint(8,512)"

_NUMBER = r"[-+]?[\d.]+(?:[eE][-+]?\d+)?"
_RANGES: dict[str, Callable[..., space.Part]] = {
    "uniform": space.uniform,
    "log": space.log_uniform,
    "int": space.integers,
    "logint": lambda name, low, high: space.integers(name, low, high, log=True),
}


@typed
def parse(text: str, config: Mapping[str, Any] | None = None) -> space.Part:
    """Parses a text of keys, separated by semicolons, to the product of their values.

    Args:
      text: The value of ``--sweep``.
      config: The config's values by dotted key. Values in the text are parsed like flags of these types.

    Raises:
      UsageError: The text cannot be read.

    >>> parse("optimizer.learning_rate=log(1e-3,1); seed=0..4").parts[0]
    Range(name='optimizer.learning_rate', low=0.001, high=1.0, log=True, whole=False)
    >>> space.grid(parse("optimizer.name=sgd,adam; nesterov=true", {"nesterov": False}))
    [{'optimizer.name': 'sgd', 'nesterov': True}, {'optimizer.name': 'adam', 'nesterov': True}]
    """
    parts = [_part(piece.strip(), config or {}) for piece in text.split(";") if piece.strip()]
    if not parts:
        raise UsageError(f"--sweep={text!r} is empty; write {HELP}")
    return space.product(parts)


def _part(text: str, config: Mapping[str, Any]) -> space.Part:
    name, equals, values = (piece.strip() for piece in text.partition("="))
    if not (name and equals and values):
        raise UsageError(f"--sweep: {text!r} is not of the form key=values; write {HELP}")
    default = config.get(name.removeprefix("config."))
    if isinstance(default, str | tuple):
        quoted = isinstance(default, tuple) or re.search("['\"]", values)
        return space.sweep(name, [_as_flag(v, default) for v in (_values(values) if quoted else values.split(","))])
    if whole := re.fullmatch(r"(-?\d+)\s*\.\.\s*(-?\d+)", values):
        return space.integers(name, int(whole[1]), int(whole[2]))
    if re.fullmatch(rf"{_NUMBER}\s*\.\.+\s*{_NUMBER}", values):
        raise UsageError(f"--sweep: {text!r}: a..b is for whole numbers; write uniform(a,b) or log(a,b)")
    if re.match(r"\w+\s*\(", values) and not values.endswith(")"):
        raise UsageError(f"--sweep: {text!r}: the bracket is not closed; write {HELP}")
    if call := re.fullmatch(r"(\w+)\s*\((.*)\)", values):
        if call[1] not in _RANGES:
            raise UsageError(f"--sweep: {text!r}: there is no range {call[1]!r}; {nearest(call[1], _RANGES)}")
        ends = _values(call[2])
        if len(ends) != 2 or not all(isinstance(end, int | float) for end in ends):
            raise UsageError(f"--sweep: {text!r}: {call[1]} needs two numbers, such as {call[1]}(1,10)")
        return _RANGES[call[1]](name, *ends)
    return space.sweep(name, [_as_flag(value, default) for value in _values(values)])


def _as_flag(value: Any, default: Any) -> Any:
    """A value of the text, parsed like the flag ``--config.key=value``."""
    if isinstance(default, tuple):
        return value if isinstance(value, tuple | list) else (value,)
    if isinstance(default, str):
        return value.strip() if isinstance(value, str) else value
    parsers: dict[type, flags.ArgumentParser] = {bool: flags.BooleanParser(), float: flags.FloatParser()}
    parser = parsers.get(type(default))
    try:
        return value if parser is None else parser.parse(value)
    except (TypeError, ValueError):
        return value


def _values(text: str) -> list[Any]:
    """Values separated by commas: Python literals, or words without quotes."""
    try:
        found = ast.literal_eval(f"[{text}]")
    except (ValueError, SyntaxError):
        return [_word(piece.strip()) for piece in text.split(",")]
    return found[0] if len(found) == 1 and isinstance(found[0], list) else found


def _word(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
