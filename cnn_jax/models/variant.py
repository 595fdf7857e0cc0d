"""What the files of families share: the entry of a network, its channels scaled by a width, its number of classes."""

import dataclasses
import inspect
from collections.abc import Callable
from numbers import Integral
from typing import Any

from cnn_jax import nn
from cnn_jax.errors import UsageError

_COMMON = ("num_classes", "input_shape", "width", "dtype", "rngs")


@dataclasses.dataclass(frozen=True)
class Variant:
    """One network of a family.

    Attributes:
      builder: makes the network from the keywords ``num_classes``, ``input_shape``, ``width``, ``dtype`` and ``rngs``;
        its further keywords are the options of the network. A row of a family's table is bound in front of them, by
        ``functools.partial``.
      input_shape: (height, width, channels), the published one.
      num_classes: likewise.
      data_init: for a network whose initialisation depends on the data: from training images, (images, height, width,
        channels) as the network gets them, to the arrays that are not drawn at random, ``'whiten/kernel' -> array``.
    """

    builder: Callable[..., nn.Sequence]
    input_shape: tuple[int, int, int]
    num_classes: int
    data_init: Callable[[Any], dict[str, Any]] | None = None

    def options(self) -> tuple[str, ...]:
        """The keywords that this network takes besides those that all of them do.

        >>> def mlp(*, num_classes, input_shape, width, dtype, rngs, hidden_sizes=(300, 100)): ...
        >>> Variant(mlp, (28, 28, 1), 10).options()
        ('hidden_sizes',)
        """
        return tuple(name for name in inspect.signature(self.builder).parameters if name not in _COMMON)


def scaled(channels: int, width: float, *, multiple_of: int = 1) -> int:
    """A published number of channels times the width, rounded to a multiple, and never to nothing.

    >>> scaled(96, 0.5), scaled(256, 0.1), scaled(256, 0.1, multiple_of=4), scaled(6, 0.01, multiple_of=2)
    (48, 26, 24, 2)
    """
    return multiple_of * max(1, round(channels * width / multiple_of))


def checked_classes(num_classes: Any) -> int:
    """A number of classes, or a ``UsageError`` unless it is a whole number and at least 1.

    >>> checked_classes(10)
    10
    """
    if not isinstance(num_classes, Integral) or isinstance(num_classes, bool) or num_classes < 1:
        raise UsageError(f"num_classes={num_classes!r} must be a whole number, at least 1")
    return int(num_classes)
