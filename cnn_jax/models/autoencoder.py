"""A convolutional autoencoder, and its encoder under a classifier.

The layers of both encoders have the same names, so that a classifier can start from a trained autoencoder.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import he_normal, lecun_normal
from jaxtyping import Array, DTypeLike, Shaped

from cnn_jax import nn
from cnn_jax.errors import UsageError
from cnn_jax.models.variant import Variant, scaled
from cnn_jax.ops.arguments import AnyArray, Number

LATENT = "latent"
"""The name of the layer whose output is the code of an image."""


def conv_autoencoder(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    latent_size: int = 2,
    channels: Sequence[int] = (32, 64),
    noise: Number = 0.0,
) -> nn.Sequence:
    """Strided convolutions down to a few numbers, and transposed convolutions back to the image.

    Each convolution halves the sides, and each transposed convolution doubles them.

    Args:
      num_classes: The number of channels of the output, as a rule those of the input.
      input_shape: The shape of one input, (height, width, channels); the sides must be halved evenly.
      width: Multiplies the number of channels.
      dtype: The type to compute in.
      rngs: Draws the parameters.
      latent_size: How many numbers an image becomes.
      channels: Of each convolution of the encoder, before scaling; the decoder has them in reverse order.
      noise: The standard deviation of the Gaussian noise that is added to the input in training; the input has a
        standard deviation of 1. With noise it is a denoising autoencoder (Vincent et al., 2008).

    Raises:
      UsageError: The sides cannot be halved, or a size is below 1.
    """
    encoder, inner = _encoder(input_shape, width, dtype, rngs, latent_size, channels)
    deconv = partial(nn.ConvTranspose, kernel_size=(4, 4), strides=2, kernel_init=he_normal(), dtype=dtype, rngs=rngs)
    decoder: dict[str, Callable[..., Any]] = {
        "expand": nn.Linear(latent_size, math.prod(inner), kernel_init=he_normal(), dtype=dtype, rngs=rngs),
        "expand_relu": jax.nn.relu,
        "unflatten": partial(unflatten, shape=inner),
    }
    sizes = [scaled(count, width) for count in channels]
    for number in range(len(sizes) - 1, 0, -1):
        decoder[f"deconv{number + 1}"] = deconv(sizes[number], sizes[number - 1])
        decoder[f"deconv{number + 1}_relu"] = jax.nn.relu
    decoder["output"] = deconv(sizes[0], num_classes)
    return nn.Sequence({"noise": nn.GaussianNoise(noise), **encoder, **decoder})


def conv_encoder(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    latent_size: int = 32,
    channels: Sequence[int] = (32, 64),
) -> nn.Sequence:
    """The encoder of :func:`conv_autoencoder` under one linear layer: a classifier.

    Args:
      num_classes: The number of outputs.
      input_shape: The shape of one input, (height, width, channels).
      width: Multiplies the number of channels.
      dtype: The type to compute in.
      rngs: Draws the parameters.
      latent_size: How many numbers an image becomes.
      channels: Of each convolution, before scaling.

    Raises:
      UsageError: As for :func:`conv_autoencoder`.
    """
    encoder, _ = _encoder(input_shape, width, dtype, rngs, latent_size, channels)
    output = nn.Linear(latent_size, num_classes, kernel_init=lecun_normal(), dtype=dtype, rngs=rngs)
    return nn.Sequence({**encoder, "latent_relu": jax.nn.relu, "output": output})


def _encoder(
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    latent_size: int,
    channels: Sequence[int],
) -> tuple[dict[str, Callable[..., Any]], tuple[int, ...]]:
    """The layers from the image to the code, and the shape before they are flattened."""
    factor = 2 ** len(channels)
    if not channels or min(channels) < 1 or latent_size < 1:
        raise UsageError(
            f"channels={tuple(channels)} must name at least one layer, and latent_size={latent_size} be 1 or more"
        )
    if any(side % factor for side in input_shape[:-1]):
        raise UsageError(
            f"input_shape={input_shape}: an autoencoder with {len(channels)} convolutions halves the sides as often; "
            f"use sides that are multiples of {factor}, or fewer channels"
        )
    layers: dict[str, Callable[..., Any]] = {}
    features = input_shape[-1]
    for number, count in enumerate(channels, start=1):
        conv = partial(nn.Conv, strides=2, padding=1, kernel_init=he_normal(), dtype=dtype, rngs=rngs)
        layers[f"conv{number}"] = conv(features, scaled(count, width), (4, 4))
        layers[f"conv{number}_relu"] = jax.nn.relu
        features = scaled(count, width)
    inner = (*(side // factor for side in input_shape[:-1]), features)
    layers["flatten"] = nn.Flatten(inner)
    layers[LATENT] = nn.Linear(math.prod(inner), latent_size, kernel_init=lecun_normal(), dtype=dtype, rngs=rngs)
    return layers, inner


def unflatten(x: Shaped[AnyArray, "*batch values"], shape: tuple[int, ...]) -> Shaped[Array, "..."]:
    """The values of each example as rows, columns and channels.

    Args:
      x: ``(*batch, values)``.
      shape: Of one example.

    >>> unflatten(jnp.ones((8, 18)), (3, 3, 2)).shape
    (8, 3, 3, 2)
    """
    return jnp.asarray(x).reshape(*x.shape[:-1], *shape)


VARIANTS = {
    "conv_autoencoder": Variant(conv_autoencoder, (28, 28, 1), 1),
    "conv_encoder": Variant(conv_encoder, (28, 28, 1), 10),
}
