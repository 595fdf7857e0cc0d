"""Shared parts of all network families: the registry entry, scaled numbers of channels, the number of classes."""

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
    """The registry entry of a network.

    Attributes:
      builder: Creates the network from the keywords ``num_classes``, ``input_shape``, ``width``, ``dtype`` and
        ``rngs``. Its other keywords are the options of the network. Positional arguments, such as a table of layers,
        are bound with ``functools.partial``.
      input_shape: The published input shape, (height, width, channels); for networks of signals (length, channels), of
        volumes (depth, height, width, channels), of videos (frames, height, width, channels).
      num_classes: The published number of classes.
      data_init: Computes initial values from data, for a network that needs it. It gets training images of shape
        (images, height, width, channels), preprocessed as for the network, and returns arrays by path, such as
        ``{'whiten/kernel': array}``. By default all parameters are drawn at random.
      any_rank: Whether inputs may have another number of axes than the published ones, such as those of a volume.
      trunk: The name of a classifier whose layers this network has by the same names, with convolutions in place of its
        linear layers. Its trained weights are a start for this network. Empty for none.
    """

    builder: Callable[..., nn.Sequence]
    input_shape: tuple[int, ...]
    num_classes: int
    data_init: Callable[[Any], dict[str, Any]] | None = None
    any_rank: bool = False
    trunk: str = ""

    def options(self) -> tuple[str, ...]:
        """The names of the options: the builder's keywords that are not common to all networks.

        >>> def mlp(*, num_classes, input_shape, width, dtype, rngs, hidden_sizes=(300, 100)): ...
        >>> Variant(mlp, (28, 28, 1), 10).options()
        ('hidden_sizes',)
        """
        return tuple(name for name in inspect.signature(self.builder).parameters if name not in _COMMON)


def scaled(channels: int, width: float, *, multiple_of: int = 1) -> int:
    """Multiplies a number of channels by the width and rounds it to a multiple, to at least one multiple.

    >>> scaled(96, 0.5), scaled(256, 0.1), scaled(256, 0.1, multiple_of=4), scaled(6, 0.01, multiple_of=2)
    (48, 26, 24, 2)
    """
    return multiple_of * max(1, round(channels * width / multiple_of))


def checked_classes(num_classes: Any) -> int:
    """Returns a valid number of classes as an int.

    Args:
      num_classes: The number of classes.

    Raises:
      UsageError: It is not a whole number of at least 1.

    >>> checked_classes(10)
    10
    """
    if not isinstance(num_classes, Integral) or isinstance(num_classes, bool) or num_classes < 1:
        raise UsageError(f"num_classes={num_classes!r} must be a whole number, at least 1")
    return int(num_classes)
