"""Networks without convolutions, to compare with: logistic regression and multilayer perceptrons."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import lecun_normal, zeros
from jaxtyping import DTypeLike

from cnn_jax import nn, ops
from cnn_jax.errors import UsageError, nearest
from cnn_jax.models.variant import Variant, scaled

ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": jax.nn.relu,
    "scaled_tanh": ops.scaled_tanh,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
}


def logistic_regression(
    *, num_classes: int, input_shape: tuple[int, ...], width: float, dtype: DTypeLike | None, rngs: nnx.Rngs
) -> nn.Sequence:
    """Pixels to classes: 7,850 parameters for 28x28 and ten classes. They start at zero; there is nothing to break."""
    pixels = math.prod(input_shape)
    output = nn.Linear(pixels, num_classes, kernel_init=zeros, dtype=dtype, rngs=rngs)
    return nn.Sequence({"flatten": nn.Flatten(input_shape), "output": output})


def mlp(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    hidden_sizes: Sequence[int] = (300, 100),
    activation: str = "tanh",
) -> nn.Sequence:
    """Full connections through hidden layers; by default the 784-300-100-10 network of LeCun et al., 1998.

    Options:
      hidden_sizes: the number of units of each hidden layer, before scaling.
      activation: a key of :data:`ACTIVATIONS`.

    Kernels are drawn with a standard deviation of one over the root of the fan-in (LeCun, Bottou, Orr & Müller,
    "Efficient BackProp", 1998).
    """
    if activation not in ACTIVATIONS:
        raise UsageError(f"activation={activation!r} is unknown; {nearest(activation, ACTIVATIONS)}")
    if not hidden_sizes or min(hidden_sizes) < 1:
        raise UsageError(f"hidden_sizes={tuple(hidden_sizes)} must name at least one layer, each of at least 1 unit")
    layers: dict[str, Any] = {"flatten": nn.Flatten(input_shape)}
    fan_in = math.prod(input_shape)
    for index, size in enumerate(hidden_sizes, start=1):
        units = scaled(size, width)
        layers[f"fc{index}"] = nn.Linear(fan_in, units, kernel_init=lecun_normal(), dtype=dtype, rngs=rngs)
        layers[f"fc{index}_{activation}"] = ACTIVATIONS[activation]
        fan_in = units
    layers["output"] = nn.Linear(fan_in, num_classes, kernel_init=lecun_normal(), dtype=dtype, rngs=rngs)
    return nn.Sequence(layers)


# Two hidden units make of every image a point in a plane.
VARIANTS = {
    "logistic_regression": Variant(logistic_regression, (28, 28, 1), 10),
    "mlp": Variant(mlp, (28, 28, 1), 10),
    "mlp_two_neurons": Variant(partial(mlp, hidden_sizes=(2,)), (28, 28, 1), 10),
}
