"""The names of the networks, and the one function that builds any of them."""

import math
import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any

import jax.numpy as jnp
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
from cnn_jax.models.variant import Variant, checked_classes
from cnn_jax.ops.arguments import FLOATS

# What torchvision and timm call networks that are here.
NAMES_ELSEWHERE = {
    f"vgg{depth}{bn}": f"vgg_{net}{bn}"
    for depth, net in ((11, "a"), (13, "b"), (16, "d"), (19, "e"))
    for bn in ("", "_bn")
} | {f"resnet{depth}": f"resnet_{depth}" for depth in (18, 34, 50, 101, 152)}
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
        known = NAMES_ELSEWHERE.get(name)
        mend = f"here it is {known!r}" if known else nearest(str(name), available())
        raise UsageError(f"model.name={name!r} is unknown; {mend}")
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
      dtype: the type that layers compute in; by default what the input and the parameters, which are float32, promote
        to. Parameters are float32 either way.
      rngs: draws the initial parameters; by default ``nnx.Rngs(0)``, the same ones each time.
      **options: those of the network, by keyword: ``variant(name).options()``.

    Returns:
      A module called as ``model(x, train=None, rngs=None, return_activations=False)``, x (batch, *input_shape). The
      largest of its outputs is the class. It remembers its ``input_shape``. It evaluates, as after ``model.eval()``,
      unless it is called with ``train=True`` or after ``model.train()``.

    Raises:
      UsageError: an unknown name or option, fewer than one class, an input too small for a layer (which one, and the
        sizes), or one with its channels first; a width, type or rngs that is none.

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
    num_classes = checked_classes(chosen.num_classes if num_classes is None else num_classes)
    if not (isinstance(width, Real) and 0 < width < math.inf):
        raise UsageError(f"width={width} must be a positive number")
    shape = chosen.input_shape if input_shape is None else _checked_shape(input_shape)
    _check_dtype(dtype)
    if rngs is not None and not isinstance(rngs, nnx.Rngs):
        raise UsageError(f"rngs={rngs!r} must be made by nnx.Rngs, of a seed or a key: rngs=nnx.Rngs(0)")
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
    model.eval()
    return model


def _check_dtype(dtype: DTypeLike | None) -> None:
    try:
        known = dtype is None or jnp.dtype(dtype).name in FLOATS
    except TypeError:
        known = False
    if not known:
        raise UsageError(f"dtype={dtype!r} must be one of {', '.join(FLOATS)}, or None for that of the input")


def _checked_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    try:
        shape = tuple(operator.index(size) for size in input_shape)
    except TypeError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise UsageError(f"input_shape={input_shape} must be (height, width, channels), each at least 1")
    first, *rest = shape
    if first in (1, 3) and min(rest) > 4:
        raise UsageError(
            f"input_shape={shape} looks channels-first; networks take (height, width, channels): {(*rest, first)}"
        )
    return shape
