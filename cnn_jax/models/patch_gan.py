"""PatchGAN: a discriminator that judges overlapping patches of an image. Of any number of axes.

Isola, Zhu, Zhou & Efros, "Image-to-image translation with conditional adversarial networks", CVPR 2017, appendix.
"""

from functools import partial
from typing import Any

import jax
from flax import nnx
from jax.nn.initializers import normal

from cnn_jax import nn
from cnn_jax.errors import UsageError
from cnn_jax.models.variant import scaled


def patch_gan(
    channels: int, *, rngs: nnx.Rngs, rank: int = 2, width: float = 1.0, layers: int = 3, instance_norm: bool = False
) -> nn.Sequence:
    """4x4 convolutions whose outputs are a score for each patch: above 0 for real, below for generated.

    Args:
      channels: Those of the input: of the image that is judged and of the one that it was made from.
      rngs: Draws the parameters: normal, with a standard deviation of 0.02, as in the paper.
      rank: The number of spatial axes.
      width: Multiplies the numbers of channels, 64 to 512.
      layers: The number of convolutions with stride 2: 3 for the patches of 70x70 of the paper, 1 for 16x16.
      instance_norm: Whether normalisation is that of each image, as in CycleGAN, instead of that of the batch.

    Raises:
      UsageError: ``layers`` is below 1.
    """
    if layers < 1:
        raise UsageError(f"layers={layers} of a PatchGAN must be at least 1")
    conv = partial(nn.Conv, kernel_size=(4,) * rank, padding=1, kernel_init=normal(0.02), rngs=rngs)
    leaky = partial(jax.nn.leaky_relu, negative_slope=0.2)
    found: dict[str, Any] = {}
    for number in range(1, layers + 2):
        features = scaled(64 * 2 ** min(number - 1, 3), width)
        strides = 2 if number <= layers else 1
        found[f"conv{number}"] = conv(channels, features, strides=strides, use_bias=instance_norm or number == 1)
        if number > 1:
            if instance_norm:
                found[f"norm{number}"] = nn.InstanceNorm()
            else:
                found[f"bn{number}"] = nn.BatchNorm(features, momentum=0.9, rngs=rngs)
        found[f"leaky{number}"] = leaky
        channels = features
    return nn.Sequence({**found, "output": conv(channels, 1)})
