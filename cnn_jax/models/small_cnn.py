"""A small network for small pictures, for whoever has a few CPU cores and some minutes."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from flax import nnx
from jax.nn.initializers import he_normal
from jaxtyping import DTypeLike

from cnn_jax import geometry, nn, ops
from cnn_jax.models.variant import Variant, scaled
from cnn_jax.ops.arguments import Number


def small_cnn(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    dropout_rate: Number = 0.3,
) -> nn.Sequence:
    """Three 3x3 convolutions with batch normalisation, two pools, one hidden layer: 458,730 parameters for 28x28.

    The pools follow the convolutions at once, so that normalisation and rectifier see a quarter of the positions; with
    a positive scale the rectifier of a maximum is the maximum of the rectified.

    Args:
      num_classes: Outputs.
      input_shape: (height, width, channels).
      width: Multiplies the channels and the hidden units.
      dtype: What to compute in.
      rngs: Draws the parameters.
      dropout_rate: The probability of dropping a hidden unit.
    """
    conv = partial(
        nn.Conv, kernel_size=(3, 3), padding="SAME", use_bias=False, kernel_init=he_normal(), dtype=dtype, rngs=rngs
    )
    layers: dict[str, Callable[..., Any]] = {}
    channels = input_shape[-1]
    for place, published in enumerate((32, 64, 64), start=1):
        features = scaled(published, width)
        layers[f"conv{place}"] = conv(channels, features)
        if place < 3:
            layers[f"pool{place}"] = nn.MaxPool((2, 2))
        layers[f"bn{place}"] = nn.BatchNorm(features, momentum=0.9, dtype=dtype, rngs=rngs)
        layers[f"relu{place}"] = ops.relu
        channels = features
    shape = geometry.output_shape(layers, input_shape)
    hidden = scaled(128, width)
    linear = partial(nn.Linear, kernel_init=he_normal(), dtype=dtype, rngs=rngs)
    return nn.Sequence(
        {
            **layers,
            "flatten": nn.Flatten(shape),
            "fc": linear(math.prod(shape), hidden),
            "fc_relu": ops.relu,
            "dropout": nn.Dropout(dropout_rate),
            "output": linear(hidden, num_classes),
        }
    )


VARIANTS = {"small_cnn": Variant(small_cnn, (28, 28, 1), 10)}
