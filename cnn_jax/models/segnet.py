"""SegNet: VGG's convolutions as an encoder, and a decoder that unpools with the positions of the encoder's maxima.

Badrinarayanan, Kendall & Cipolla, "SegNet: a deep convolutional encoder-decoder architecture for image segmentation",
IEEE PAMI 39, 2017, figure 2.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from flax import nnx
from jax.nn.initializers import he_normal
from jaxtyping import DTypeLike

from cnn_jax import nn, ops
from cnn_jax.errors import UsageError
from cnn_jax.models.variant import Variant, scaled

_MOST_CHANNELS = 512


def segnet(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    stages: Sequence[int] = (2, 2, 3, 3, 3),
) -> nn.SkipSequence:
    """An encoder of 13 convolutions with batch normalisation, and its mirror image, which ends with scores of pixels.

    The decoder has a max-unpooling for each max pool, which puts a value to the position where the pool found it, and
    zeros elsewhere. Layers of the decoder have the names of those of the encoder that they mirror, with ``_decoder``.

    Args:
      num_classes: The number of outputs for each pixel.
      input_shape: The shape of one input, (*space, channels), of any size of at least 32 along each axis.
      width: Multiplies the numbers of channels.
      dtype: The type to compute in.
      rngs: Draws the parameters: He's normal rule, as in the paper.
      stages: The number of convolutions before each pool. The numbers of channels are 64, 128, 256, 512, 512.

    Raises:
      UsageError: ``stages`` is empty or has a number below 1.
    """
    if not stages or min(stages) < 1:
        raise UsageError(f"stages={tuple(stages)} must be numbers of convolutions, each at least 1")
    rank, channels = len(input_shape) - 1, input_shape[-1]
    conv = partial(nn.Conv, kernel_size=(3,) * rank, padding="SAME", kernel_init=he_normal(), dtype=dtype, rngs=rngs)
    layers: dict[str, Any] = {}
    skips = {}
    plan: list[tuple[str, int, int]] = []  # of the encoder: name, channels before and after

    def unit(name: str, before: int, features: int) -> None:
        layers[name] = conv(before, features, use_bias=False)
        layers[f"{name}_bn"] = nn.BatchNorm(features, momentum=0.9, dtype=dtype, rngs=rngs)
        layers[f"{name}_relu"] = ops.relu

    for stage, count in enumerate(stages, start=1):
        features = scaled(min(_MOST_CHANNELS, 64 * 2 ** (stage - 1)), width)
        for number in range(1, count + 1):
            plan.append((f"conv{stage}_{number}", channels, features))
            unit(*plan[-1])
            channels = features
        layers[f"pool{stage}"] = nn.MaxPool((2,) * rank, return_indices=True)
    stage = len(stages) + 1
    for name, features, before in reversed(plan):
        own = int(name.removeprefix("conv").split("_")[0])
        if own < stage:
            stage = own
            layers[f"unpool{stage}"] = nn.MaxUnpool(strides=(2,) * rank)
            skips[f"unpool{stage}"] = f"pool{stage}"
        if name == "conv1_1":
            layers["output"] = conv(before, num_classes)
        else:
            unit(f"{name}_decoder", before, features)
    return nn.SkipSequence(layers, skips)


VARIANTS = {"segnet": Variant(segnet, (360, 480, 3), 11, any_rank=True)}
