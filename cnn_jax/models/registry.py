"""The names of the networks, and the function that creates a network by name."""

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
    autoencoder,
    baselines,
    captioner,
    dcgan,
    detector,
    fcn,
    googlenet,
    inception_resnet,
    lenet,
    neocognitron,
    resnet,
    resnet_generator,
    segnet,
    small_cnn,
    sound_cnn,
    stack,
    text_cnn,
    u_net,
    vgg,
    voxel_classifier,
    wang,
    zfnet,
)
from cnn_jax.models.keys import Keys
from cnn_jax.models.variant import Variant, checked_classes
from cnn_jax.ops.arguments import FLOATS
from cnn_jax.runtime.objects import is_reference, load_object

# From torchvision's and timm's names to the names of the same networks here.
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
    resnet_generator,
    small_cnn,
    airbench,
    fcn,
    segnet,
    u_net,
    voxel_classifier,
    wang,
    sound_cnn,
    text_cnn,
    autoencoder,
    dcgan,
)
_VARIANTS: dict[str, Variant] = {name: entry for family in _FAMILIES for name, entry in family.VARIANTS.items()}


def available() -> tuple[str, ...]:
    """The names of all networks, sorted.

    >>> "lenet_5_modern" in available()
    True
    """
    return tuple(sorted(_VARIANTS))


def variant(name: str) -> Variant:
    """The registry entry of a network: its builder, published input shape, number of classes, and options.

    Args:
      name: One of :func:`available`, or a reference to a :class:`Variant` of your own: ``'path/to/file.py:NAME'`` or
        ``'package.module:NAME'``.

    Raises:
      UsageError: The name is unknown.

    >>> variant("lenet_5_modern").input_shape
    (32, 32, 1)
    """
    if name not in _VARIANTS and is_reference(name):
        found = load_object(name, what=f"model.name={name!r}")
        if not isinstance(found, Variant):
            raise UsageError(f"model.name={name!r} is not a models.Variant; see docs/extending.md")
        return found
    if name not in _VARIANTS:
        known = NAMES_ELSEWHERE.get(name)
        fix = f"its name here is {known!r}" if known else nearest(str(name), available())
        raise UsageError(f"model.name={name!r} is unknown; {fix}")
    return _VARIANTS[name]


_VARIANTS |= detector.variants(variant) | captioner.variants(variant)


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
    """Creates a network by name.

    Args:
      name: One of :func:`available`.
      num_classes: The number of outputs. The default is the paper's (1,000 for ImageNet, 10 for digits).
      input_shape: The shape of one input, (height, width, channels), with as many axes as the paper's, which is the
        default.
      width: Multiplies the number of channels of every hidden layer. The result is rounded, and at least 1.
      dtype: The type that layers compute in. By default it is the promoted type of the input and the parameters.
        Parameters are always float32.
      rngs: Draws the initial parameters. The default ``nnx.Rngs(0)`` gives the same parameters each time.
      **options: The options of the network; ``variant(name).options()`` lists them.

    Returns:
      A module that is called as ``model(x, train=None, rngs=None, return_activations=False)``, with x of shape
      (batch, *input_shape). It returns logits of shape (batch, num_classes), and networks for segmentation one set of
      logits for each pixel, (batch, *space, num_classes); the largest is the predicted class. The
      attribute ``input_shape`` holds the input shape. The module is in evaluation mode, as after ``model.eval()``,
      unless it is called with ``train=True`` or after ``model.train()``.

    Raises:
      UsageError: The name or an option is unknown, there is fewer than one class, the input is too small for a layer or
        has its channels first, or ``width``, ``dtype`` or ``rngs`` is not valid.

    >>> import jax
    >>> create("lenet_5_modern", input_shape=(12, 12, 1), rngs=nnx.Rngs(0))
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: lenet_5_modern for inputs of 12x12x1: layer 'c3': ...
    """
    chosen = variant(name)
    unknown = next((option for option in options if option not in chosen.options()), None)
    if unknown is not None:
        known = nearest(unknown, chosen.options()) if chosen.options() else "it has no options"
        raise UsageError(f"{name} has no option {unknown!r}; {known}")
    num_classes = checked_classes(chosen.num_classes if num_classes is None else num_classes)
    if not (isinstance(width, Real) and 0 < width < math.inf):
        raise UsageError(f"width={width} must be a positive number")
    axes = len(input_shape) if input_shape is not None and chosen.any_rank else len(chosen.input_shape)
    shape = chosen.input_shape if input_shape is None else _checked_shape(input_shape, axes)
    _check_dtype(dtype)
    if rngs is not None and not isinstance(rngs, nnx.Rngs):
        raise UsageError(f"rngs={rngs!r} must be an nnx.Rngs, created from a seed or a key: rngs=nnx.Rngs(0)")
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
        raise UsageError(f"dtype={dtype!r} must be one of {', '.join(FLOATS)}, or None for the type of the input")


_AXES = {
    1: "length,",
    2: "length, channels",
    3: "height, width, channels",
    4: "depth or frames, height, width, channels",
}


def _checked_shape(input_shape: Sequence[int], axes: int) -> tuple[int, ...]:
    try:
        shape = tuple(operator.index(size) for size in input_shape)
    except TypeError:
        shape = ()
    if len(shape) != axes or axes not in _AXES or min(shape) < 1:
        expected = f"({_AXES[axes]})" if axes in _AXES else "such as (height, width, channels)"
        raise UsageError(f"input_shape={input_shape} must be {expected}, each at least 1")
    first, *rest = shape
    if axes == 3 and first in (1, 3) and min(rest) > 4:
        raise UsageError(
            f"input_shape={shape} looks channels-first; networks take (height, width, channels): {(*rest, first)}"
        )
    return shape
