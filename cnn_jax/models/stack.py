"""A small network of which the windows are the question: one large kernel, or several small ones that see as far."""

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
    """Blocks of convolutions without padding, each followed by a 2x2 max-pool, and one full connection.

    Stacks of the same receptive field make maps of the same size, so that nothing else differs between one 7x7 kernel
    of 49 weights a pair of channels and three 3x3 kernels of 27 (Simonyan & Zisserman, "Very deep convolutional
    networks for large-scale image recognition", 2015, section 2.3).

    Options:
      kernel_sizes: the windows of a block's convolutions, a rectifier after each.
      channels: of each convolution, before scaling.
      blocks: the number of blocks.
    """
    if not kernel_sizes or min(kernel_sizes) < 1 or blocks < 1:
        raise UsageError(
            f"kernel_sizes={tuple(kernel_sizes)}, blocks={blocks}: both must name at least one, and sizes be at least 1"
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
