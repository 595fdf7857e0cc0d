"""Distances of activations: the nearest training images of test images, by their pixels and by a network's features.

A network is trained, or taken from a finished run in the folder. Its features are the activation of one layer, such as
the last hidden one. One figure shows the neighbours of some test images in both spaces. The accuracy of each space is
that of the class of the nearest neighbour.

References:
  Lecture 001, "Activation distances"; Krizhevsky, Sutskever and Hinton, ImageNet classification with deep
  convolutional neural networks, 2012, section 6.1.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict
from sklearn.neighbors import NearestNeighbors

from cnn_jax import config as configs
from cnn_jax import data
from cnn_jax import train as training
from cnn_jax.attribution.target import objective
from cnn_jax.errors import UsageError
from cnn_jax.experiments import series
from cnn_jax.experiments.series import evaluate, explain, explore, predict  # noqa: F401  part of an experiment
from cnn_jax.report import figures
from cnn_jax.report.page import Headline, Page, Section, Table
from cnn_jax.runtime.command import command
from cnn_jax.runtime.files import write_json
from cnn_jax.runtime.terminal import say
from cnn_jax.schema import Schema, with_keys
from cnn_jax.tasks import default_config as task_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks import schema as task_schema
from cnn_jax.tasks.responses import Explained
from cnn_jax.tasks.saved import load_run
from cnn_jax.tasks.sets import load_splits

_AT_ONCE = 512


def default_config() -> ConfigDict:
    """Every key: those of classification, which describe the network, and those of the comparison."""
    keys = {
        "experiment": "nearest_neighbors",
        "activation": "f6",  # whose values are the features
        "neighbors": 5,  # of each test image in the figure
        "queries": 2000,  # test images of which the accuracy is measured
        "shown": 8,  # test images in the figure
    }
    return with_keys(task_config("classification"), keys)


def schema(config: ConfigDict) -> Schema:
    """What a config may contain."""
    return Schema(default_config(), task_schema("classification").examples)


def train(config: ConfigDict, directory: Path, *, profile: int = 0) -> None:
    """Trains the network if it is not finished, compares the neighbours, and writes ``result.json`` and the report."""
    for key in ("neighbors", "queries", "shown"):
        if config[key] < 1:
            raise UsageError(f"{key}={config[key]} must be at least 1")
    started = time.perf_counter()
    own = network_run(config)
    with training.open_workdir(directory, config):
        accuracy = series.finished(own, directory / "network")["scores"]["test/accuracy"]
        train_set, test_set = (found.to_memory() for found in load_splits(own, [own.data.train, own.data.test]))
        train_set, test_set = data.sample(train_set), data.sample(test_set).part(0, min(config.queries, len(test_set)))
        network, state = load_run(own, directory / "network")
        explained = Explained.of(network, state)
        spaces = {"pixels": jnp.asarray, f"features ({config.activation})": _features_of(explained, config.activation)}
        found = {}
        for name, space in spaces.items():
            train_values, test_values = (_values(explained, space, one.images) for one in (train_set, test_set))
            found[name] = _neighbors(train_values, test_values, config.neighbors)
        scores = {name: float(np.mean(train_set.labels[near[:, 0]] == test_set.labels)) for name, near in found.items()}
        write_json(directory / "result.json", {"network": accuracy, "scores": scores})
        _write_report(config, directory, train_set, test_set, found, {**scores, "network": accuracy})
    for name, score in {**scores, "the network itself": accuracy}.items():
        say(f"{name:>24}: {score:.2%} of test images")
    say(f"in {time.perf_counter() - started:.1f} s; open {directory / 'report.html'}")


def summary(config: ConfigDict, **options: Any) -> None:
    """Prints the table of the network."""
    runs.summary(network_run(config), **options)


def network_run(config: ConfigDict) -> ConfigDict:
    """The config of the run that trains the network."""
    return series.variation(config, {})


def _features_of(explained: Explained, activation: str) -> Callable[[Array], Array]:
    """A compiled function of the network's inputs: the values of an activation."""
    graph, state = nnx.split(explained.model)

    @jax.jit
    def features(state: Any, x: Array) -> Array:
        return objective("nearest_neighbors", nnx.merge(graph, state), (activation, None, 0)).activation(x)

    return functools.partial(features, state)


def _values(explained: Explained, space: Callable[[Array], Array], images: np.ndarray) -> Float[np.ndarray, "n values"]:
    """Raw images as points of a space, batch by batch."""
    batches = (images[first : first + _AT_ONCE] for first in range(0, len(images), _AT_ONCE))
    found = [np.asarray(space(explained.inputs(batch)), np.float32) for batch in batches]
    return np.concatenate([batch.reshape(len(batch), -1) for batch in found])


def _neighbors(
    train: Float[np.ndarray, "n values"], test: Float[np.ndarray, "m values"], count: int
) -> Int[np.ndarray, "m neighbors"]:
    """The training examples with the smallest Euclidean distances, the nearest first."""
    return NearestNeighbors(n_neighbors=count, algorithm="brute").fit(train).kneighbors(test, return_distance=False)


def _write_report(
    config: ConfigDict,
    directory: Path,
    train_set: data.Dataset,
    test_set: data.Dataset,
    found: dict[str, np.ndarray],
    scores: dict[str, float],
) -> None:
    pixels, features = found.values()
    shown = _most_different(pixels, features, train_set.labels, test_set.labels, config.shown)
    rows = {
        f"test image {query}, {name}": [test_set.images[query], *train_set.images[near[query]]]
        for query in shown
        for name, near in found.items()
    }
    same = np.mean([len({*a} & {*b}) / len(a) for a, b in zip(pixels, features, strict=True)])
    page = Page(
        title=f"Nearest neighbours of {config.data.name}, by pixels and by features",
        subtitle=f"{config.model.name}, activation {config.activation}; {len(test_set):,} test images among "
        f"{len(train_set):,} training images",
        headlines=[Headline(f"accuracy of the nearest neighbour, {name}", f"{scores[name]:.2%}") for name in found],
        sections=[
            Section(
                "Neighbours",
                text=f"Of the {config.neighbors} nearest training images by pixels, {same:.0%} are also among the "
                "nearest by features. The test images are those whose neighbours differ most in their classes.",
                figure=figures.rows_of_images({name: np.stack(images) for name, images in rows.items()}),
                alt="Test images with their nearest training images, by pixels and by features",
                caption="The first image of each row is the test image, the others are its nearest training images, "
                "the nearest first.",
                table=Table(["space", "accuracy"], [[name, f"{score:.2%}"] for name, score in scores.items()]),
            ),
            Section("Config", code=configs.to_json(config)),
            Section("How to reproduce", code=command(f"--workdir={directory}")),
        ],
        footer=f"Written by cnn_jax. The network is in the folder 'network' within {directory.name}.",
    )
    page.write(directory)


def _most_different(
    pixels: np.ndarray, features: np.ndarray, train_labels: np.ndarray, labels: np.ndarray, count: int
) -> list[int]:
    """The test images for which more neighbours by features than by pixels have the right class."""
    right = [(train_labels[near] == labels[:, None]).sum(axis=1) for near in (features, pixels)]
    return np.argsort(right[1] - right[0], kind="stable")[:count].tolist()
