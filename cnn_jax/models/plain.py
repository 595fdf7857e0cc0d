"""The builder of AlexNet, ZFNet and VGG, which are tables of convolutions and pools followed by FC6 to FC8."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
from flax import nnx
from jax.nn.initializers import Initializer, zeros
from jaxtyping import DTypeLike

from cnn_jax import geometry, nn
from cnn_jax.models.variant import scaled
from cnn_jax.ops.arguments import Number

BiasInit = Callable[[str, int], Initializer]  # from a layer's name and fan-in to the initialiser of its biases


@dataclasses.dataclass(frozen=True)
class ConvRow:
    """A convolution, followed by a ReLU, in a table of layers.

    Attributes:
      channels: The number of output channels, before scaling.
      window: The height and width of the window.
      strides: The stride in both directions.
      padding: The number of zeros on every side.
      groups: The number of feature groups.
      then: The layers after the ReLU, in order: ``norm``, ``pool``, both separated by a blank, or none.
    """

    channels: int
    window: int
    strides: int = 1
    padding: int = 0
    groups: int = 1
    then: str = ""


overlapping_pool = partial(nn.MaxPool, (3, 3), strides=2)
"""AlexNet's pool, whose windows overlap."""


def zero_bias(name: str, fan_in: int) -> Initializer:
    """Biases of zero in every layer."""
    return zeros


def plain_network(
    table: Mapping[str, ConvRow],
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    pool: Callable[[], Any] = overlapping_pool,
    norm: Callable[[], Any] = nn.LocalResponseNorm,
    batch_norm: bool = False,
    adaptive_pool: tuple[int, int] | None = None,
    dropout_rate: Number = 0.5,
    dropout_first: bool = False,
    kernel_init: Initializer,
    bias_init: BiasInit = zero_bias,
) -> nn.Sequence:
    """Builds the network of a table.

    The keywords from ``pool`` on are the options of such a network. A layer ``conv1_2`` is followed by
    ``conv1_2_relu``, and the normalisation and pool after it are ``norm1`` and ``pool1``. ``fc6`` and ``fc7`` are
    followed by ``fc6_relu`` and ``fc7_relu``.

    Args:
      table: The convolutions by name.
      num_classes: The number of outputs of ``fc8``.
      input_shape: The shape of one input, (height, width, channels).
      width: Multiplies all numbers of channels and the 4,096 units of FC6 and FC7.
      dtype: The type to compute in.
      rngs: Draws the parameters.
      pool: Creates the layer for ``pool`` in the table.
      norm: Creates the layer for ``norm`` in the table. The default is AlexNet's local response normalisation over 5
        channels.
      batch_norm: Whether there is batch normalisation between each convolution and its ReLU.
      adaptive_pool: The output size, (height, width), of an adaptive average pool after the convolutions. With it the
        shapes of the parameters do not depend on the input size, as in torchvision. By default there is no such pool.
      dropout_rate: The probability of dropping a unit of FC6 and FC7.
      dropout_first: Whether dropout is applied to the inputs of FC6 and FC7 instead of their outputs.
      kernel_init: The initialiser of all kernels.
      bias_init: Returns the initialiser of a layer's biases, given the layer's name and fan-in.
    """
    multiple = max(row.groups for row in table.values())
    layers: dict[str, Any] = {}
    channels = input_shape[-1]
    for name, row in table.items():
        fan_in = row.window**2 * channels // row.groups
        features = scaled(row.channels, width, multiple_of=multiple)
        layers[name] = nn.Conv(
            channels,
            features,
            (row.window, row.window),
            strides=row.strides,
            padding=row.padding,
            feature_group_count=row.groups,
            dtype=dtype,
            kernel_init=kernel_init,
            bias_init=bias_init(name, fan_in),
            rngs=rngs,
        )
        if batch_norm:
            layers[f"{name}_bn"] = nn.BatchNorm(features, momentum=0.9, dtype=dtype, rngs=rngs)
        layers[f"{name}_relu"] = jax.nn.relu
        stage = name.removeprefix("conv").split("_")[0]
        for kind in row.then.split():
            layers[f"{kind}{stage}"] = norm() if kind == "norm" else pool()
        channels = features
    if adaptive_pool:
        layers["avgpool"] = nn.AdaptiveAvgPool(adaptive_pool)
    shape = geometry.output_shape(layers, input_shape)
    layers["flatten"] = nn.Flatten(shape)
    fan_in = math.prod(shape)
    for name, units in (("fc6", scaled(4096, width)), ("fc7", scaled(4096, width)), ("fc8", num_classes)):
        linear = nn.Linear(
            fan_in, units, dtype=dtype, kernel_init=kernel_init, bias_init=bias_init(name, fan_in), rngs=rngs
        )
        fan_in = units
        if name == "fc8":
            layers[name] = linear
            continue
        dropout = {f"{name}_dropout": nn.Dropout(dropout_rate)}
        rectified = {name: linear, f"{name}_relu": jax.nn.relu}
        layers |= dropout | rectified if dropout_first else rectified | dropout
    return nn.Sequence(layers)
