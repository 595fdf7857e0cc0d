"""Fully convolutional networks from VGG's net D: scores of a coarse map, enlarged to those of every pixel.

Long, Shelhamer & Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015. The offsets of cuts are
those of the paper's published networks: 19 (32s), 5 and 27 (16s), 5, 9 and 31 (8s).
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn.initializers import Initializer, glorot_uniform, zeros
from jaxtyping import Array, DTypeLike, Shaped

from cnn_jax import nn, ops
from cnn_jax.models.variant import Variant, scaled
from cnn_jax.models.vgg import TABLE, rows
from cnn_jax.nn.skips import Meeting, cut
from cnn_jax.ops.arguments import AnyArray, Number

_GLOROT = glorot_uniform()
_CUTS = {32: (19,), 16: (5, 27), 8: (5, 9, 31)}  # where the part of each map that is kept begins


def fcn(
    stride: int,
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    dropout_rate: Number = 0.5,
    kernel_init: Initializer = _GLOROT,
) -> nn.SkipSequence:
    """VGG's net D with convolutions in place of its linear layers, and an output that is as large as the input.

    The first convolution pads by 100, so that images of any size can be an input. Scores of the last map, and for a
    stride of 16 or 8 those of ``pool4`` and ``pool3``, are enlarged by transposed convolutions, whose kernels start as
    bilinear interpolation, and added. The layers up to ``fc7`` have the names of ``vgg_d``'s, and
    ``config.model.weights`` may name the weights of a ``vgg_d`` for images of 224x224, whose linear layers become
    convolutions.

    Args:
      stride: Of the finest map whose scores are used: 32, 16 or 8.
      num_classes: The number of outputs for each pixel.
      input_shape: The shape of one input, (*space, channels).
      width: Multiplies the numbers of channels and the 4,096 units of FC6 and FC7.
      dtype: The type to compute in.
      rngs: Draws the parameters. The layers of scores start at zero.
      dropout_rate: The probability of dropping a unit of FC6 and FC7.
      kernel_init: The initialiser of the kernels of VGG's layers; the paper starts from a trained VGG.
    """
    rank, channels = len(input_shape) - 1, input_shape[-1]
    options: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
    layers: dict[str, Any] = {}
    skips = {}
    for name, row in rows(TABLE["vgg_d"]).items():
        features = scaled(row.channels, width)
        padding = 100 if name == "conv1_1" else 1
        layers[name] = nn.Conv(channels, features, (3,) * rank, padding=padding, kernel_init=kernel_init, **options)
        layers[f"{name}_relu"] = ops.relu
        if row.then:
            layers[f"pool{name[4]}"] = nn.MaxPool((2,) * rank, rounding="ceil")
        channels = features
    pooled = {4: scaled(512, width), 3: scaled(256, width)}
    for name, size in (("fc6", 7), ("fc7", 1)):
        features = scaled(4096, width)
        layers[name] = nn.Conv(channels, features, (size,) * rank, padding="VALID", kernel_init=kernel_init, **options)
        layers[f"{name}_relu"] = ops.relu
        layers[f"{name}_dropout"] = nn.Dropout(dropout_rate)
        channels = features

    def score(name: str, before: int) -> None:
        layers[name] = nn.Conv(before, num_classes, (1,) * rank, kernel_init=zeros, **options)

    def enlarge(name: str, factor: int) -> None:
        window = (2 * factor,) * rank
        strides: dict[str, Any] = {"strides": (factor,) * rank, "padding": "VALID"}
        layers[name] = nn.ConvTranspose(
            num_classes, num_classes, window, use_bias=False, kernel_init=bilinear, **strides, **options
        )

    score("score", channels)
    *fused, last = _CUTS[stride]
    for pool, offset in zip((4, 3), fused, strict=False):
        enlarge(f"upscore{pool}", 2)
        layers[f"fuse{pool}"] = AddScores(pooled[pool], num_classes, rank, offset, **options)
        skips[f"fuse{pool}"] = f"pool{pool}"
    enlarge("upscore", stride)
    layers["cut"] = nn.CutTo(last)
    return nn.SkipSequence(layers, {**skips, "cut": "input"})


class AddScores(Meeting):
    """The sum of scores and those of an earlier map, which a 1x1 convolution computes.

    Args:
      in_features: The number of channels of the earlier map.
      num_classes: The number of scores.
      rank: The number of spatial axes.
      offset: Where the part of the earlier map that is kept begins.
      dtype: The type to compute in.
      rngs: Draws the parameters, which start at zero.
    """

    def __init__(
        self, in_features: int, num_classes: int, rank: int, offset: int, *, dtype: DTypeLike | None, rngs: nnx.Rngs
    ) -> None:
        super().__init__(offset)
        self.score = nn.Conv(in_features, num_classes, (1,) * rank, kernel_init=zeros, dtype=dtype, rngs=rngs)

    def __call__(self, inputs: Shaped[AnyArray, "..."], skip: Shaped[AnyArray, "..."]) -> Shaped[Array, "..."]:
        """Adds the scores of the part of an earlier map to ``(batch, *space, classes)``."""
        return jnp.asarray(inputs) + self.score(cut(skip, inputs.shape[1:-1], self.offset))


def bilinear(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
    """A kernel ``(*window, classes, classes)`` of a transposed convolution that interpolates each channel linearly.

    >>> import jax
    >>> bilinear(jax.random.key(0), (4, 1, 1)).ravel().tolist()
    [0.25, 0.75, 0.75, 0.25]
    """
    *window, inputs, outputs = shape
    kernel = np.ones((1,) * len(window))
    for axis, size in enumerate(window):
        factor = (size + 1) // 2
        centre = factor - 1 if size % 2 else factor - 0.5
        line = 1 - np.abs(np.arange(size) - centre) / factor
        kernel = kernel * line.reshape([size if other == axis else 1 for other in range(len(window))])
    return jnp.asarray(kernel[..., None, None] * np.eye(inputs, outputs), dtype)


VARIANTS = {
    f"fcn_{stride}s": Variant(partial(fcn, stride), (500, 500, 3), 21, any_rank=True, trunk="vgg_d") for stride in _CUTS
}
