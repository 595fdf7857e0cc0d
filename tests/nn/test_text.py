"""The maximum over time against a loop over windows, and what it makes of padding."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import models, nn

TOKENS = np.array([[3, 1, 4, 0, 0, 0], [2, 2, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], np.int32)


@pytest.mark.parametrize("window", [1, 3, 5])
def test_maximum_is_that_of_a_loop_over_the_windows_that_touch_a_word(window):
    embed = nn.Embed(6, 4, rngs=nnx.Rngs(0))
    layer = nn.ConvMaxOverTime(4, 5, window, rngs=nnx.Rngs(1))
    layer.conv.bias[...] = jnp.full(5, 0.3)  # which windows of padding alone would give
    kernel, bias = np.asarray(layer.conv.kernel[...]), np.asarray(layer.conv.bias[...])
    expected = np.zeros((3, 5))
    for row, tokens in enumerate(TOKENS):
        words = np.asarray(embed.embedding[...])[tokens[tokens > 0]]
        padded = np.pad(words, ((window - 1, window - 1), (0, 0)))
        for first in range(len(words) + window - 1 if len(words) else 0):
            response = np.einsum("tc,tco->o", padded[first : first + window], kernel) + bias
            expected[row] = np.maximum(expected[row], response)
    np.testing.assert_allclose(layer(embed(TOKENS)), expected, atol=1e-6)


def test_more_padding_changes_nothing():
    options = {"vocabulary_size": 6, "features": 8, "filters": 4}
    short, long = (models.create("text_cnn", input_shape=(n,), rngs=nnx.Rngs(0), **options) for n in (6, 11))
    longer = np.pad(TOKENS, ((0, 0), (0, 5)))
    np.testing.assert_allclose(short(TOKENS), long(longer), atol=1e-6)


def test_a_token_without_a_vector_is_not_taken_for_another():
    assert np.isnan(nn.Embed(3, 2, rngs=nnx.Rngs(0))(jnp.array([[1, 3]]))[0, 1]).all()
