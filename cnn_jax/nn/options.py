"""Options of layers as Flax wants static attributes to be: hashable, so that equal layers share compiled programs."""

import dataclasses
from typing import Any

from cnn_jax.ops.arguments import Number, is_traced
from cnn_jax.ops.padding import Padding


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """A traced number as a static attribute: equal to itself alone, since two such numbers cannot be compared."""

    value: Any


def held(number: Number) -> Number | Held:
    """A number as an attribute of a layer.

    >>> held(0.5)
    0.5
    """
    return Held(number) if is_traced(number) else number


def released(number: Number | Held) -> Number:
    """The number that :func:`held` holds."""
    return number.value if isinstance(number, Held) else number


def frozen(padding: Padding) -> Padding:
    """A padding with its lists made tuples.

    >>> frozen([1, [0, 2]])
    (1, (0, 2))
    """
    if isinstance(padding, str | int):
        return padding
    return tuple(entry if isinstance(entry, str | int) else tuple(entry) for entry in padding)
