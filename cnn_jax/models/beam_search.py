"""Beam search: likely sequences of words from a function that says how likely each next word is."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

END = 0
"""The number of the word that ends a sequence; behind it there is nothing but this word."""

NextWords = Callable[[Int[Array, "sequences length"], Int[Array, ""]], Float[Array, "sequences words"]]
"""``next_words(tokens, place)``: the log-probabilities of the words at a place, given those before it. What ``tokens``
has from ``place`` on has no meaning."""


def beam_search(
    next_words: NextWords, batch: int, *, length: int, width: int = 1
) -> tuple[Int[Array, "batch length"], Float[Array, " batch"]]:
    """The most probable of the sequences that the search keeps, and the logarithm of its probability.

    At each place every kept sequence is continued by every word, and the ``width`` most probable continuations are
    kept. A width of 1 is greedy search. The search is a loop of fixed length, so it can be compiled.

    Args:
      next_words: Says how likely each word is. Sequences of one example follow each other.
      batch: The number of examples.
      length: The number of words of a sequence at most.
      width: The number of sequences that are kept of each example.

    >>> def next_words(tokens, place):  # first 1 or, a little less likely, 2; after 2 the end is certain
    ...     first, after_1, after_2 = jnp.log(jnp.array([[0.0, 0.6, 0.4], [0.4, 0.3, 0.3], [1.0, 0.0, 0.0]]))
    ...     before = tokens[:, jnp.maximum(place - 1, 0), None]
    ...     return jnp.where(place == 0, first, jnp.where(before == 1, after_1, after_2))
    >>> for width in (1, 2):
    ...     tokens, score = beam_search(next_words, 1, length=2, width=width)
    ...     print(tokens.tolist(), round(float(jnp.exp(score[0])), 2))
    [[1, 0]] 0.24
    [[2, 0]] 0.4
    """

    def extend(
        place: Int[Array, ""], kept: tuple[Int[Array, "batch width length"], Float[Array, "batch width"]]
    ) -> tuple[Int[Array, "batch width length"], Float[Array, "batch width"]]:
        tokens, scores = kept
        words = next_words(tokens.reshape(batch * width, length), place).astype(jnp.float32)
        words = words.reshape(batch, width, -1)
        before = jnp.take(tokens, jnp.maximum(place - 1, 0), axis=2)
        ended = (place > 0) & (before == END)
        nothing = jnp.where(jnp.arange(words.shape[-1]) == END, 0.0, -jnp.inf)
        words = jnp.where(ended[..., None], nothing, words)
        scores, chosen = jax.lax.top_k((scores[..., None] + words).reshape(batch, -1), width)
        of, word = jnp.divmod(chosen, words.shape[-1])
        tokens = jnp.take_along_axis(tokens, of[..., None], axis=1)
        return tokens.at[:, :, place].set(word.astype(jnp.int32)), scores

    start = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)  # at first there is one sequence, without words
    kept = jnp.full((batch, width, length), END, jnp.int32), jnp.broadcast_to(start, (batch, width))
    tokens, scores = jax.lax.fori_loop(0, length, extend, kept)
    return tokens[:, 0], scores[:, 0]
