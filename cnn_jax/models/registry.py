"""The names of the networks, and the one function that builds any of them."""

from collections.abc import Callable

from flax import nnx
from jaxtyping import DTypeLike

from cnn_jax import nn
from cnn_jax.errors import UsageError, nearest
from cnn_jax.models import lenet

_BUILDERS: dict[str, Callable[..., nn.Sequence]] = {**lenet.VARIANTS}


def available() -> tuple[str, ...]:
    """The names that :func:`create` knows, sorted.

    >>> "lenet_5_modern" in available()
    True
    """
    return tuple(sorted(_BUILDERS))


def create(
    name: str,
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float = 1.0,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs,
) -> nn.Sequence:
    """Builds a network by name.

    Args:
      name: one of :func:`available`.
      num_classes: the number of outputs.
      input_shape: (height, width, channels) of one input.
      width: multiplies the number of channels of every hidden layer, and rounds it to at least 1.
      dtype: the type that layers compute in, by default that of the input; parameters are float32 either way.
      rngs: draws the initial parameters.

    Returns:
      A module called as ``model(x, train=False, rngs=None, return_activations=False)``, x (batch, *input_shape).

    Raises:
      UsageError: an unknown name, fewer than one class, or an input too small for a layer (which one, and the sizes).

    >>> import jax
    >>> create("lenet_5_modern", num_classes=10, input_shape=(12, 12, 1), rngs=nnx.Rngs(0))
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: lenet_5_modern does not fit inputs of 12x12x1: layer 'c3': ...
    """
    if name not in _BUILDERS:
        raise UsageError(f"model.name={name!r} is unknown; {nearest(name, available())}")
    if num_classes < 1:
        raise UsageError(f"num_classes={num_classes} must be at least 1")
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise UsageError(f"input_shape={input_shape} must be (height, width, channels), each at least 1")
    if width <= 0:
        raise UsageError(f"width={width} must be positive")
    try:
        return _BUILDERS[name](
            num_classes=num_classes, input_shape=tuple(input_shape), width=width, dtype=dtype, rngs=rngs
        )
    except UsageError as error:
        shape = "x".join(map(str, input_shape))
        raise UsageError(f"{name} does not fit inputs of {shape}: {error}") from error
