"""Options of layers as Flax wants static attributes to be: hashable, so that equal layers share compiled programs."""

from cnn_jax.ops.padding import Padding


def frozen(padding: Padding) -> Padding:
    """A padding with its lists made tuples.

    >>> frozen([1, [0, 2]])
    (1, (0, 2))
    """
    if isinstance(padding, str | int):
        return padding
    return tuple(entry if isinstance(entry, str | int) else tuple(entry) for entry in padding)
