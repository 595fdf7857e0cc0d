"""Baselines: simple classifiers, early networks and other methods, compared on one data set in one table.

Each network is a classification run in its own folder. The other methods are from scikit-learn: nearest neighbours on
the pixels, a support vector machine on their principal components, and linear classifiers and a support vector machine
on the pixels or on histograms of oriented gradients (:func:`cnn_jax.filters.hog`).
"""

import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Shaped
from ml_collections import ConfigDict
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC, LinearSVC

from cnn_jax import config as configs
from cnn_jax import data, filters, geometry
from cnn_jax import train as training
from cnn_jax.errors import UsageError, nearest
from cnn_jax.experiments import series
from cnn_jax.experiments.series import evaluate, explain, explore, predict  # noqa: F401  part of an experiment
from cnn_jax.report.figures import errors
from cnn_jax.report.formatting import format_shares
from cnn_jax.report.page import Headline, Page, Section, Table
from cnn_jax.runtime.command import command
from cnn_jax.runtime.files import write_json
from cnn_jax.runtime.terminal import say
from cnn_jax.schema import Schema, with_keys
from cnn_jax.tasks import default_config as task_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks import schema as task_schema
from cnn_jax.tasks.sets import load_splits

_AT_ONCE = 1000  # images whose histograms are computed together


class Baseline(NamedTuple):
    """A classifier of scikit-learn."""

    make: Callable[[], Any]
    features: str = "pixels"
    """What it is given of each image: ``'pixels'`` or ``'hog'``."""


# On all 784 pixels the support vector machine took over three minutes; 50 components hold 82 % of the variance.
METHODS: dict[str, Baseline] = {
    "3 nearest neighbours": Baseline(lambda: KNeighborsClassifier(n_neighbors=3)),
    "support vector machine on 50 components": Baseline(
        lambda: make_pipeline(PCA(50, random_state=0), SVC(C=5.0, gamma=0.05, cache_size=1000))
    ),
    **{
        f"{title} on {'HOG' if features == 'hog' else features}": Baseline(make, features)
        for features in ("pixels", "hog")
        for title, make in {
            "logistic regression": lambda: LogisticRegression(C=1.0, tol=1e-3, max_iter=500),
            "linear support vector machine": lambda: LinearSVC(C=0.1, tol=1e-2, random_state=0),
        }.items()
    },
    "support vector machine on 100 components of HOG": Baseline(
        lambda: make_pipeline(PCA(100, random_state=0), SVC(C=5.0, cache_size=1000)), "hog"
    ),
}


def default_config() -> ConfigDict:
    """Every key: those of classification, shared by all networks, and what is different for each."""
    keys = {
        "experiment": "baselines",
        "networks": {},  # title -> changes to the config, keys with dots written as nested groups
        "seeds": {},  # title -> how many runs of a network, with the config's seed and the next ones; 1 by default
        "methods": ("3 nearest neighbours", "support vector machine on 50 components"),  # of METHODS, which are more
        "hog": {"orientations": 9, "pixels_per_cell": 4, "cells_per_block": 2, "convention": "paper"},  # filters.hog
        "published": {},  # title -> the published test error, a share of 1
        "few": 1000,  # training examples of the logistic regression whose training accuracy is asked; 0 for none
    }
    return with_keys(task_config("classification"), keys)


def schema(config: ConfigDict) -> Schema:
    """What a config may contain."""
    return Schema(default_config(), task_schema("classification").examples)


def train(config: ConfigDict, directory: Path, *, profile: int = 0) -> None:
    """Trains the runs that are not finished, and writes ``result.json`` and ``report.html``."""
    for title in config.methods:
        if title not in METHODS:
            raise UsageError(f"methods={title!r} is unknown; {nearest(title, METHODS)}")
    started = time.perf_counter()
    with training.open_workdir(directory, config):
        results: dict[str, dict[str, Any]] = {}
        for title in config.networks:
            own = network_runs(config, title)
            folders = [directory / f"{series.file_name(title)}-{run.seed}" for run in own]
            scores = [series.finished(*pair)["scores"] for pair in zip(own, folders, strict=True)]
            errors_of_runs = [1 - score["test/accuracy"] for score in scores]
            network = runs.untrained(own[0]).abstract_model
            results[title] = {"errors": errors_of_runs, "parameters": geometry.parameter_count(network)}
        features: dict[str, tuple[Any, Any]] = {}
        for title in config.methods:
            results[title] = _method(config, title, directory / f"{series.file_name(title)}.json", features)
        few = _few(config, directory / "logistic-regression-of-few") if config.few else None
        write_json(directory / "result.json", {"results": results, "training_accuracy_of_few": few})
        _write_report(config, directory, results, few)
    for title, result in results.items():
        say(f"{title:28} {format_shares(result['errors'])} test error")
    say(f"in {time.perf_counter() - started:.1f} s; the runs are in {directory}; open {directory / 'report.html'}")


def summary(config: ConfigDict, *, output: str | None = None) -> None:
    """Prints the tables of the networks, and writes each to its own file: ``x-LeNet-5.csv`` for ``x.csv``."""
    for title in config.networks:
        own = output and str(Path(output).with_stem(f"{Path(output).stem}-{series.file_name(title)}"))
        runs.summary(network_runs(config, title)[0], output=own)


