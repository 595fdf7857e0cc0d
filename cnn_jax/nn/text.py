"""Layers of networks for text: word vectors, and convolutions whose maximum over time leaves padding out."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, DTypeLike, Shaped

from cnn_jax.nn.conv import Conv
from cnn_jax.ops.arguments import AnyArray, accumulator, integer


def kim_embedding(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
    """Draws word vectors uniformly between -0.25 and 0.25, as in Kim's code.

    >>> bool(jnp.abs(kim_embedding(jax.random.key(0), (10, 300))).max() <= 0.25)
    True
    """
    return jax.random.uniform(key, shape, dtype, -0.25, 0.25)


class Embed(nnx.Module):
    """A vector for each token number; padding, which is token 0, becomes zeros.

    Args:
      num_embeddings: The number of tokens. A token number beyond it gives NaN, which stops training.
      features: The length of the vectors.
      dtype: The type of the output; by default that of the vectors.
      embedding_init: The initialiser of the vectors.
      rngs: The random number generators for the parameters.

    >>> layer = Embed(100, 8, rngs=nnx.Rngs(0))
    >>> y = layer(jnp.array([[5, 7, 0]]))
    >>> y.shape, float(abs(y[0, 2]).max())
    ((1, 3, 8), 0.0)
    """

    def __init__(
        self,
        num_embeddings: int,
        features: int,
        *,
        dtype: DTypeLike | None = None,
        embedding_init: Initializer = kim_embedding,
        rngs: nnx.Rngs,
    ) -> None:
        self.num_embeddings = integer("Embed", "num_embeddings", num_embeddings, least=1)
        self.features = integer("Embed", "features", features, least=1)
        self.dtype = dtype
        self.embedding = nnx.Param(embedding_init(rngs.params(), (num_embeddings, features), jnp.float32))

    def __call__(self, inputs: Shaped[AnyArray, "*batch length"]) -> Shaped[Array, "*batch length features"]:
        """Maps token numbers ``(*batch, length)`` to vectors.

        Whole numbers of floating point are taken, too, since shapes of networks are computed with such.
        """
        tokens = jnp.asarray(inputs).astype(jnp.int32)
        table = self.embedding[...]
        # In at least float32: the gradient of a vector is a sum over all places of its token.
        vectors = jnp.take(table.astype(accumulator(table.dtype)), tokens, axis=0).astype(self.dtype or table.dtype)
        return jnp.where((tokens == 0)[..., None], jnp.zeros((), vectors.dtype), vectors)


class ConvMaxOverTime(nnx.Module):
    """A convolution over words, a ReLU, and the maximum over all positions of the window that touch a word.

    Positions whose vectors are all 0 are padding, as :class:`Embed` gives it (and as in Keras's ``Masking``). So the
    result does not depend on how far a text was padded. Windows may reach beyond the ends of a text. A text without
    words gives 0.

    Args:
      in_features: The length of the word vectors.
      out_features: The number of filters.
      window: The number of words in a window.
      dtype: The type to compute in.
      kernel_init: The initialiser of the kernel.
      rngs: The random number generators for the parameters.

    References:
      Kim, Convolutional neural networks for sentence classification, 2014.

    >>> layer = ConvMaxOverTime(8, 100, 3, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((2, 20, 8))).shape
    (2, 100)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        window: int,
        *,
        dtype: DTypeLike | None = None,
        kernel_init: Initializer | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        options: dict[str, Any] = {} if kernel_init is None else {"kernel_init": kernel_init}
        self.window = integer("ConvMaxOverTime", "window", window, least=1)
        self.conv = Conv(in_features, out_features, (window,), padding=window - 1, dtype=dtype, rngs=rngs, **options)

    def __call__(self, inputs: Shaped[AnyArray, "*batch length in_features"]) -> Shaped[Array, "*batch out_features"]:
        """Maps ``(*batch, length, in_features)`` to ``(*batch, out_features)``."""
        inputs = jnp.asarray(inputs)
        words = (inputs != 0).any(axis=-1)
        sides = [(0, 0)] * (words.ndim - 1) + [(self.window - 1, self.window - 1)]
        padded = jnp.pad(words, sides)
        size = words.shape[-1] + self.window - 1
        touched = jnp.stack([padded[..., first : first + size] for first in range(self.window)]).any(axis=0)
        responses = jax.nn.relu(self.conv(inputs))
        return jnp.where(touched[..., None], responses, jnp.zeros((), responses.dtype)).max(axis=-2)
