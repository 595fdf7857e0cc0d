"""The Rand error and the variation of information against loops over pairs of pixels and over objects."""

import itertools
import math

import numpy as np
import pytest

from cnn_jax.tasks.instances import connected_objects, instance_scores

GENERATOR = np.random.default_rng(0)
TRUTH = GENERATOR.integers(0, 4, (6, 7))
PREDICTED = np.where(GENERATOR.random((6, 7)) < 0.7, TRUTH, GENERATOR.integers(0, 3, (6, 7)))


def test_the_rand_error_counts_pairs_of_pixels() -> None:
    pixels = [place for place in np.ndindex(TRUTH.shape) if TRUTH[place]]
    together = {"true": 0, "predicted": 0, "both": 0}
    for one, other in itertools.combinations(pixels, 2):
        true, predicted = TRUTH[one] == TRUTH[other], PREDICTED[one] == PREDICTED[other]
        together["true"] += int(true)
        together["predicted"] += int(predicted)
        together["both"] += int(true and predicted)
    precision, recall = together["both"] / together["predicted"], together["both"] / together["true"]
    expected = 1 - 2 * precision * recall / (precision + recall)
    assert instance_scores(TRUTH, PREDICTED).rand_error == pytest.approx(expected)


def test_the_variation_of_information_is_a_sum_of_conditional_entropies() -> None:
    pixels = [(int(TRUTH[place]), int(PREDICTED[place])) for place in np.ndindex(TRUTH.shape) if TRUTH[place]]
    split = merge = 0.0
    for pair in set(pixels):
        share = pixels.count(pair) / len(pixels)
        split -= share * math.log2(pixels.count(pair) / sum(true == pair[0] for true, _ in pixels))
        merge -= share * math.log2(pixels.count(pair) / sum(given == pair[1] for _, given in pixels))
    found = instance_scores(TRUTH, PREDICTED)
    assert (found.split, found.merge) == pytest.approx((split, merge))
    assert found.variation_of_information == pytest.approx(split + merge)


def test_names_do_not_matter_and_a_gap_in_a_membrane_does() -> None:
    cells = np.ones((9, 20), int)
    cells[:, 10] = 0
    assert instance_scores(connected_objects(cells), 7 * connected_objects(cells)) == (0, 0, 0, 0)
    leaking = cells.copy()
    leaking[4, 10] = 1
    found = instance_scores(connected_objects(cells), connected_objects(leaking))
    assert found.merge > 0.9
    assert found.split == 0
    assert (cells != leaking).mean() < 0.01
