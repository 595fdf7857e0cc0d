"""Arguments of public functions, checked against their annotations: a wrong type is one line that names the argument.

Without a check, ``data.load(3, "train")`` would be an ``AttributeError`` from inside. ``ops`` and ``nn`` have checks of
their own, which know shapes.
"""

import collections.abc
import functools
import inspect
import numbers
import reprlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jaxtyping
import numpy as np

from cnn_jax.errors import UsageError

_Typed = TypeVar("_Typed", bound=Callable[..., Any])

_NUMBERS = {int: numbers.Integral, float: numbers.Real, complex: numbers.Complex}
_CONTAINERS = (collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection, list)


def typed(function: _Typed) -> _Typed:
    """A decorator that checks the arguments of a function, or the fields of a dataclass, when it is called.

    What is accepted is what usually works: any array for an array of a certain kind, NumPy's numbers for Python's, a
    list for a tuple. Shapes, and what is behind an iterator, are not checked.

    Args:
      function: The function, or the class.

    Returns:
      The function with a check in front, or the same class.

    Raises:
      UsageError: By the new function: an argument has another type.

    >>> @typed
    ... def repeat(text: str, *, times: int = 2) -> str:
    ...     return text * times
    >>> repeat("ab"), repeat("ab", times=np.int32(3))
    ('abab', 'ababab')
    >>> repeat("ab", times="3")
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: repeat: times='3' must be int, not str
    """
    if inspect.isclass(function):
        setattr(function, "__init__", _checked(function.__init__, function.__qualname__))  # noqa: B010
        return function
    return typing.cast("_Typed", _checked(function, function.__name__))


def _checked(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def with_check(*args: Any, **kwargs: Any) -> Any:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
        hints = _hints(function)
        for argument, value in given.items():
            kind = signature.parameters[argument].kind
            values = {argument: value}
            if kind is inspect.Parameter.VAR_POSITIONAL:
                values = {f"{argument}[{number}]": one for number, one in enumerate(value)}
            elif kind is inspect.Parameter.VAR_KEYWORD:
                values = value
            for place, one in values.items():
                if argument in hints and not fits(one, hints[argument]):
                    expected = described(hints[argument])
                    raise UsageError(f"{name}: {place}={_shown(one)} must be {expected}, not {type(one).__name__}")
        return function(*args, **kwargs)

    return with_check


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function; none if they name what is only imported for type checking."""
    try:
        return typing.get_type_hints(inspect.unwrap(function))
    except NameError:
        return {}


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value may be given where an annotation stands.

    >>> fits([3, 4], tuple[int, ...]), fits("ab", Sequence[str]), fits(True, int), fits(None, str | None)
    (True, False, False, True)
    >>> fits(np.ones(2), jaxtyping.Float[np.ndarray, "n"]), fits([1.0, 2.0], jaxtyping.Float[np.ndarray, "n"])
    (True, False)
    """
    if choices := _choices(annotation):
        return any(fits(value, one) for one in choices)
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return any(value is one or (type(value) is type(one) and value == one) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple | list) and _elements_fit(value, inner)
    if annotation in _NUMBERS:
        return isinstance(value, _NUMBERS[annotation]) and not isinstance(value, bool)
    if annotation is bool:
        return isinstance(value, bool | np.bool_)
    if annotation is None:
        return value is None
    if _is_array(annotation):
        return hasattr(value, "shape") and hasattr(value, "dtype")
    if origin is collections.abc.Callable:
        return callable(value)
    kind = origin or annotation
    if not isinstance(kind, type) or kind is type:
        return True  # a type variable, a protocol of types
    if kind in _CONTAINERS and isinstance(value, str | bytes):
        return False  # of which every letter would be an element
    elements: Any = value
    if kind in _CONTAINERS and hasattr(value, "shape") and value.shape:
        return not inner or all(fits(one, inner[0]) for one in elements)  # a stacked array for a sequence of arrays
    try:
        if not isinstance(value, kind):
            return False
    except TypeError:  # a protocol that cannot be checked
        return True
    if issubclass(kind, Mapping) and inner:
        return all(fits(key, inner[0]) and fits(one, inner[1]) for key, one in elements.items())
    if issubclass(kind, Sequence) and inner and not isinstance(value, range):
        return all(fits(one, inner[0]) for one in elements)
    return True


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or of a type variable that stands for one of several."""
    if isinstance(annotation, TypeVar):
        return annotation.__constraints__
    return typing.get_args(annotation) if typing.get_origin(annotation) in (typing.Union, types.UnionType) else ()


def _elements_fit(value: Sequence[Any], inner: tuple[Any, ...]) -> bool:
    if len(inner) == 2 and inner[1] is ...:
        return all(fits(one, inner[0]) for one in value)
    return len(value) == len(inner) and all(map(fits, value, inner))


def _is_array(annotation: Any) -> bool:
    if not isinstance(annotation, type):
        return False
    is_jax = (annotation.__module__, annotation.__name__) == ("jax", "Array")  # without importing jax
    return is_jax or issubclass(annotation, np.ndarray | jaxtyping.AbstractArray)


def described(annotation: Any) -> str:
    """An annotation in the words of an error message.

    >>> described(str | bytes | None), described(tuple[int, ...]), described(Mapping[str, np.ndarray])
    ('str, bytes or None', 'a tuple of int', 'a mapping from str to an array')
    """
    if choices := _choices(annotation):
        *others, last = dict.fromkeys(map(described, choices))
        return f"{', '.join(others)} or {last}" if others else last
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(map(repr, inner))
    if annotation is None or annotation is types.NoneType:
        return "None"
    if _is_array(annotation):
        return "an array"
    if origin is collections.abc.Callable:
        return "a function"
    kind = origin or annotation
    if isinstance(kind, type) and issubclass(kind, Mapping) and inner:
        return f"a mapping from {described(inner[0])} to {described(inner[1])}"
    if origin is tuple and not (len(inner) == 2 and inner[1] is ...):
        return f"a tuple ({', '.join(map(described, inner))})"
    name = getattr(kind, "__name__", str(kind))
    if kind is not tuple and kind not in _CONTAINERS:
        return name
    return f"a {name.lower()} of {described(inner[0])}" if inner else f"a {name.lower()}"


def _shown(value: Any) -> str:
    return " ".join(reprlib.repr(value).split())