def network_runs(config: ConfigDict, title: str) -> list[ConfigDict]:
    """The runs of one network, one for each seed."""
    changes = series.flattened(config.networks[title])
    seeds = range(config.seed, config.seed + config.seeds.get(title, 1))
    return [series.variation(config, {**changes, "seed": seed}) for seed in seeds]


def _method(config: ConfigDict, title: str, path: Path, features: dict[str, tuple[Any, Any]]) -> dict[str, Any]:
    """The test error of a scikit-learn method, kept in a file so that a continued series does not repeat it.

    Args:
      config: Of the series.
      title: Of the method.
      path: The file.
      features: What methods are given of the training and the test images, by kind; it is computed once for all.
    """
    if path.is_file():
        return json.loads(path.read_text())
    say(f"\n{title} on {config.data.name}")
    train_set, test_set = load_splits(config, [config.data.train, config.data.test])
    if not isinstance(train_set, data.Dataset) or not isinstance(test_set, data.Dataset):
        raise UsageError(f"{title} needs its examples in memory; set data.loading='memory'")
    started, method = time.perf_counter(), METHODS[title]
    if method.features not in features:
        train_features = _features(config, method, train_set.images)
        features[method.features] = train_features, _features(config, method, test_set.images)
    seen, unseen = features[method.features]
    accuracy = float(method.make().fit(seen, train_set.labels).score(unseen, test_set.labels))
    result = {"errors": [1 - accuracy], "parameters": 0, "seconds": time.perf_counter() - started}
    say(f"test accuracy {accuracy:.2%}, error {1 - accuracy:.2%}, in {result['seconds']:.1f} s")
    write_json(path, result)
    return result


def _features(
    config: ConfigDict, method: Baseline, images: Shaped[np.ndarray, "n height width channels"]
) -> Float[np.ndarray, "n features"]:
    """What a method is given of images: values from 0 to 1, or their histograms of oriented gradients."""
    if method.features == "pixels":
        return images.reshape(len(images), -1) / np.float32(255)
    histograms = jax.jit(functools.partial(filters.hog, **config.hog.to_dict()))
    parts = (images[first : first + _AT_ONCE] for first in range(0, len(images), _AT_ONCE))
    return np.concatenate([np.asarray(histograms(part / np.float32(255))).reshape(len(part), -1) for part in parts])


def _few(config: ConfigDict, directory: Path) -> float:
    """The training accuracy that logistic regression reaches on few examples."""
    few = {
        "model.name": "logistic_regression",
        "data.train_part": (0, config.few),
        "data.validation": f"{config.data.train}[:{config.few}]",
        "batch_size": min(config.batch_size, config.few),
        "duration": "5000 steps",
        "evaluate_every": "5000 steps",
        "optimizer.schedule": "constant",
        "optimizer.weight_decay": 0.0,
    }
    run = series.variation(config, few)
    return series.finished(run, directory)["scores"]["validation/accuracy"]


def _write_report(config: ConfigDict, directory: Path, results: dict[str, dict[str, Any]], few: float | None) -> None:
    published = config.published
    means = {title: statistics.fmean(result["errors"]) for title, result in results.items()}
    results = dict(sorted(results.items(), key=lambda item: -means[item[0]]))
    best = min(means, key=means.__getitem__)
    rows = [
        [
            title,
            f"{result['parameters']:,}" if result["parameters"] else "",
            format_shares(result["errors"]),
            str(len(result["errors"])) if title in config.networks else "",
            f"{published[title]:.2%}" if title in published else "",
        ]
        for title, result in results.items()
    ]
    sections = [
        Section(
            "Test errors",
            figure=errors([(title, means[title], published.get(title)) for title in results]),
            alt="Test error of each method, beside the published one",
            table=Table(["method", "parameters", "test error", "seeds", "published"], rows),
        ),
    ]
    if few is not None:
        because = f": {784 * 10 + 10:,} parameters separate {config.few:,} points by planes" if few == 1 else ""
        sections.append(
            Section(
                "Two questions",
                text="How many parameters has logistic regression for 28x28 pixels and ten classes? "
                f"784 x 10 + 10 = {784 * 10 + 10:,}, as the table counts it.\n\n"
                f"Which training accuracy does it reach on {config.few:,} digits? {few:.1%}{because}.",
            )
        )
    page = Page(
        title=f"Baselines on {config.data.name}",
        subtitle=f"{len(results)} methods; mean ± standard deviation where there are several seeds",
        headlines=[
            Headline(f"test error of {best}", f"{means[best]:.2%}"),
            *([Headline(f"training accuracy on {config.few:,}, logistic regression", f"{few:.1%}")] if few else []),
        ],
        sections=[
            *sections,
            Section("Config", code=configs.to_json(config)),
            Section("How to reproduce", code=command(f"--workdir={directory}")),
        ],
        footer=f"Written by cnn_jax. Each network's run is in a folder of its own within {directory.name}.",
    )
    page.write(directory)
