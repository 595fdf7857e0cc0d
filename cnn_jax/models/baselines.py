"""Baseline networks without convolutions: logistic regression and multilayer perceptrons."""

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
    """One linear layer from pixels to classes: 7,850 parameters for 28x28 inputs and ten classes.

    All parameters start at zero. That is safe because there are no hidden units whose symmetry must be broken.
    """
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
    """A multilayer perceptron; by default the 784-300-100-10 network of LeCun et al., 1998.

    Kernels are drawn with a standard deviation of 1 / sqrt(fan-in) (LeCun, Bottou, Orr & Müller, "Efficient BackProp",
    1998).

    Args:
      num_classes: The number of outputs.
      input_shape: The shape of one input, (height, width, channels).
      width: Multiplies the number of units of each hidden layer.
      dtype: The type to compute in.
      rngs: Draws the parameters.
      hidden_sizes: The number of units of each hidden layer, before scaling.
      activation: The activation of the hidden layers, a key of :data:`ACTIVATIONS`.

    Raises:
      UsageError: The activation is unknown, or ``hidden_sizes`` is empty or has a size below 1.
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


# With two hidden units, each image is represented by a point in the plane.
VARIANTS = {
    "logistic_regression": Variant(logistic_regression, (28, 28, 1), 10),
    "mlp": Variant(mlp, (28, 28, 1), 10),
    "mlp_two_neurons": Variant(partial(mlp, hidden_sizes=(2,)), (28, 28, 1), 10),
}
