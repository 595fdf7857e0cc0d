"""The order of examples: uniform permutations that do not depend on the division into calls; evaluation batches."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cnn_jax import data
from cnn_jax.errors import UsageError

KEY = jax.random.key(7)
FAIR = 1e-4  # keys are fixed, so a fair shuffle that passes once always passes


@partial(jax.jit, static_argnums=(0, 1))
def _orders(num_epochs: int, num_examples: int, key: jax.Array) -> jax.Array:
    return jax.vmap(lambda epoch: data.epoch_order(key, epoch, num_examples))(jnp.arange(num_epochs))


def orders(num_epochs: int, num_examples: int, key: jax.Array = KEY) -> np.ndarray:
    return np.asarray(_orders(num_epochs, num_examples, key))


@pytest.mark.parametrize("num_examples", [1, 2, 256, 257, 65537])
def test_every_epoch_takes_every_example_once(num_examples):
    epochs = orders(3, num_examples)
    np.testing.assert_array_equal(np.sort(epochs), np.broadcast_to(np.arange(num_examples), epochs.shape))


def test_every_epoch_and_key_has_another_order():
    one, other = orders(20_000, 10), orders(20_000, 10, jax.random.key(8))
    assert abs((one == other).mean() - 1 / 10) < 0.005
    assert abs((one[1:] == one[:-1]).mean() - 1 / 10) < 0.005


@pytest.mark.parametrize("num_examples", [3, 4])
def test_all_permutations_of_few_examples_are_equally_likely(num_examples):
    drawn, counts = np.unique(orders(24_000, num_examples), axis=0, return_counts=True)
    assert [tuple(order) for order in drawn.tolist()] == list(itertools.permutations(range(num_examples)))
    assert len(counts) == math.factorial(num_examples)
    assert stats.chisquare(counts).pvalue > FAIR


@pytest.mark.parametrize("num_examples", [10, 100])
def test_every_position_and_every_neighbour_is_equally_likely(num_examples):
    epochs = orders(20_000, num_examples)
    positions = np.tile(np.arange(num_examples), len(epochs))
    table = np.bincount(positions * num_examples + epochs.ravel(), minlength=num_examples**2)
    expected = len(epochs) / num_examples
    # Rows and columns of the table have fixed sums, hence the factor and the degrees of freedom.
    statistic = (num_examples - 1) / num_examples * np.square(table - expected).sum() / expected
    assert stats.chi2.sf(statistic, (num_examples - 1) ** 2) > FAIR
    steps = (np.diff(epochs, axis=1) % num_examples).ravel()
    assert stats.chisquare(np.bincount(steps, minlength=num_examples)[1:]).pvalue > FAIR
    between_epochs = (np.diff(epochs, axis=0) % num_examples).ravel()
    assert stats.chisquare(np.bincount(between_epochs, minlength=num_examples)).pvalue > FAIR


def test_batches_are_slices_of_epochs_for_any_length_of_calls():
    num_examples, batch_size, per_epoch = 23, 5, 4
    epochs = orders(4, num_examples)
    expected = epochs[:, : per_epoch * batch_size].reshape(-1, batch_size)
    batches = jax.jit(partial(data.batch_indices, num_examples=num_examples, batch_size=batch_size), static_argnums=2)
    np.testing.assert_array_equal(batches(KEY, 0, 16), expected)
    np.testing.assert_array_equal(batches(KEY, 3, 7), expected[3:10])
    one_by_one = [batches(KEY, step, 1)[0] for step in range(16)]
    np.testing.assert_array_equal(one_by_one, expected)


def test_a_batch_is_at_most_the_whole_set():
    assert np.sort(data.batch_indices(KEY, 5, 1, num_examples=6, batch_size=6)).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert data.steps_per_epoch(60_000, 128) == 468
    for batch_size in (7, 0, -1):
        with pytest.raises(UsageError, match=f"batch_size={batch_size} does not fit 6 training examples"):
            data.batch_indices(KEY, 0, 1, num_examples=6, batch_size=batch_size)


@pytest.mark.parametrize(("num_examples", "batch_size"), [(1, 1), (1, 4), (7, 3), (9, 3), (300, 128)])
def test_evaluation_takes_every_example_once(num_examples, batch_size):
    indices, mask = data.padded_batches(num_examples, batch_size)
    assert indices.shape == mask.shape == (math.ceil(num_examples / batch_size), batch_size)
    assert indices[mask].tolist() == list(range(num_examples))
    assert 0 <= indices.min() <= indices.max() < num_examples
    for arguments in [(0, batch_size), (num_examples, 0)]:
        with pytest.raises(UsageError, match="give at least 1 of each"):
            data.padded_batches(*arguments)
