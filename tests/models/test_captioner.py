"""Captions: causality, padding, dropout, and beam search against every sequence of a tiny vocabulary."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import models
from cnn_jax.errors import UsageError
from cnn_jax.models.beam_search import beam_search
from tests.compiled import compiled

LENGTH, WORDS = 5, 7
OPTIONS = {"backbone": "small_cnn", "coarsest": 4, "length": LENGTH, "features": 8, "window": 2}
IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
CAPTIONS = np.array([[2, 5, 3, 0, 0], [6, 4, 0, 0, 0]], np.int32)


def create(**options):
    shape = {"num_classes": WORDS, "input_shape": (8, 8, 1), "width": 1 / 8, "rngs": nnx.Rngs(0)}
    return models.create("captioner", **shape, **{**OPTIONS, **options})


@pytest.fixture(scope="module")
def model():
    return create()


@pytest.fixture(scope="module")
def logits(model):
    return jax.jit(lambda captions: model(IMAGES, caption=captions))


def test_a_word_changes_only_the_outputs_behind_its_place(logits):
    before = np.asarray(logits(CAPTIONS))
    for place in range(LENGTH):
        captions = CAPTIONS.copy()
        captions[:, place:] = (captions[:, place:] + 3) % WORDS
        after = np.asarray(logits(captions))
        np.testing.assert_array_equal(after[:, : place + 1], before[:, : place + 1])
        if place + 1 < LENGTH:
            assert np.abs(after[:, place + 1] - before[:, place + 1]).max() > 1e-3


def test_padding_changes_nothing(logits):
    np.testing.assert_allclose(logits(CAPTIONS)[:, :3], logits(CAPTIONS[:, :3]), rtol=1e-5, atol=1e-6)


def test_a_caption_that_is_too_long_is_refused(model):
    with pytest.raises(UsageError, match="a caption of 6 words does not fit length=5"):
        jax.eval_shape(lambda images: model(images, caption=np.zeros((2, 6), np.int32)), IMAGES)


def test_greedy_search_takes_the_most_probable_word_again_and_again(model, logits):
    """The written caption against a loop; the outputs are its words' log-probabilities, without the unknown word."""
    outputs = np.asarray(compiled(lambda images: model(images))(IMAGES), np.float64)
    tokens, total = np.zeros((2, LENGTH), np.int32), np.zeros((2, LENGTH))
    for place in range(LENGTH):
        scores = np.asarray(logits(tokens), np.float64)[:, place]
        scores[:, 1] = -np.inf
        scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
        for example in range(2):
            if place == 0 or tokens[example, place - 1] != 0:
                tokens[example, place] = scores[example].argmax()
                total[example, place] = scores[example].max()
    assert (outputs.argmax(axis=-1) == tokens).all()
    np.testing.assert_allclose(outputs.max(axis=-1), total, atol=1e-5)
    assert np.isneginf(outputs).sum() == 2 * LENGTH * (WORDS - 1)


def test_the_attention_of_each_word_is_shared_among_the_cells(model):
    attention = compiled(model.attention)(IMAGES, CAPTIONS)
    assert attention.shape == (2, LENGTH, 2, 2)
    np.testing.assert_allclose(attention.sum(axis=(2, 3)), 1, rtol=1e-5)


def chances(words: int, length: int):
    """Random log-probabilities of the next word after each beginning of a sequence."""
    generator = np.random.default_rng(3)
    table = generator.normal(scale=2, size=(length, *[words] * length)).astype(np.float32)
    return np.asarray(jax.nn.log_softmax(table, axis=-1))


def next_words(table):
    length = len(table)

    def of(tokens, place):
        """The place's row of the table, by up to ``length - 1`` words before it; words behind it do not count."""
        before = jnp.where(jnp.arange(length) < place, tokens, 0)[:, : length - 1]
        return jnp.asarray(table)[(place, *before.T)]

    return of


def score(table, sequence) -> float:
    total = 0.0
    for place, word in enumerate(sequence):
        before = (*sequence[:place], *[0] * (len(table) - 1 - place))[: len(table) - 1]
        total += table[(place, *before, word)]
        if word == 0:
            break
    return total


@pytest.mark.parametrize("width", [1, 2, 27])
def test_beam_search_is_that_of_a_loop_and_if_it_is_wide_enough_exhaustive(width):
    """Of a width of all sequences it finds the best of them; of a width of 1 the greedy one."""
    table = chances(3, 3)
    kept = [((), 0.0)]
    for place in range(3):
        longer = []
        for sequence, _ in kept:
            ended = place > 0 and sequence[-1] == 0
            longer += [(*sequence, word) for word in ([0] if ended else range(3))]
        kept = sorted(((sequence, score(table, sequence)) for sequence in longer), key=lambda pair: -pair[1])[:width]
    tokens, scores = beam_search(next_words(table), 2, length=3, width=width)
    assert tokens.tolist() == [list(kept[0][0])] * 2
    np.testing.assert_allclose(scores, kept[0][1], rtol=1e-5)
    if width == 27:
        every = itertools.product(range(3), repeat=3)
        ending = [one for one in every if all(b == 0 for a, b in itertools.pairwise(one) if a == 0)]
        assert tokens[0].tolist() == list(max(ending, key=lambda one: score(table, one)))


@pytest.mark.slow
def test_beam_search_of_the_network_finds_captions_that_are_at_least_as_probable(model):
    totals = []
    for width in (1, 4):
        model.decoder.beam_width = width
        outputs = compiled(lambda images: model(images))(IMAGES)
        totals.append(np.asarray(outputs).max(axis=-1).sum(axis=-1))
    assert (totals[1] >= totals[0] - 1e-5).all()
