"""The residual network that makes images from images in CycleGAN. Of any number of axes.

Johnson, Alahi & Fei-Fei, "Perceptual losses for real-time style transfer and super-resolution", ECCV 2016; with
instance normalisation in Zhu, Park, Isola & Efros, "Unpaired image-to-image translation using cycle-consistent
adversarial networks", ICCV 2017, appendix.
"""

from functools import partial
from typing import Any

from flax import nnx
from jax.nn.initializers import normal
from jaxtyping import DTypeLike

from cnn_jax import nn, ops
from cnn_jax.errors import UsageError
from cnn_jax.models.variant import Variant, scaled


def resnet_generator(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    blocks: int = 9,
    downsamplings: int = 2,
) -> nn.Sequence:
    """Convolutions down to a quarter of the size, residual blocks, and transposed convolutions back.

    Each convolution but the last is followed by instance normalisation, and each but the second of a block by ReLU. The
    output has no activation function.

    Args:
      num_classes: The number of channels of the output, as a rule those of the input.
      input_shape: The shape of one input, (*space, channels); sizes are multiples of 4.
      width: Multiplies the numbers of channels, 64 to 256.
      dtype: The type to compute in.
      rngs: Draws the parameters: normal, with a standard deviation of 0.02, as in the paper.
      blocks: The number of residual blocks: 9 in the paper for images of 256x256, 6 for 128x128.
      downsamplings: The number of convolutions with stride 2, and of transposed ones.

    Raises:
      UsageError: The sizes of the input do not fit, or there are no blocks.
    """
    if blocks < 1 or downsamplings < 0:
        raise UsageError(f"blocks={blocks} must be at least 1, and downsamplings={downsamplings} at least 0")
    multiple = 2**downsamplings
    for size in input_shape[:-1]:
        if size % multiple or size < 2 * multiple:
            below = max(2 * multiple, size // multiple * multiple)
            raise UsageError(
                f"an input of this network is a multiple of {multiple} along each axis and at least {2 * multiple}, "
                f"not {size}; use {below} or {below + multiple}"
            )
    rank = len(input_shape) - 1
    conv = partial(nn.Conv, kernel_init=normal(0.02), dtype=dtype, rngs=rngs)
    up = partial(nn.ConvTranspose, strides=2, kernel_init=normal(0.02), dtype=dtype, rngs=rngs)
    around, three = partial(conv, padding="REFLECT"), (3,) * rank
    layers: dict[str, Any] = {}

    def add(name: str, layer: Any) -> None:
        layers.update({name: layer, f"{name}_norm": nn.InstanceNorm(), f"{name}_relu": ops.relu})

    sizes = [scaled(64 * 2**stage, width) for stage in range(downsamplings + 1)]
    add("conv1", around(input_shape[-1], sizes[0], (7,) * rank))
    for stage in range(1, downsamplings + 1):
        add(f"down{stage}", conv(sizes[stage - 1], sizes[stage], three, strides=2, padding=1))
    for number in range(1, blocks + 1):
        first, second = (around(sizes[-1], sizes[-1], three) for _ in range(2))
        branch = {"conv1": first, "norm1": nn.InstanceNorm(), "relu": ops.relu, "conv2": second}
        layers[f"block{number}"] = nn.Residual({**branch, "norm2": nn.InstanceNorm()})
    for stage in range(downsamplings, 0, -1):
        add(f"up{stage}", up(sizes[stage], sizes[stage - 1], three))
    return nn.Sequence({**layers, "output": around(sizes[0], num_classes, (7,) * rank)})


VARIANTS = {"resnet_generator": Variant(resnet_generator, (256, 256, 3), 3, any_rank=True)}
