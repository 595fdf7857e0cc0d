"""Options of layers as hashable static attributes, so that equal layers share compiled programs."""

import dataclasses
from typing import Any

from cnn_jax.ops.arguments import Number, is_traced
from cnn_jax.ops.padding import Padding


@dataclasses.dataclass(frozen=True, eq=False)
class TracedNumber:
    """A traced number as a static attribute. It is equal only to itself, since traced numbers cannot be compared."""

    value: Any


def static_number(number: Number) -> Number | TracedNumber:
    """Converts a number to a static attribute of a layer.

    >>> static_number(0.5)
    0.5
    """
    return TracedNumber(number) if is_traced(number) else number


def original_number(number: Number | TracedNumber) -> Number:
    """Converts the result of :func:`static_number` back to the number."""
    return number.value if isinstance(number, TracedNumber) else number


def static_padding(padding: Padding) -> Padding:
    """Converts the lists in a padding to tuples.

    >>> static_padding([1, [0, 2]])
    (1, (0, 2))
    """
    if isinstance(padding, str | int):
        return padding
    return tuple(entry if isinstance(entry, str | int) else tuple(entry) for entry in padding)
