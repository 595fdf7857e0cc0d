"""DCGAN: a generator that makes images from noise, and its discriminator; also both with words.

Radford, Metz & Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", ICLR 2016. With words, after Reed et al., "Generative adversarial text to image synthesis", ICML 2016: the
generator is given an encoding of the words beside its noise, and the discriminator beside its last feature maps.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import lecun_normal, normal
from jaxtyping import Array, DTypeLike, Shaped

from cnn_jax import nn
from cnn_jax.errors import UsageError
from cnn_jax.models.autoencoder import unflatten
from cnn_jax.models.text_cnn import text_cnn
from cnn_jax.models.variant import Variant, scaled
from cnn_jax.ops.arguments import AnyArray

SMALLEST = 4  # pixels of a side before the first transposed convolution
FIRST_CHANNELS = 64  # beside the image
TEXT_SIZE = 32  # numbers that encode a text


def dcgan_generator(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    image_size: Sequence[int] = (64, 64),
    kernel_size: int = 4,
    words: int = 0,
    vocabulary_size: int = 0,
) -> nn.Sequence:
    """A linear layer to small feature maps, and transposed convolutions that double their sides up to the image.

    All but the output have batch normalisation and ReLUs; the output is between -1 and 1. For images of 64x64 it has
    the 3,576,704 parameters of PyTorch's DCGAN example; ``width=2`` and ``kernel_size=5`` are the paper's.

    Args:
      num_classes: The number of channels of the images.
      input_shape: The shape of one input, (numbers,): noise, behind the numbers of words if there are any.
      width: Multiplies the numbers of channels: 64 before the output, and twice as many in each layer before.
      dtype: The type to compute in.
      rngs: Draws the parameters: kernels with a standard deviation of 0.02, as in the paper.
      image_size: (height, width). Each is 4 to 7 times a power of two, or a larger number of that power.
      kernel_size: The sides of the windows; a multiple of 2 touches every pixel equally often.
      words: How many of the numbers are words, encoded by :func:`~cnn_jax.models.text_cnn.text_cnn`; 0 for none.
      vocabulary_size: The number of known words, with that for padding.

    Raises:
      UsageError: The size is not possible, or there is no noise.
    """
    (numbers,) = input_shape
    noise = numbers - words
    if noise < 1 or words < 0:
        raise UsageError(f"words={words} leave {noise} of {numbers} inputs for noise; give at least one more")
    factor = 2 ** doublings(image_size)
    inner = tuple(side // factor for side in image_size)
    channels = [scaled(FIRST_CHANNELS * factor // 2 ** (number + 1), width) for number in range(doublings(image_size))]
    kernel_init = normal(0.02)
    layers: dict[str, Any] = {}
    if words:
        encoder = _encoder(words, vocabulary_size, dtype, rngs)
        words_branch = nn.Sequence({"take": partial(_slice, stop=words), "encoder": encoder})
        layers["inputs"] = nn.Parallel({"words": words_branch, "noise": partial(_slice, start=words)})
    project = partial(nn.Linear, use_bias=False, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
    layers["project"] = project(noise + (TEXT_SIZE if words else 0), math.prod(inner) * channels[0])
    layers["unflatten"] = partial(unflatten, shape=(*inner, channels[0]))
    layers |= {"project_bn": _norm(channels[0], dtype, rngs), "project_relu": jax.nn.relu}
    deconv = partial(
        nn.ConvTranspose,
        kernel_size=(kernel_size,) * 2,
        strides=2,
        use_bias=False,
        kernel_init=kernel_init,
        dtype=dtype,
        rngs=rngs,
    )
    for number, (before, after) in enumerate(itertools.pairwise(channels), start=1):
        layers[f"deconv{number}"] = deconv(before, after)
        layers |= {f"deconv{number}_bn": _norm(after, dtype, rngs), f"deconv{number}_relu": jax.nn.relu}
    layers["output"] = deconv(channels[-1], num_classes)
    return nn.Sequence({**layers, "tanh": jnp.tanh})


class DCGANDiscriminator(nnx.Module):
    """Strided convolutions that halve the sides down to the generator's smallest, and one score for each image.

    All but the first have batch normalisation; all have leaky ReLUs of slope 0.2. For images of 64x64x3 it has the
    2,765,568 parameters of PyTorch's DCGAN example. With words, their encoding is repeated over the last feature maps
    as further channels, and a 1x1 convolution mixes both.

    Args:
      image_shape: (height, width, channels).
      rngs: Draws the parameters, as those of :func:`dcgan_generator`.
      width: Multiplies the numbers of channels.
      words: The number of words of a text; 0 for none.
      vocabulary_size: The number of known words, with that for padding.

    Raises:
      UsageError: The size is not possible.

    >>> discriminator = DCGANDiscriminator((28, 28, 1), width=0.25, rngs=nnx.Rngs(0))
    >>> discriminator(jnp.zeros((8, 28, 28, 1)), train=True).shape
    (8, 1)
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        rngs: nnx.Rngs,
        width: float = 1.0,
        words: int = 0,
        vocabulary_size: int = 0,
    ) -> None:
        *size, channels = image_shape
        conv = partial(nn.Conv, use_bias=False, kernel_init=normal(0.02), rngs=rngs)
        leaky = partial(jax.nn.leaky_relu, negative_slope=0.2)
        layers: dict[str, Any] = {}
        for number in range(1, doublings(size) + 1):
            features = scaled(FIRST_CHANNELS * 2 ** (number - 1), width)
            layers[f"conv{number}"] = conv(channels, features, (4, 4), strides=2, padding=1)
            if number > 1:
                layers[f"conv{number}_bn"] = _norm(features, None, rngs)
            layers[f"conv{number}_leaky"] = leaky
            channels = features
        self.image = nn.Sequence(layers)
        self.text = nnx.data(_encoder(words, vocabulary_size, None, rngs) if words else None)
        inner = (*(side // 2 ** doublings(size) for side in size), channels)
        mixed: Mapping[str, Any] = {}
        if words:
            mix = conv(channels + TEXT_SIZE, channels, (1, 1))
            mixed = {"mix": mix, "mix_bn": _norm(channels, None, rngs), "mix_leaky": leaky}
        output = nn.Linear(math.prod(inner), 1, use_bias=False, kernel_init=normal(0.02), rngs=rngs)
        self.score = nn.Sequence({**mixed, "flatten": nn.Flatten(inner), "output": output})

    def __call__(
        self,
        images: Shaped[AnyArray, "batch height width channels"],
        words: Shaped[AnyArray, "batch words"] | None = None,
        *,
        train: bool | None = None,
    ) -> Shaped[Array, "batch 1"]:
        """Scores above 0 for real images, which fit their words, and below 0 for others.

        Args:
          images: From -1 to 1.
          words: Token numbers, if the discriminator was created for words.
          train: As of :class:`cnn_jax.nn.Sequence`.
        """
        found = self.image(images, train=train)
        if self.text is not None and words is not None:
            text = self.text(words, train=train)[:, None, None]
            found = jnp.concatenate([found, jnp.broadcast_to(text, (*found.shape[:-1], text.shape[-1]))], axis=-1)
        return self.score(found, train=train)


def doublings(image_size: Sequence[int]) -> int:
    """How often the sides of an image can be halved until one of them is 4 to 7 pixels or odd.

    Raises:
      UsageError: Not even once.

    >>> [doublings((side, side)) for side in (8, 28, 32, 64)]
    [1, 2, 3, 4]
    """
    count = 0
    while all(side % 2 ** (count + 1) == 0 and side >= SMALLEST * 2 ** (count + 1) for side in image_size):
        count += 1
    if not count:
        size = "x".join(map(str, image_size))
        raise UsageError(f"images of {size}: DCGAN needs even sides of at least {2 * SMALLEST} pixels, such as 32x32")
    return count


def _encoder(words: int, vocabulary_size: int, dtype: DTypeLike | None, rngs: nnx.Rngs) -> nn.Sequence:
    """Kim's network for short texts. Its kernels are not drawn as small as his, whose effect would vanish in noise."""
    return text_cnn(
        num_classes=TEXT_SIZE,
        input_shape=(words,),
        width=1.0,
        dtype=dtype,
        rngs=rngs,
        vocabulary_size=vocabulary_size,
        features=TEXT_SIZE,
        windows=tuple(range(1, min(words, 3) + 1)),
        filters=TEXT_SIZE,
        dropout_rate=0.0,
        kernel_init=lecun_normal(),
    )


def _norm(features: int, dtype: DTypeLike | None, rngs: nnx.Rngs) -> nn.BatchNorm:
    return nn.BatchNorm(features, momentum=0.9, dtype=dtype, scale_init=_near_one, rngs=rngs)


def _near_one(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
    """Scales around 1, with the standard deviation of the kernels."""
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def _slice(x: Shaped[AnyArray, "*batch numbers"], start: int = 0, stop: int | None = None) -> Shaped[Array, "..."]:
    return jnp.asarray(x)[..., start:stop]


VARIANTS = {"dcgan_generator": Variant(dcgan_generator, (100,), 3)}
