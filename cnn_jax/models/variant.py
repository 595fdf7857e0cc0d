"""What the files of families share: the entry of a network, and its channel counts scaled by a width."""

import dataclasses
import inspect
from collections.abc import Callable

from cnn_jax import nn

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
    """

    builder: Callable[..., nn.Sequence]
    input_shape: tuple[int, int, int]
    num_classes: int

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
