"""Captions of images: convolutions that look at an image, and convolutions over the words that were written before.

The decoder has masked convolutions over words, gated linear units and attention in each block, as in Gehring et al.,
"Convolutional sequence to sequence learning", ICML 2017. Aneja, Deshpande & Schwing, "Convolutional image captioning",
CVPR 2018, use such a decoder for images. The attention over the cells of the encoder's map is that of Xu et al., "Show,
attend and tell", ICML 2015.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal
from jaxtyping import Array, DTypeLike, Float, Int, Shaped

from cnn_jax import nn
from cnn_jax.errors import UsageError
from cnn_jax.models.backbone import Lookup, create_backbone, maps_of
from cnn_jax.models.beam_search import END, beam_search
from cnn_jax.models.variant import Variant
from cnn_jax.nn.sequence import Intercept, call_options
from cnn_jax.ops.arguments import AnyArray, Number, integer

UNKNOWN = 1
"""The number of the word that stands for all unknown ones, which is never written."""


class Captioner(nn.Sequence):
    """A network whose last layer, ``decoder``, writes words about the map of the layers before it."""

    decoder: "CaptionDecoder"

    def __call__(
        self,
        x: Shaped[AnyArray, "..."],
        *,
        caption: Int[AnyArray, "batch words"] | None = None,
        train: bool | None = None,
        rngs: nnx.Rngs | Shaped[AnyArray, "..."] | None = None,
        return_activations: bool = False,
        intercept: Intercept | None = None,
    ) -> Any:
        """Applies the layers in order. The decoder is told ``caption``; for the others see ``Sequence.__call__``."""
        options = call_options(self.names, train, rngs, return_activations, intercept)
        layers = self._layers()
        layers["decoder"] = partial(self.decoder, caption=caption)
        x, activations = self._apply(layers, x, **options)
        return (x, activations) if return_activations else x

    def attention(
        self, x: Shaped[AnyArray, "..."], caption: Int[AnyArray, "batch words"]
    ) -> Float[Array, "batch words *space"]:
        """The share of the attention that each cell of the map has, for each word: the mean over the blocks.

        Args:
          x: Images.
          caption: The words.
        """
        layers = self._layers()
        del layers["decoder"]
        maps, _ = self._apply(layers, x, **call_options(self.names, False, None, False, None))
        return self.decoder.attention(maps, caption)


class CaptionDecoder(nnx.Module):
    """Writes words about a map.

    A word depends on the map and on the words before it. Token 0 is padding and at the same time the end of a caption;
    token 1 stands for unknown words and is never written.

    Args:
      in_features: The number of channels of the map.
      space: The sizes of the map.
      vocabulary_size: The number of tokens.
      length: The largest number of words, with the end.
      features: The length of the vectors of words and cells.
      blocks: The number of blocks of a convolution and attention.
      window: The number of words that a convolution sees.
      dropout_rate: The probability of dropping an entry of the vectors of words and of the inputs of blocks.
      beam_width: The number of captions that the search keeps; 1 for greedy search.
      dtype: The type to compute in.
      rngs: Draws the parameters.
    """

    def __init__(
        self,
        in_features: int,
        space: tuple[int, ...],
        vocabulary_size: int,
        *,
        length: int,
        features: int,
        blocks: int,
        window: int,
        dropout_rate: Number,
        beam_width: int,
        dtype: DTypeLike | None,
        rngs: nnx.Rngs,
    ) -> None:
        self.length = integer("captioner", "length", length, least=1)
        self.beam_width = integer("captioner", "beam_width", beam_width, least=1)
        self.blocks = integer("captioner", "blocks", blocks, least=1)
        self.words = nn.Embed(vocabulary_size, features, embedding_init=normal(1.0), dtype=dtype, rngs=rngs)
        self.places = nnx.Param(normal(0.1)(rngs.params(), (self.length, features), jnp.float32))
        self.cells = nn.Linear(in_features, features, dtype=dtype, rngs=rngs)
        self.cell_places = nnx.Param(normal(0.1)(rngs.params(), (math.prod(space), features), jnp.float32))
        self.dropout = nn.Dropout(dropout_rate)
        for number in range(1, blocks + 1):
            setattr(self, f"block{number}", CaptionBlock(features, window, dtype=dtype, rngs=rngs))
        self.output = nn.Linear(features, vocabulary_size, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        inputs: Shaped[AnyArray, "batch *space channels"],
        *,
        caption: Int[AnyArray, "batch words"] | None = None,
        train: bool | None = None,
        rngs: Any = None,
    ) -> Shaped[Array, "batch places vocabulary"]:
        """The logits of the next words of a caption that is told, or the caption that the decoder writes.

        Args:
          inputs: The map.
          caption: Token numbers. The output at a place depends on the words before that place only.
          train: Whether entries are dropped.
          rngs: The random numbers of dropout.

        Returns:
          With a caption logits, ``(batch, words, vocabulary)``. Without one ``(batch, length, vocabulary)``: at each
          place the log-probability of the word that was written, and minus infinity for the others; behind the end of
          the caption the word is 0 with certainty.

        Raises:
          UsageError: The caption is longer than ``length``.
        """
        cells = self._cells(inputs)
        if caption is not None:
            return self._logits(cells, jnp.asarray(caption), train, rngs)[0]
        tokens = self.written(cells)
        chosen = jnp.take_along_axis(self._log_probabilities(cells, tokens), tokens[..., None], axis=-1)
        ended = jnp.cumsum(tokens == END, axis=1) > (tokens == END)
        chosen = jnp.where(ended[..., None], 0, chosen)
        return jnp.where(tokens[..., None] == jnp.arange(self.words.num_embeddings), chosen, -jnp.inf)

    def written(self, cells: Shaped[Array, "batch cells features"]) -> Int[Array, "batch length"]:
        """The caption that beam search finds."""
        several = jnp.repeat(cells, self.beam_width, axis=0)

        def next_words(tokens: Array, place: Array) -> Array:
            return jnp.take(self._log_probabilities(several, tokens), place, axis=1)

        return beam_search(next_words, len(cells), length=self.length, width=self.beam_width)[0]

    def attention(
        self, inputs: Shaped[AnyArray, "batch *space channels"], caption: Int[AnyArray, "batch words"]
    ) -> Float[Array, "batch words *space"]:
        """The share of the attention of each cell for each word, see :meth:`Captioner.attention`."""
        found = self._logits(self._cells(inputs), jnp.asarray(caption), False, None)[1]
        return found.reshape(*found.shape[:2], *inputs.shape[1:-1])

    def _cells(self, maps: AnyArray) -> Array:
        maps = jnp.asarray(maps)
        cells = self.cells(maps.reshape(len(maps), -1, maps.shape[-1]))
        return cells + self.cell_places[...].astype(cells.dtype)

    def _logits(self, cells: Array, caption: Array, train: bool | None, rngs: Any) -> tuple[Array, Array]:
        """The logits at each place of a caption, and the attention."""
        count = caption.shape[1]
        if count > self.length:
            raise UsageError(
                f"a caption of {count} words does not fit length={self.length}; set that option to {count}"
            )
        words = self.words(caption)
        before = jnp.pad(words, ((0, 0), (1, 0), (0, 0)))[:, :-1]  # a word may not see itself
        x = before + self.places[:count].astype(words.dtype)
        key = nn.normalization.dropout_key(rngs) if rngs is not None else None
        attention = []
        for number in range(self.blocks + 1):
            own = None if key is None else jax.random.fold_in(key, number)
            x = self.dropout(x, train=train, rngs=own)
            if number < self.blocks:
                x, weights = getattr(self, f"block{number + 1}")(x, cells)
                attention.append(weights.astype(jnp.float32))
        return self.output(x), jnp.stack(attention).mean(axis=0)

    def _log_probabilities(self, cells: Array, tokens: Array) -> Array:
        """The log-probabilities of the words that may be written, at each place."""
        logits = self._logits(cells, tokens, False, None)[0].astype(jnp.float32)
        return jax.nn.log_softmax(jnp.where(jnp.arange(logits.shape[-1]) == UNKNOWN, -jnp.inf, logits))


class CaptionBlock(nnx.Module):
    """A convolution over the words up to each place, a gated linear unit, and attention over the cells of a map.

    Args:
      features: The length of the vectors.
      window: The number of words that the convolution sees.
      dtype: The type to compute in.
      rngs: Draws the parameters.
    """

    def __init__(self, features: int, window: int, *, dtype: DTypeLike | None, rngs: nnx.Rngs) -> None:
        integer("captioner", "window", window, least=1)
        self.conv = nn.Conv(features, 2 * features, (window,), padding=((window - 1, 0),), dtype=dtype, rngs=rngs)
        self.query = nn.Linear(features, features, dtype=dtype, rngs=rngs)
        self.seen = nn.Linear(features, features, dtype=dtype, rngs=rngs)

    def __call__(
        self, inputs: Shaped[Array, "batch places features"], cells: Shaped[Array, "batch cells features"]
    ) -> tuple[Shaped[Array, "batch places features"], Shaped[Array, "batch places cells"]]:
        """The vectors of the places after the block, and the share of the attention that each cell has."""
        values, gates = jnp.split(self.conv(inputs), 2, axis=-1)
        x = values * jax.nn.sigmoid(gates)
        scores = jnp.einsum("bpf,bcf->bpc", self.query(x), cells) / math.sqrt(cells.shape[-1])
        weights = jax.nn.softmax(scores.astype(jnp.float32), axis=-1).astype(x.dtype)
        seen = jnp.einsum("bpc,bcf->bpf", weights, cells)
        return (inputs + x + self.seen(seen)) * math.sqrt(0.5), weights


def captioner(
    variant: Lookup,
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    backbone: str = "resnet_18",
    backbone_options: Any = None,
    coarsest: int = 16,
    length: int = 20,
    features: int = 128,
    blocks: int = 2,
    window: int = 3,
    dropout_rate: Number = 0.1,
    beam_width: int = 1,
) -> Captioner:
    """The layers of a classification network up to a map, and a decoder that writes words about it.

    The layers of the encoder have the names that they have in the backbone, so that pretrained weights fit.

    Args:
      variant: Finds the registry entry of the backbone.
      num_classes: The number of tokens: the end of a caption, the word for unknown ones, and all others.
      input_shape: The shape of one input, (*space, channels); the sides are multiples of ``coarsest``.
      width: Multiplies the numbers of channels of the backbone.
      dtype: The type to compute in.
      rngs: Draws the parameters.
      backbone: The name of a network for classification whose convolutions keep the size.
      backbone_options: Of that network; None for none.
      coarsest: The number of pixels of a cell of the map that the decoder sees.
      length: The largest number of words of a caption, with the end.
      features: The length of the vectors of words and cells.
      blocks: The number of blocks of the decoder.
      window: The number of words that a convolution of the decoder sees.
      dropout_rate: Of the decoder.
      beam_width: The number of captions that the search keeps; 1 for greedy search.

    Raises:
      UsageError: The backbone has no map of such cells, or an option is out of range.
    """
    if any(size % coarsest for size in input_shape[:-1]):
        raise UsageError(f"the sides of an input of this network are multiples of coarsest={coarsest}")
    base = create_backbone(variant, backbone, input_shape, width, dtype, rngs, backbone_options or {})
    layers, levels = maps_of(base, backbone, input_shape, coarsest)
    if coarsest not in levels:
        known = ", ".join(map(str, sorted(levels)))
        raise UsageError(f"{backbone} has no map with coarsest={coarsest} pixels a cell, but of {known}")
    decoder = CaptionDecoder(
        levels[coarsest][1],
        tuple(size // coarsest for size in input_shape[:-1]),
        num_classes,
        length=length,
        features=features,
        blocks=blocks,
        window=window,
        dropout_rate=dropout_rate,
        beam_width=beam_width,
        dtype=dtype,
        rngs=rngs,
    )
    return Captioner({**layers, "decoder": decoder})


def variants(variant: Lookup) -> dict[str, Variant]:
    """The registry entries, which look their backbones up in the registry."""
    return {"captioner": Variant(partial(captioner, variant), (224, 224, 3), 1000)}
