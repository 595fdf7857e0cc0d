"""LeNet-5 in the form that lectures and tutorials give it today.

LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998,
simplified as usual: full connections from S2 to C3, plain averages for subsampling, a linear output for the softmax.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import DTypeLike

from cnn_jax import geometry, nn
from cnn_jax.models.variant import Variant, scaled


def lenet_5_modern(
    *, num_classes: int, input_shape: tuple[int, ...], width: float, dtype: DTypeLike | None, rngs: nnx.Rngs
) -> nn.Sequence:
    """LeNet-5 with tanh and average pooling: 61,706 parameters for 32x32x1 inputs and 10 classes.

    Initialised with LeCun's own rule, a standard deviation of one over the root of the fan-in, which keeps tanh out of
    saturation (LeCun, Bottou, Orr & Müller, "Efficient BackProp", 1998).
    """
    conv = partial(nn.Conv, kernel_size=(5, 5), padding="VALID", dtype=dtype, rngs=rngs)
    linear = partial(nn.Linear, dtype=dtype, rngs=rngs)

    c1, c3, c5, f6 = (scaled(channels, width) for channels in (6, 16, 120, 84))
    features: dict[str, Callable[..., Any]] = {
        "c1": conv(input_shape[-1], c1),
        "c1_tanh": jnp.tanh,
        "s2": nn.AvgPool((2, 2), strides=(2, 2)),
        "c3": conv(c1, c3),
        "c3_tanh": jnp.tanh,
        "s4": nn.AvgPool((2, 2), strides=(2, 2)),
    }
    shape = geometry.output_shape(features, input_shape)
    return nn.Sequence(
        {
            **features,
            "flatten": nn.Flatten(shape),
            "c5": linear(math.prod(shape), c5),
            "c5_tanh": jnp.tanh,
            "f6": linear(c5, f6),
            "f6_tanh": jnp.tanh,
            "output": linear(f6, num_classes),
        }
    )


VARIANTS = {"lenet_5_modern": Variant(lenet_5_modern, (32, 32, 1), 10)}
