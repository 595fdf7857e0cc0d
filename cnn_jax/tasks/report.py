"""The page that a run leaves behind: its scores, how it learned, what the task shows, and what the network sees."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax import data, geometry
from cnn_jax import train as training
from cnn_jax.report import figures
from cnn_jax.report.page import Headline, Page, Section, Table
from cnn_jax.tasks.classification import Classification
from cnn_jax.tasks.examples import shown, titles_of
from cnn_jax.tasks.labelled import Labelled
from cnn_jax.tasks.network import TaskNetwork
from cnn_jax.tasks.responses import Explained, explained_mistakes, fantasies, first_kernel, hierarchy
from cnn_jax.tasks.saved import load_run, saved_steps
from cnn_jax.tasks.sets import ExampleSet, make_augmentation, take, warnings_about
from cnn_jax.tasks.task import Results

_SHOWN = 8  # training images


def write(directory: Path, network: TaskNetwork, trained: training.Trained, sets: Mapping[str, ExampleSet]) -> Path:
    """Writes ``report.html`` and ``figures/`` of a finished run.

    Args:
      directory: The run's folder.
      network: The network and its task.
      trained: Its last state and scores.
      sets: By role, of which ``train`` and ``test`` are shown.

    Returns:
      The page's path.
    """
    config, task, test_set = network.config, network.task, sets["test"]
    shown = data.sample(test_set)
    state = training.evaluated(trained.state)
    inputs = np.asarray(network.network_input(network.drawn(take(shown, range(len(shown))))))
    predictions, explained = network.predict(state, inputs), Explained.of(network, state)
    records = training.read_records(directory)
    results = Results(
        config,
        shown,
        len(test_set),
        predictions,
        trained.scores,
        explained,
        train_set=data.sample(sets["train"]),
        records=records,
        history=_history(config, directory),
    )
    sections = [
        *(Section("Warning", text=f"{warning}.") for warning in warnings_about(sets)),
        _learning_curves(records, network),
        *_optimisation(records, network),
        *task.sections(results),
        *_members(network, trained),
        *_training_images(network, trained.state, sets["train"]),
        *_first_filters(network, network.first(state)),
        *_feature_maps(network, state, results),
        *_responses(network, results),
        _table(network),
        *_read(sets),
        Section("Config", code=configs.to_json(config)),
        _reproduction(directory),
    ]
    epochs = records[-1]["epoch"]  # not the config's, since a run may end early
    page = Page(
        title=f"{config.model.name} on {_name(config.data.name)}",
        subtitle=f"{len(test_set):,} test {test_set.input_kind}s, {epochs:.4g} epochs, seed {config.seed}",
        headlines=[*task.headlines(results), _parameters(network)],
        sections=sections,
        footer=f"Written by cnn_jax. Everything this page shows is in the folder {directory.name}.",
    )
    return page.write(directory)


def _history(config: ConfigDict, directory: Path) -> dict[int, Callable[[], Explained]]:
    """Step -> reads the network of the checkpoint that was saved there, where the config keeps several."""

    def reader(step: int) -> Callable[[], Explained]:
        return lambda: Explained.of(*load_run(config, directory, checkpoint=step))

    return {step: reader(step) for step in (saved_steps(directory) if config.get("keep_history", 0) else [])}


def _name(data: str) -> str:
    """The name of a data set; of a function in a file, such as ``'path/to/file.py:name'``, its own."""
    return data.rpartition(".py:")[2]


def _read(sets: Mapping[str, ExampleSet]) -> list[Section]:
    """What was found where the examples were read, such as boxes that are not valid; nothing if nothing is said."""
    reports = dict.fromkeys(found.report for found in sets.values() if found.report)
    return [Section("Data", code="\n".join(reports))] if reports else []


def _parameters(network: TaskNetwork) -> Headline:
    count = geometry.parameter_count(network.abstract_model)
    networks = network.config.ensemble
    return Headline("parameters", f"{count:,}", note=f"in each of {networks} networks" if networks > 1 else None)


def _learning_curves(records: Sequence[Mapping[str, Any]], network: TaskNetwork) -> Section:
    metrics = network.task.metrics(network.config)[:2]
    names = " and ".join(metric.name for metric in metrics)
    return Section(
        "Learning curves",
        figure=figures.learning_curves(records, metrics=metrics),
        alt=f"{names} of the training, validation and test sets over the epochs",
        caption="Training scores are averages over the steps of one compiled call, taken while the network changes; "
        "the others are exact over their whole set.",
    )


def _optimisation(records: Sequence[Mapping[str, Any]], network: TaskNetwork) -> list[Section]:
    """The learning rate and the norms; nothing for runs of earlier versions, which did not record them."""
    if not any(name in row for row in records for name in figures.OPTIMISATION):
        return []
    averaged = "the steps of one compiled call" + (" and over the networks" if network.config.ensemble > 1 else "")
    return [
        Section(
            "Optimisation",
            figure=figures.optimisation(records),
            alt="the learning rate, the norm of the gradient and the norm of the parameters over the epochs",
            caption="Euclidean norms of the gradient, before any clipping, and of the parameters that are trained. "
            f"Values are averages over {averaged}.",
        )
    ]


def _members(network: TaskNetwork, trained: training.Trained) -> list[Section]:
    """The score of each network of an ensemble, and of them together; nothing for a single one."""
    metric, networks = network.task.metrics(network.config)[0], network.config.ensemble
    if networks == 1:
        return []
    each = {number: trained.scores[f"test/{metric.name}_{number}"] for number in range(1, networks + 1)}
    named = {f"network {number}": score for number, score in each.items()}
    named |= {"mean of the networks": float(np.mean(list(each.values())))}
    named |= {"averaged prediction": trained.scores[f"test/{metric.name}"]}
    rows = [[name, metric.format(score)] for name, score in named.items()]
    return [Section("Ensemble", table=Table(["test set", metric.name], rows))]


def _training_images(network: TaskNetwork, state: training.TrainState, train_set: ExampleSet) -> list[Section]:
    """Some training images, as they are and as they were augmented in the first step; other inputs as they are."""
    if train_set.input_kind != "image":
        return [_training_examples(data.sample(train_set), train_set.input_kind)]
    chosen = np.linspace(0, len(train_set) - 1, min(_SHOWN, len(train_set))).round().astype(int).tolist()
    batch = take(train_set, chosen)
    name, calls = train_set.input_name, network.config.data.augment
    rows = {"as stored": batch[name]}
    if calls:
        augmentation = make_augmentation(network.config, train_set, network.preprocess)
        key = training.stream_key(network.first(state).key, "augment")
        augmented = jax.jit(lambda key, batch: augmentation(key, batch, step=0, epoch=0)[name])
        rows["augmented"] = np.asarray(augmented(key, batch))
    return [
        Section(
            "Training images",
            figure=figures.rows_of_images(rows),
            alt=f"{len(chosen)} training images" + (", and what augmentation makes of them" if calls else ""),
            caption=f"Augmented by {', '.join(calls)}." if calls else "Training images are not augmented.",
        )
    ]


def _training_examples(found: data.Dataset, kind: str) -> Section:
    """Some training examples that are no images, of different classes where there are classes."""
    chosen = np.linspace(0, len(found) - 1, min(_SHOWN, len(found))).round().astype(int).tolist()
    labels = [field for field in found.spec.values() if field.kind == "label" and not field.count]
    if labels:
        firsts = np.unique(found.labels, return_index=True)[1]
        chosen = sorted(firsts[: max(_SHOWN, 1)].tolist())
    return Section(
        f"Training {kind}s",
        alt=f"{len(chosen)} training {kind}s",
        caption=f"Training {kind}s, as they are stored"
        + ("; unknown words and padding are not there." if kind == "text" else "."),
        **shown(found, chosen, titles_of(found, chosen)),
    )


def _first_filters(network: TaskNetwork, state: training.TrainState) -> list[Section]:
    """The kernel of the first layer with one over an image or a signal; none for networks without convolutions."""
    if len(network.input_shape) not in (2, 3):
        return []
    found = first_kernel(network.model(state.params, state.model_state), network.input_shape)
    if found is None:
        return []
    layer, kernel = found
    return [
        Section(
            "First-layer filters",
            figure=figures.filters(kernel),
            alt=f"The learned filters of layer {layer}",
            caption=f"What layer {layer} looks for: light where a filter wants light.",
        )
        if kernel.ndim == 4
        else Section(
            "First-layer filters",
            figure=figures.signals({f"filter {n}": kernel[..., n] for n in range(min(kernel.shape[-1], _SHOWN))}),
            alt=f"The learned filters of layer {layer}",
            caption=f"The first filters of layer {layer}: a signal of this shape has the largest response.",
        )
    ]


def _feature_maps(network: TaskNetwork, state: training.TrainState, results: Results) -> list[Section]:
    """One test image or signal and the activations that can be drawn: those with axes of space, and vectors."""
    if results.test_set.input_kind not in ("image", "signal") or network.task.drawn_shape:
        return []
    chosen, what = network.task.typical(results)
    image = network.framed(results.test_set.inputs[chosen][None])[0]
    activations = {name: array[0] for name, array in network.activations(state, image[None]).items()}
    network_input = np.asarray(network.preprocess(image[None]))[0]
    return [
        Section(
            "Through the network",
            figure=figures.feature_maps(
                network_input,
                {name: array for name, array in activations.items() if array.ndim in (1, 3, network_input.ndim)},
                class_names=network.task.outputs,
            ),
            alt=f"The activations of every layer for {what}",
            caption=f"{what[0].upper()}{what[1:]}, and what every layer makes of it.",
        )
    ]


def _responses(network: TaskNetwork, results: Results) -> list[Section]:
    """What channels and classes respond to, and why the worst mistakes were made, if the config asks for it."""
    config, task = network.config, network.task
    # Runs of earlier versions lack the key.
    if not config.get("report", {}).get("explain", False) or len(network.input_shape) != 3:
        return []
    explained = results.explained
    sections = hierarchy(explained, network.framed(results.test_set.inputs))
    if isinstance(task, Labelled):
        sections += fantasies(explained)
    if isinstance(task, Classification):
        sections += explained_mistakes(explained, results)
    return sections


def _table(network: TaskNetwork) -> Section:
    rows = geometry.trace(network.abstract_model, network.input_shape)
    return Section(
        "Network",
        text=geometry.LEGEND,
        table=Table(geometry.FOLDED_HEADINGS, [geometry.folded_cells(row) for row in [*rows, geometry.total(rows)]]),
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
