"""A small network for small images, signals and volumes, which trains in minutes on a few CPU cores."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from flax import nnx
from jax.nn.initializers import he_normal
from jaxtyping import DTypeLike

from cnn_jax import geometry, nn, ops
from cnn_jax.models.variant import Variant, scaled
from cnn_jax.ops.arguments import Number, check_option

POOLS: dict[str, Callable[[int], nnx.Module]] = {
    "max": lambda rank: nn.MaxPool((2,) * rank),
    "average": lambda rank: nn.AvgPool((2,) * rank),
    "stride": lambda rank: nn.MaxPool((1,) * rank, strides=2),
}


def small_cnn(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    dropout_rate: Number = 0.3,
    pool: str = "max",
) -> nn.Sequence:
    """Three 3x3 convolutions with batch normalisation, two max pools and one hidden layer.

    It has 458,730 parameters for 28x28 inputs; for signals and volumes windows are as wide along each axis. The pools
    come directly after the convolutions, so normalisation and ReLU are computed for only a quarter of the positions.
    With a positive scale both preserve the order of values, so pooling before or after them selects the same maxima.

    Args:
      num_classes: The number of outputs.
      input_shape: The shape of one input, such as (height, width, channels).
      width: Multiplies the number of channels and hidden units.
      dtype: The type to compute in.
      rngs: Draws the parameters.
      dropout_rate: The probability of dropping a hidden unit.
      pool: What halves the sides twice: ``'max'`` and ``'average'`` pools, or ``'stride'``, which takes every other
        position of the convolution, without pooling.

    Raises:
      UsageError: ``pool`` is unknown.
    """
    check_option("small_cnn", "pool", pool, POOLS)
    rank = len(input_shape) - 1
    conv = partial(
        nn.Conv,
        kernel_size=(3,) * rank,
        padding="SAME",
        use_bias=False,
        kernel_init=he_normal(),
        dtype=dtype,
        rngs=rngs,
    )
    layers: dict[str, Callable[..., Any]] = {}
    channels = input_shape[-1]
    for place, published in enumerate((32, 64, 64), start=1):
        features = scaled(published, width)
        layers[f"conv{place}"] = conv(channels, features)
        if place < 3:
            layers[f"pool{place}"] = POOLS[pool](rank)
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


VARIANTS = {
    "small_cnn": Variant(small_cnn, (28, 28, 1), 10),
    "small_cnn_1d": Variant(small_cnn, (40, 1), 10),
    "small_cnn_3d": Variant(small_cnn, (28, 28, 28, 1), 10),
}
