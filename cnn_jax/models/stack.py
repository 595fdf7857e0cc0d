"""A small network for comparing one large kernel with several small ones of the same receptive field."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jax.nn.initializers import he_normal
from jaxtyping import DTypeLike

from cnn_jax import geometry, nn
from cnn_jax.errors import UsageError
from cnn_jax.models.variant import Variant, scaled


def conv_stack(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    kernel_sizes: Sequence[int] = (3, 3, 3),
    channels: int = 16,
    blocks: int = 2,
) -> nn.Sequence:
    """Blocks of convolutions without padding, each followed by a 2x2 max pool, and one linear layer.

    Stacks of convolutions with the same receptive field have outputs of the same size. So a 7x7 kernel, with 49 weights
    for each pair of channels, and three 3x3 kernels, with 27, differ in nothing else (Simonyan & Zisserman, "Very deep
    convolutional networks for large-scale image recognition", 2015, section 2.3).

    Args:
      num_classes: The number of outputs.
      input_shape: The shape of one input, (height, width, channels).
      width: Multiplies the number of channels.
      dtype: The type to compute in.
      rngs: Draws the parameters.
      kernel_sizes: The window sizes of a block's convolutions. Each convolution is followed by a ReLU.
      channels: The number of channels of each convolution, before scaling.
      blocks: The number of blocks.

    Raises:
      UsageError: ``kernel_sizes`` is empty or has a size below 1, or ``blocks`` is below 1.
    """
    if not kernel_sizes or min(kernel_sizes) < 1 or blocks < 1:
        raise UsageError(
            f"kernel_sizes={tuple(kernel_sizes)}, blocks={blocks}: give at least one kernel size of at least 1, and at "
            f"least one block"
        )
    layers: dict[str, Any] = {}
    before, features = input_shape[-1], scaled(channels, width)
    for block in range(1, blocks + 1):
        for number, size in enumerate(kernel_sizes, start=1):
            name = f"conv{block}_{number}"
            options: dict[str, Any] = {"padding": "VALID", "dtype": dtype, "kernel_init": he_normal(), "rngs": rngs}
            layers[name] = nn.Conv(before, features, (size, size), **options)
            layers[f"{name}_relu"] = jax.nn.relu
            before = features
        layers[f"pool{block}"] = nn.MaxPool((2, 2), strides=(2, 2))
    shape = geometry.output_shape(layers, input_shape)
    output = nn.Linear(math.prod(shape), num_classes, dtype=dtype, rngs=rngs)
    return nn.Sequence({**layers, "flatten": nn.Flatten(shape), "output": output})


VARIANTS = {"conv_stack": Variant(conv_stack, (28, 28, 1), 10)}
