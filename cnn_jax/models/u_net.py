"""U-Net: an encoder and a decoder, with skip connections between maps of the same scale. Of any number of axes.

Ronneberger, Fischer & Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015, figure 1.
"""

from functools import partial
from typing import Any

from flax import nnx
from jax.nn.initializers import he_normal
from jaxtyping import DTypeLike

from cnn_jax import nn, ops
from cnn_jax.errors import UsageError
from cnn_jax.models.variant import Variant, scaled
from cnn_jax.ops.arguments import Number


def u_net(
    padding: str,
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    depth: int = 4,
    batch_norm: bool = False,
    dropout_rate: Number = 0.0,
) -> nn.SkipSequence:
    """The network of figure 1, whose output has a score of each class for every pixel.

    Without padding the output is smaller than the input: with a map of size b after the two convolutions at the bottom,
    the input has 16 b + 124 pixels along each axis and the output 16 b - 60, such as 572 and 388. So an input is 4 less
    than a multiple of 16, and at least 188. With padding the output is as large as the input, a multiple of 16.

    Args:
      padding: Of the 3x3 convolutions: ``'VALID'`` as in the paper, or ``'SAME'``.
      num_classes: The number of outputs for each pixel.
      input_shape: The shape of one input, (*space, channels).
      width: Multiplies the numbers of channels, 64 to 1,024.
      dtype: The type to compute in.
      rngs: Draws the parameters: He's normal rule, as in the paper.
      depth: The number of pools, 4 in the paper. Each doubles the number of channels.
      batch_norm: Whether there is batch normalisation between each 3x3 convolution and its ReLU, which is not in the
        paper.
      dropout_rate: The probability of dropping a unit at the end of the encoder.

    Raises:
      UsageError: The sizes of the input do not fit; the message has the nearest ones that do.
    """
    rank, channels = len(input_shape) - 1, input_shape[-1]
    _check_sizes(input_shape[:-1], depth, padding)
    kernel, double = (3,) * rank, (2,) * rank
    conv = partial(nn.Conv, kernel_init=he_normal(), dtype=dtype, rngs=rngs)
    layers: dict[str, Any] = {}
    skips = {}

    def convolve(stage: str, before: int, features: int) -> None:
        for number in (1, 2):
            name = f"{stage}_{number}"
            layers[name] = conv(before, features, kernel, padding=padding, use_bias=not batch_norm)
            if batch_norm:
                layers[f"{name}_bn"] = nn.BatchNorm(features, momentum=0.9, dtype=dtype, rngs=rngs)
            layers[f"{name}_relu"] = ops.relu
            before = features

    for stage in range(1, depth + 2):
        features = scaled(64 * 2 ** (stage - 1), width)
        convolve(f"conv{stage}", channels, features)
        channels = features
        if stage > depth - 1:
            layers[f"dropout{stage}"] = nn.Dropout(dropout_rate)
        if stage <= depth:
            skips[f"concatenate{stage}"] = next(reversed(layers))
            layers[f"pool{stage}"] = nn.MaxPool(double)
    for stage in range(depth, 0, -1):
        features = scaled(64 * 2 ** (stage - 1), width)
        layers[f"up{stage}"] = nn.ConvTranspose(
            channels, features, double, double, kernel_init=he_normal(), dtype=dtype, rngs=rngs
        )
        layers[f"concatenate{stage}"] = nn.Concatenate()
        convolve(f"up_conv{stage}", 2 * features, features)
        channels = features
    layers["output"] = conv(channels, num_classes, (1,) * rank)
    return nn.SkipSequence(layers, skips)


def _check_sizes(sizes: tuple[int, ...], depth: int, padding: str) -> None:
    """Rejects sizes of which a pool would leave out a row, or which are too small for an output."""
    if depth < 1:
        raise UsageError(f"depth={depth} must be at least 1")
    multiple, less, least = 2**depth, 0, 2**depth
    if padding == "VALID":
        bottom = 4 * (multiple - 1) // multiple + 1  # the smallest that the convolutions of the decoder leave some of
        less, least = 4, multiple * (bottom + 8) - 4
    for size in sizes:
        if size < least or (size + less) % multiple:
            below = size - (size + less) % multiple
            fitting = [str(fit) for fit in (below, below + multiple) if fit >= least] or [str(least)]
            rule = f"{less} less than a multiple of {multiple}" if less else f"a multiple of {multiple}"
            raise UsageError(
                f"an input of this network is {rule} along each axis and at least {least}, not {size}; use "
                + " or ".join(fitting)
            )


VARIANTS = {
    "u_net": Variant(partial(u_net, "VALID"), (572, 572, 1), 2, any_rank=True),
    "u_net_padded": Variant(partial(u_net, "SAME"), (512, 512, 1), 2, any_rank=True),
}
