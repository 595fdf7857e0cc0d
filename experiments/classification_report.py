"""The page a classification run leaves behind: its score, how it learned, what it confuses and what it sees."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cnn_jax import config as configs
from cnn_jax import data, geometry
from cnn_jax import train as training
from cnn_jax.report import figures
from cnn_jax.report.page import Headline, Page, Section, Table

if TYPE_CHECKING:
    from experiments.classification import Classifier


def write(directory: Path, classifier: "Classifier", trained: training.Trained, test_set: data.Dataset) -> Path:
    """Writes ``report.html`` and ``figures/`` of a finished run.

    Args:
      directory: the run's folder.
      classifier: the network.
      trained: its last state and scores.
      test_set: what its predictions are shown on.

    Returns:
      The page's path.
    """
    config = classifier.config
    state = training.evaluated(trained.state)
    probabilities = classifier.probabilities(state, test_set.images)
    predictions = probabilities.argmax(axis=-1)
    sections = [
        _learning_curves(directory),
        _confusion(test_set, predictions),
        *_members(trained),
        *_first_filters(classifier, classifier.first(state)),
        _feature_maps(classifier, state, test_set, predictions),
        _mistakes(test_set, predictions, probabilities),
        _network(classifier),
        Section("Config", code=configs.to_json(config)),
        _reproduction(directory),
    ]
    epochs = training.read_records(directory)[-1]["epoch"]  # not the config's, which may say when it ends otherwise
    page = Page(
        title=f"{config.model.name} on {config.data.name}",
        subtitle=f"{len(test_set):,} test images, {epochs:.4g} epochs, seed {config.seed}",
        headlines=_headlines(classifier, trained, test_set),
        sections=sections,
        footer=f"Written by cnn_jax. Everything this page shows is in the folder {directory.name}.",
    )
    return page.write(directory)


def _headlines(classifier: "Classifier", trained: training.Trained, test_set: data.Dataset) -> list[Headline]:
    reference, networks = classifier.config.reference, classifier.config.ensemble
    accuracy = trained.scores["test/accuracy"]
    wrong = round((1 - accuracy) * len(test_set))
    return [
        Headline(
            "test error",
            f"{1 - accuracy:.2%}",
            reference=f"{1 - reference.accuracy:.2%}" if reference.accuracy else None,
            reference_source=reference.source or None,
            note=f"{wrong:,} of {len(test_set):,} wrong, after the last step",
        ),
        Headline("test accuracy", f"{accuracy:.2%}"),
        Headline(
            "parameters",
            f"{geometry.parameter_count(classifier.abstract_model):,}",
            note=f"in each of {networks} networks" if networks > 1 else None,
        ),
    ]


def _learning_curves(directory: Path) -> Section:
    metrics = [training.Metric("loss", better="lower"), training.Metric("accuracy", better="higher", unit="%")]
    return Section(
        "Learning curves",
        figure=figures.learning_curves(training.read_records(directory), metrics=metrics),
        alt="Loss and accuracy of the training, validation and test sets over the epochs",
        caption="Training scores are averages over the steps of one compiled call, taken while the network changes; "
        "the others are exact over their whole set.",
    )


def _confusion(test_set: data.Dataset, predictions: np.ndarray) -> Section:
    classes = len(test_set.class_names)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (test_set.labels, predictions), 1)
    return Section(
        "Confusion matrix",
        figure=figures.confusion_matrix(counts, test_set.class_names),
        alt="How often each true class was predicted as each class on the test set",
        caption="Rows are the true classes, columns the predicted ones.",
    )


def _members(trained: training.Trained) -> list[Section]:
    """The score of each network of an ensemble, and of them together; nothing for a single one."""
    prefix = "test/accuracy_"
    each = {name.removeprefix(prefix): score for name, score in trained.scores.items() if name.startswith(prefix)}
    if not each:
        return []
    named = {f"network {number}": score for number, score in each.items()}
    named |= {"mean of the networks": float(np.mean(list(each.values())))}
    named |= {"averaged prediction": trained.scores["test/accuracy"]}
    rows = [[name, f"{score:.2%}", f"{1 - score:.2%}"] for name, score in named.items()]
    return [Section("Ensemble", table=Table(["test set", "accuracy", "error"], rows))]


def _first_filters(classifier: "Classifier", state: training.TrainState) -> list[Section]:
    """The kernel of the first layer that has one over space; none for networks without convolutions."""
    model = classifier.model(state.params, state.model_state)
    for row in geometry.trace(classifier.abstract_model, tuple(classifier.config.input_shape)):
        kernel = getattr(model.layer(row.name), "kernel", None)
        if kernel is not None and kernel.ndim == 4:
            return [
                Section(
                    "First-layer filters",
                    figure=figures.filters(np.asarray(kernel[...])),
                    alt=f"The learned filters of layer {row.name}",
                    caption=f"What layer {row.name} looks for: light where a filter wants light.",
                )
            ]
    return []


def _feature_maps(
    classifier: "Classifier", state: training.TrainState, test_set: data.Dataset, predictions: np.ndarray
) -> Section:
    chosen = int(np.argmax(predictions == test_set.labels))  # the first one that it gets right
    image, name = test_set.images[chosen], test_set.class_names[test_set.labels[chosen]]
    activations = classifier.activations(state, image[None])
    network_input = np.asarray(classifier.preprocess(image[None]))[0]
    return Section(
        "Through the network",
        figure=figures.feature_maps(
            network_input, {name: array[0] for name, array in activations.items()}, class_names=test_set.class_names
        ),
        alt=f"The activations of every layer for one test image of class {name}",
        caption=f"Test image {chosen}, a {name}, and what every layer makes of it.",
    )


def _mistakes(test_set: data.Dataset, predictions: np.ndarray, probabilities: np.ndarray) -> Section:
    return Section(
        "Worst mistakes",
        figure=figures.mistakes(test_set.images, test_set.labels, predictions, probabilities, test_set.class_names),
        alt="The test images whose true class the network held least likely, with its probabilities",
        caption="The test images that the network was most wrong about.",
    )


def _network(classifier: "Classifier") -> Section:
    rows = geometry.trace(classifier.abstract_model, tuple(classifier.config.input_shape))
    return Section(
        "Network",
        text=geometry.LEGEND,
        table=Table(geometry.HEADINGS, [geometry.cells(row) for row in [*rows, geometry.total(rows)]]),
    )


def _reproduction(directory: Path) -> Section:
    environment = json.loads((directory / "environment.json").read_text())
    versions = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    devices = ", ".join(environment["devices"])
    commit = environment["commit"] or "not a git clone"
    return Section(
        "How to reproduce",
        text=f"Python {environment['python']}, {versions}; {devices}, {environment['cpu_count']} CPU cores; commit "
        f"{commit}. The same command on the same machine ends with the same bits.",
        code=" ".join(["python", *environment["command"]]),
    )
