"""The names of the networks, and the one function that builds any of them."""

from collections.abc import Sequence
from typing import Any

from flax import nnx
from jaxtyping import DTypeLike

from cnn_jax import geometry, nn
from cnn_jax.errors import UsageError, nearest
from cnn_jax.models import (
    airbench,
    alexnet,
    baselines,
    googlenet,
    inception_resnet,
    lenet,
    neocognitron,
    resnet,
    small_cnn,
    stack,
    vgg,
    zfnet,
)
from cnn_jax.models.keys import Keys
from cnn_jax.models.variant import Variant

_FAMILIES = (
    baselines,
    stack,
    neocognitron,
    lenet,
    alexnet,
    zfnet,
    vgg,
    googlenet,
    inception_resnet,
    resnet,
    small_cnn,
    airbench,
)
_VARIANTS: dict[str, Variant] = {name: entry for family in _FAMILIES for name, entry in family.VARIANTS.items()}


def available() -> tuple[str, ...]:
    """The names that :func:`create` knows, sorted.

    >>> "lenet_5_modern" in available()
    True
    """
    return tuple(sorted(_VARIANTS))


def variant(name: str) -> Variant:
    """How a network is built, for which inputs and how many classes it was published, and its options.

    Raises:
      UsageError: an unknown name.

    >>> variant("lenet_5_modern").input_shape
    (32, 32, 1)
    """
    if name not in _VARIANTS:
        raise UsageError(f"model.name={name!r} is unknown; {nearest(name, available())}")
    return _VARIANTS[name]


def create(
    name: str,
    *,
    num_classes: int | None = None,
    input_shape: Sequence[int] | None = None,
    width: float = 1.0,
    dtype: DTypeLike | None = None,
    rngs: nnx.Rngs | None = None,
    **options: Any,
) -> nn.Sequence:
    """Builds a network by name.

    Args:
      name: one of :func:`available`.
      num_classes: the number of outputs; by default the paper's (1,000 for ImageNet, 10 for digits).
      input_shape: (height, width, channels) of one input; by default the paper's.
      width: multiplies the number of channels of every hidden layer, and rounds it to at least 1.
      dtype: the type that layers compute in, by default that of the input; parameters are float32 either way.
      rngs: draws the initial parameters; by default ``nnx.Rngs(0)``, the same ones each time.
      **options: those of the network, by keyword: ``variant(name).options()``.

    Returns:
      A module called as ``model(x, train=False, rngs=None, return_activations=False)``, x (batch, *input_shape). The
      largest of its outputs is the class. It remembers its ``input_shape``.

    Raises:
      UsageError: an unknown name or option, fewer than one class, an input too small for a layer (which one, and the
        sizes), or one with its channels first.

    >>> import jax
    >>> create("lenet_5_modern", input_shape=(12, 12, 1), rngs=nnx.Rngs(0))
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: lenet_5_modern for inputs of 12x12x1: layer 'c3': ...
    """
    chosen = variant(name)
    unknown = next((option for option in options if option not in chosen.options()), None)
    if unknown is not None:
        known = nearest(unknown, chosen.options()) if chosen.options() else "it has none"
        raise UsageError(f"{name} has no option {unknown!r}; {known}")
    num_classes = chosen.num_classes if num_classes is None else num_classes
    if num_classes < 1:
        raise UsageError(f"num_classes={num_classes} must be at least 1")
    if width <= 0:
        raise UsageError(f"width={width} must be positive")
    shape = chosen.input_shape if input_shape is None else _checked_shape(tuple(input_shape))
    try:
        model = chosen.builder(
            num_classes=num_classes,
            input_shape=shape,
            width=width,
            dtype=dtype,
            rngs=Keys(nnx.Rngs(0) if rngs is None else rngs),
            **options,
        )
        geometry.output_shape(model, shape)
    except UsageError as error:
        raise UsageError(f"{name} for inputs of {'x'.join(map(str, shape))}: {error}") from error
    model.input_shape = shape
    return model


def _checked_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != 3 or min(shape) < 1:
        raise UsageError(f"input_shape={shape} must be (height, width, channels), each at least 1")
    first, *rest = shape
    if first in (1, 3) and min(rest) > 4:
        raise UsageError(
            f"input_shape={shape} looks channels-first; networks take (height, width, channels): {(*rest, first)}"
        )
    return shape
