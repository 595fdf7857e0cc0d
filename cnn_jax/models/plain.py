"""The plain kind of network, of which AlexNet, ZFNet and VGG are tables: convolutions with pools, then FC6 to FC8."""

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

BiasInit = Callable[[str, int], Initializer]  # from the name of a layer and its fan-in


@dataclasses.dataclass(frozen=True)
class ConvRow:
    """A convolution in a table of layers; a rectifier follows it.

    Attributes:
      channels: the number of output channels, before scaling.
      window: the size of the window, in both directions.
      strides: in both directions.
      padding: zeros on every side.
      groups: of channels that do not see each other.
      then: what follows the rectifier, in order: ``norm``, ``pool``, both or nothing.
    """

    channels: int
    window: int
    strides: int = 1
    padding: int = 0
    groups: int = 1
    then: str = ""


overlapping_pool = partial(nn.MaxPool, (3, 3), strides=2)
"""AlexNet's."""


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
    """Builds the network of a table. What is not in the table is an option of the network, by keyword.

    A layer ``conv1_2`` is followed by ``conv1_2_relu``, and the norm and pool after it are ``norm1`` and ``pool1``;
    ``fc6`` and ``fc7`` by ``fc6_relu`` and ``fc7_relu``.

    Args:
      table: the convolutions by name.
      num_classes: the number of outputs, of ``fc8``.
      input_shape: (height, width, channels).
      width: scales all channels and the 4,096 units of FC6 and FC7.
      dtype: the type to compute in.
      rngs: draws the parameters.
      pool: makes what ``pool`` stands for in the table.
      norm: makes what ``norm`` stands for; by default AlexNet's, over 5 channels.
      batch_norm: whether to normalise between a convolution and its rectifier.
      adaptive_pool: the sizes to which an average pool brings the last maps, as torchvision does, so that the
        parameters' shapes do not depend on the input's; by default there is none.
      dropout_rate: the probability of dropping a unit of FC6 and FC7.
      dropout_first: whether to drop the inputs of these layers and not their outputs.
      kernel_init: draws all kernels.
      bias_init: gives the initialiser of a layer's biases.
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
