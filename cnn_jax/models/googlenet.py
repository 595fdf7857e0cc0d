"""GoogLeNet: inception blocks, which apply convolutions of several window sizes to the same input in parallel.

Szegedy et al., "Going deeper with convolutions", CVPR 2015.

Layers have torchvision's names: ``conv1``, ``maxpool1``, ``conv2`` (the paper's reduction), ``conv3``, ``maxpool2``,
``inception3a``, ..., ``inception5b``, ``avgpool``, ``dropout``, ``fc``. A block has the branches ``1x1``, ``3x3``,
``5x5`` and ``pool``. Its activations are called ``inception3a/1x1/conv``, ``inception3a/3x3/reduce/conv``,
``inception3a/3x3/conv/conv``, ``inception3a/pool/project/conv``, ..., and ``inception3a/concatenate``.

The auxiliary classifiers are ``aux1`` and ``aux2``. They run in training only. Their outputs are among the activations
of ``model(x, train=True, rngs=key, return_activations=True)``, under the names in :data:`AUXILIARY_LOGITS`. The paper
adds their losses with weight 0.3.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from flax import nnx
from jax.nn.initializers import Initializer, constant, truncated_normal, variance_scaling, zeros
from jaxtyping import DTypeLike

from cnn_jax import geometry, nn, ops
from cnn_jax.errors import UsageError
from cnn_jax.models.conv_unit import conv_unit
from cnn_jax.models.variant import Variant, scaled

AUXILIARY_LOGITS = ("aux1/fc2", "aux2/fc2")

# The paper's table 1, the channels of each block: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection.
_BLOCKS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
_POOLS = {"3a": "maxpool2", "4a": "maxpool3", "5a": "maxpool4"}  # the pool before a block
_HEADS = {"4a": "aux1", "4d": "aux2"}  # the auxiliary classifier after a block


_caffe_xavier, _caffe_bias = variance_scaling(1.0, "fan_in", "uniform"), constant(0.2)


@dataclasses.dataclass(frozen=True)
class Design:
    """The differences between the variants of GoogLeNet.

    Attributes:
      large: The window size of the branch called ``5x5``.
      reduced: Whether 1x1 convolutions reduce the channels before the larger windows and after the pool.
      batch_norm: Whether every convolution has batch normalisation. If so, there are no biases and no local response
        normalisation.
      last_pool: The window size of ``maxpool4``.
      adaptive_heads: Whether auxiliary heads pool to a size of 4x4 for any input size. Otherwise they average over 5x5
        windows with stride 3.
      dropout: The dropout rate before the output. In the auxiliary heads it is 0.7.
      kernel_init: The initialiser of kernels.
      bias_init: The initialiser of biases.
    """

    large: int = 5
    reduced: bool = True
    batch_norm: bool = False
    last_pool: int = 3
    adaptive_heads: bool = False
    dropout: float = 0.4
    kernel_init: Initializer = _caffe_xavier
    bias_init: Initializer = _caffe_bias


def googlenet(
    design: Design,
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    auxiliary_heads: bool = True,
) -> nn.Sequence:
    """GoogLeNet and its variants.

    Details that the paper does not specify follow Caffe's version. Kernels are drawn uniformly with variance
    1 / fan-in. Biases start at 0.2, except those of the output layers, which start at 0. Local response normalisation
    is over 5 channels with alpha 1e-4 / 5, beta 0.75 and k 1. Pools include partial windows at the end. The torchvision
    variant draws kernels from a normal distribution of standard deviation 0.01, truncated at two standard deviations.

    Args:
      design: The variant.
      num_classes: The number of outputs, also of the auxiliary heads.
      input_shape: The shape of one input, (height, width, channels).
      width: Multiplies all numbers of channels.
      dtype: The type to compute in.
      rngs: Draws the parameters.
      auxiliary_heads: Whether the network has the two auxiliary classifiers.

    Raises:
      UsageError: The input is too small for the auxiliary heads.
    """
    unit = partial(
        conv_unit,
        batch_norm=design.batch_norm,
        kernel_init=design.kernel_init,
        bias_init=design.bias_init,
        dtype=dtype,
        rngs=rngs,
    )
    linear = partial(nn.Linear, kernel_init=design.kernel_init, dtype=dtype, rngs=rngs)
    pool = partial(nn.MaxPool, strides=2, rounding="ceil")
    first, channels = scaled(64, width), scaled(192, width)
    lrn = partial(nn.LocalResponseNorm, 5, alpha=1e-4, beta=0.75, k=1.0, convention="torch")
    layers: dict[str, Callable[..., Any]] = {
        "conv1": unit(input_shape[-1], first, 7, strides=2),
        "maxpool1": pool((3, 3)),
        **({} if design.batch_norm else {"norm1": lrn()}),
        "conv2": unit(first, first, 1),
        "conv3": unit(first, channels, 3),
        **({} if design.batch_norm else {"norm2": lrn()}),
    }
    for name, row in _BLOCKS.items():
        if name in _POOLS:
            size = design.last_pool if name == "5a" else 3
            layers[_POOLS[name]] = pool((size, size))
        numbers = tuple(scaled(number, width) for number in row)
        layers[f"inception{name}"] = inception(channels, numbers, large=design.large, reduced=design.reduced, unit=unit)
        channels = numbers[0] + numbers[2] + numbers[4] + (numbers[5] if design.reduced else channels)
        if auxiliary_heads and name in _HEADS:
            shape = geometry.output_shape(layers, input_shape)
            layers[_HEADS[name]] = _head(shape, design, num_classes, width, unit=unit, linear=linear)
    return nn.Sequence(
        {
            **layers,
            "avgpool": ops.global_avg_pool,
            "dropout": nn.Dropout(design.dropout),
            "fc": linear(channels, num_classes),
        }
    )


def inception(
    channels: int,
    numbers: tuple[int, ...],
    *,
    large: int = 5,
    reduced: bool = True,
    unit: Callable[..., nn.Sequence],
) -> nn.Parallel:
    """An inception block.

    Args:
      channels: The number of input channels.
      numbers: The numbers of channels of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 and pool projection.
      large: The window size of the branch called ``5x5``.
      reduced: Whether the block has 1x1 reductions and a pool projection. Without them it is the paper's "naïve"
        block, whose pool passes on all channels.
      unit: Creates a convolution with its activation from the number of input channels, the number of output channels
        and the window size.
    """
    one, three_reduce, three, five_reduce, five, project = numbers
    pool = nn.MaxPool((3, 3), strides=1, padding=1)
    if not reduced:
        return nn.Parallel(
            {
                "1x1": unit(channels, one, 1),
                "3x3": unit(channels, three, 3),
                "5x5": unit(channels, five, large),
                "pool": pool,
            }
        )
    return nn.Parallel(
        {
            "1x1": unit(channels, one, 1),
            "3x3": nn.Sequence({"reduce": unit(channels, three_reduce, 1), "conv": unit(three_reduce, three, 3)}),
            "5x5": nn.Sequence({"reduce": unit(channels, five_reduce, 1), "conv": unit(five_reduce, five, large)}),
            "pool": nn.Sequence({"maxpool": pool, "project": unit(channels, project, 1)}),
        }
    )


def _head(
    shape: tuple[int, ...],
    design: Design,
    num_classes: int,
    width: float,
    *,
    unit: Callable[..., nn.Sequence],
    linear: Callable[..., nn.Linear],
) -> nn.Auxiliary:
    """An auxiliary classifier for feature maps of shape (height, width, channels)."""
    pool = nn.AdaptiveAvgPool((4, 4)) if design.adaptive_heads else nn.AvgPool((5, 5), strides=3)
    features: dict[str, Callable[..., Any]] = {"avgpool": pool, "conv": unit(shape[-1], scaled(128, width), 1)}
    try:
        maps = geometry.output_shape(features, shape)
    except UsageError as error:
        raise UsageError(f"auxiliary head: {error}; or leave the heads out with auxiliary_heads=False") from error
    hidden = scaled(1024, width)
    return nn.Auxiliary(
        {
            **features,
            "flatten": nn.Flatten(maps),
            "fc1": linear(maps[0] * maps[1] * maps[2], hidden, bias_init=design.bias_init),
            "relu": ops.relu,
            "dropout": nn.Dropout(0.7),
            "fc2": linear(hidden, num_classes),
        }
    )


_TORCHVISION = Design(
    large=3,
    batch_norm=True,
    last_pool=2,
    adaptive_heads=True,
    dropout=0.2,
    kernel_init=truncated_normal(0.01),
    bias_init=zeros,
)

VARIANTS = {
    name: Variant(partial(googlenet, design), (224, 224, 3), 1000)
    for name, design in {
        "googlenet": Design(),
        "googlenet_torchvision": _TORCHVISION,
        "inception_naive": Design(reduced=False),
    }.items()
}
