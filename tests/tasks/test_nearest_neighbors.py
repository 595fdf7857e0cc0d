"""Nearest neighbours by pixels and by features against a loop over all pairs, on real digits."""

import json

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.errors import UsageError
from cnn_jax.experiments import nearest_neighbors
from cnn_jax.tasks.saved import load_run


def small_config():
    config = nearest_neighbors.default_config()
    config.model.name, config.input_shape = "mlp", (8, 8, 1)
    config.data.train, config.data.validation = "train[:200]", ""
    config.duration, config.queries, config.shown, config.activation = "20 steps", 30, 2, "fc1"
    return config


def accuracy(train, train_labels, test, labels):
    wins = 0
    for one, label in zip(test, labels, strict=True):
        distances = [np.square(one - other).sum() for other in train]
        wins += train_labels[int(np.argmin(distances))] == label
    return wins / len(test)


def test_accuracies_are_those_of_a_loop(tmp_path):
    config = small_config()
    nearest_neighbors.train(config, tmp_path)
    scores = json.loads((tmp_path / "result.json").read_text())["scores"]
    train, test = data.load("digits", "train[:200]"), data.load("digits", "test").part(0, 30)
    network, state = load_run(nearest_neighbors.network_run(config), tmp_path / "network")
    pixels = [np.asarray(network.preprocess(found.images)).reshape(len(found), -1) for found in (train, test)]
    features = [network.activations(state, found.images)["fc1"] for found in (train, test)]
    for name, (of_train, of_test) in {"pixels": pixels, "features (fc1)": features}.items():
        expected = accuracy(of_train.astype(np.float64), train.labels, of_test.astype(np.float64), test.labels)
        assert scores[name] == pytest.approx(expected, abs=1e-9), name
    assert ">Neighbours</h2>" in (tmp_path / "report.html").read_text()


def test_mistakes(tmp_path):
    config = small_config()
    config.shown = 0
    with pytest.raises(UsageError, match="shown=0 must be at least 1"):
        nearest_neighbors.train(config, tmp_path)
