"""Image classification: a network, softmax cross-entropy, accuracy.

``launch.py`` calls one function per mode: :func:`train`, :func:`evaluate`, :func:`predict`, :func:`summary`. What a
trained run shows of itself is in :mod:`experiments.classification_report`.
"""

import csv
import dataclasses
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich
from flax import nnx
from jaxtyping import Array, Float, Key, PyTree
from ml_collections import ConfigDict
from rich.table import Table

from cnn_jax import data, geometry, models, nn, ops
from cnn_jax import train as training
from cnn_jax.data.pictures import find_pictures, read_picture
from cnn_jax.errors import UsageError
from cnn_jax.files import write_json, write_whole
from cnn_jax.report import summary as network_summary


def default_config() -> ConfigDict:
    """Every key of a classification config, with a default that config files override."""
    return ConfigDict(
        {
            "experiment": "classification",
            "seed": 0,
            "input_shape": (32, 32, 1),
            "model": {"name": "lenet_5_modern", "width": 1.0},
            "data": {
                "name": "digits",
                "train": "train",
                "validation": "validation",  # chooses the best checkpoint; empty for none
                "test": "test",
                "data_dir": "",  # where TFDS looks; empty for its own default
                "resize": "bilinear",
            },
            "batch_size": 128,
            "epochs": 20,
            "evaluate_every": 1,  # epochs
            "steps_per_call": 100,
            "optimizer": {
                "name": "nesterov",
                "learning_rate": 0.05,
                "momentum": 0.9,
                "weight_decay": 0.0,
                "schedule": "cosine",
                "warmup_epochs": 0.0,
                "end_factor": 0.0,
            },
            "label_smoothing": 0.0,
            "reference": {"accuracy": 0.0, "source": ""},  # shown beside the score; 0 for none
        }
    )


class Classifier:
    """A network as pure functions of its parameters, with the preprocessing that belongs to it.

    Args:
      config: the run's config.
      preprocess: raw images to network inputs.
      class_names: one per output.
    """

    def __init__(self, config: ConfigDict, preprocess: data.Preprocess, class_names: Sequence[str]) -> None:
        self.config = config
        self.preprocess = preprocess
        self.class_names = tuple(class_names)
        self.abstract_model = nnx.eval_shape(lambda: self.create(jax.random.key(0)))
        self._graph = nnx.split(self.abstract_model, nnx.Param, ...)[0]

    def create(self, key: Key[Array, ""]) -> nn.Sequence:
        """The network with freshly drawn parameters."""
        return models.create(
            self.config.model.name,
            num_classes=len(self.class_names),
            input_shape=tuple(self.config.input_shape),
            width=self.config.model.width,
            rngs=nnx.Rngs(key),
        )

    def model(self, params: PyTree, model_state: PyTree) -> nn.Sequence:
        """The network with these parameters."""
        return nnx.merge(self._graph, params, model_state)

    def apply(
        self, params: PyTree, model_state: PyTree, images: Array, *, train: bool = False, **options: Any
    ) -> tuple[Any, PyTree]:
        """Runs the network on raw images; returns its output and its new state."""
        model = self.model(params, model_state)
        output = model(self.preprocess(images), train=train, **options)
        return output, nnx.state(model, nnx.Not(nnx.Param))

    def init(self, key: Key[Array, ""], optimizer: optax.GradientTransformation) -> training.TrainState:
        """The state before the first step."""
        model = self.create(training.stream_key(key, "params"))
        params, model_state = nnx.state(model, nnx.Param), nnx.state(model, nnx.Not(nnx.Param))
        return training.create_state(key, params, model_state, optimizer)

    def loss(
        self, params: PyTree, model_state: PyTree, batch: training.Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[training.Metrics, PyTree]]:
        """What training minimises: the mean cross-entropy of a batch with its smoothed labels.

        The metrics have the plain cross-entropy, to be compared with that of the other sets.
        """
        logits, model_state = self.apply(params, model_state, batch["image"], train=True, rngs=nnx.Rngs(key))
        smoothing = self.config.label_smoothing
        objective = ops.softmax_cross_entropy(logits, batch["label"], label_smoothing=smoothing).mean()
        losses = ops.softmax_cross_entropy(logits, batch["label"])
        return objective, (_metrics(losses, logits, batch["label"], jnp.ones_like(losses)), model_state)

    def evaluate(self, state: training.TrainState, batch: training.Batch) -> training.Metrics:
        """Loss and accuracy over the part of a batch where the mask is 1."""
        logits, _ = self.apply(state.params, state.model_state, batch["image"])
        losses = ops.softmax_cross_entropy(logits, batch["label"])
        return _metrics(losses, logits, batch["label"], batch["mask"])

    def probabilities(self, state: training.TrainState, images: np.ndarray) -> np.ndarray:
        """Class probabilities (n, classes) of raw images, computed batch by batch."""
        forward = jax.jit(lambda images: jax.nn.softmax(self.apply(state.params, state.model_state, images)[0]))
        indices, mask = data.padded_batches(len(images), min(len(images), 500))
        rows = np.concatenate([forward(images[batch]) for batch in np.asarray(indices)])
        return rows[np.asarray(mask).reshape(-1) > 0]

    def activations(self, state: training.TrainState, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Every named intermediate of the network on raw images, in order."""
        forward = jax.jit(lambda images: self.apply(state.params, state.model_state, images, return_activations=True))
        (_, activations), _ = forward(images)
        return jax.device_get(activations)


def train(config: ConfigDict, directory: Path) -> None:
    """Trains to the end, or on from the last checkpoint, and writes ``result.json`` and ``report.html``."""
    from experiments import classification_report  # matplotlib is needed here alone, and takes its time to import

    started = time.perf_counter()
    sets = load_sets(config)
    preprocess = data.Preprocess.measure(sets["train"], tuple(config.input_shape), resize=config.data.resize)
    classifier = Classifier(config, preprocess, sets["train"].class_names)
    plan = make_plan(config, len(sets["train"]))
    optimizer = make_optimizer(config, plan)
    task = training.Task(
        init=lambda key: classifier.init(key, optimizer),
        step=training.make_step(classifier.loss, optimizer),
        evaluate=classifier.evaluate,
        train_examples=examples(sets["train"]),
        eval_examples={role: examples(dataset) for role, dataset in sets.items() if role != "train"},
        monitor="validation/accuracy" if "validation" in sets else "test/accuracy",
    )
    with training.Workdir(directory, config):
        write_json(directory / "data.json", describe_data(sets, preprocess))
        command = f"python launch.py --workdir={directory}"
        trained = training.train(task, plan, seed=config.seed, directory=directory, how_to_continue=command)
        result = {
            "step": plan.total_steps,
            "scores": trained.scores,
            "parameters_sha256": training.digest(trained.state.params),
        }
        write_json(directory / "result.json", result)
        classification_report.write(directory, classifier, trained, sets["test"])
    accuracy = trained.scores["test/accuracy"]
    print(f"test accuracy {accuracy:.2%}, error {1 - accuracy:.2%}, in {time.perf_counter() - started:.1f} s")
    print(f"the run is in {directory}; open {directory / 'report.html'}")


def evaluate(config: ConfigDict, directory: Path, *, checkpoint: str) -> None:
    """Prints the scores of a checkpoint on the full test set."""
    test_set = _load(config, config.data.test)
    classifier, state = load_run(config, directory, checkpoint=checkpoint)
    score = training.Evaluations(classifier.evaluate, {"test": examples(test_set)}, batch_size=config.batch_size)
    scores = score(state)
    accuracy = scores["test/accuracy"]
    _print_table(
        f"{directory}, {checkpoint} checkpoint",
        [
            {
                "step": f"{int(state.step)}",
                "test images": f"{len(test_set):,}",
                "loss": f"{scores['test/loss']:.4f}",
                "accuracy": f"{accuracy:.2%}",
                "error": f"{1 - accuracy:.2%}",
            }
        ],
    )


def predict(config: ConfigDict, directory: Path, *, images: Sequence[str], output: str | None, checkpoint: str) -> None:
    """Prints class and probabilities of the user's own pictures, and writes them to a .csv file if one is named."""
    if not images:
        raise UsageError("--mode=predict needs --images=<picture or folder>, several separated by commas")
    if output is not None and Path(output).suffix != ".csv":
        raise UsageError(f"--output={output} must end in .csv")
    paths = find_pictures(images)
    classifier, state = load_run(config, directory, checkpoint=checkpoint)
    description = _read_description(directory)
    height, width, channels = description["image_shape"]
    framed = {"ink_extent": description["ink_extent"], "invert": "auto" if description["ink_extent"] else False}
    pictures = [read_picture(path, height=height, width=width, channels=channels, **framed) for path in paths]
    probabilities = classifier.probabilities(state, np.stack([picture.pixels for picture in pictures]))
    rows = []
    for path, picture, row in zip(paths, pictures, probabilities, strict=True):
        best, *others = np.argsort(-row, kind="stable")[:3]
        rows.append(
            {
                "picture": str(path),
                "class": classifier.class_names[best],
                "probability": f"{row[best]:.1%}",
                "then": ", ".join(f"{classifier.class_names[k]} {row[k]:.1%}" for k in others),
                "assumed": picture.assumed,
            }
        )
    _print_table(f"{directory}, {checkpoint} checkpoint", rows)
    if output is not None:
        write_whole(Path(output), _csv(paths, probabilities, classifier.class_names))
        print(f"wrote {output}")


def summary(config: ConfigDict, *, output: str | None = None) -> None:
    """Prints the network's table.

    Args:
      config: names the network.
      output: a file to write it to as well, see :func:`cnn_jax.report.summary.write`.
    """
    if output is not None:
        network_summary.check_path(output)
    shape = tuple(config.input_shape)
    class_names = _load(config, config.data.test).class_names
    as_is = data.Preprocess(shape, mean=(0.0,) * shape[-1], std=(1.0,) * shape[-1])
    classifier = Classifier(config, as_is, class_names)
    title = f"{config.model.name}, input {'x'.join(map(str, shape))}, {len(class_names)} classes"
    rows = geometry.trace(classifier.abstract_model, shape)
    geometry.print_table(rows, title=title)
    if output is not None:
        network_summary.write(output, rows, title=title, input_shape=shape)
        print(f"wrote {output}")


def load_sets(config: ConfigDict) -> dict[str, data.Dataset]:
    """The sets that a config names, by their role: train, test, and validation if there is one."""
    roles = ("train", "validation", "test") if config.data.validation else ("train", "test")
    return {role: _load(config, config.data[role]) for role in roles}


def load_run(config: ConfigDict, directory: Path, *, checkpoint: str) -> tuple[Classifier, training.TrainState]:
    """A trained run from its folder.

    Args:
      config: of the network that the checkpoint must hold.
      directory: the run's folder.
      checkpoint: ``'latest'`` or ``'best'``.

    Raises:
      UsageError: the folder holds no checkpoint, or a damaged one, or one of another network.
    """
    description = _read_description(directory)
    preprocess = data.Preprocess(**_tuples(description["preprocess"]))
    classifier = Classifier(config, preprocess, description["class_names"])
    optimizer = make_optimizer(config, make_plan(config, description["examples"]["train"]))
    template = jax.eval_shape(lambda key: classifier.init(key, optimizer), jax.random.key(0))
    with training.Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore(template, step=checkpoints.best_step() if checkpoint == "best" else None)
    if restored is None:
        raise UsageError(
            f"{directory} holds no complete checkpoint; train first: python launch.py --workdir={directory}"
        )
    return classifier, restored.state


def make_plan(config: ConfigDict, num_examples: int) -> training.Plan:
    """How long a config trains on a set of this many examples."""
    return training.Plan(
        batch_size=config.batch_size,
        num_examples=num_examples,
        epochs=config.epochs,
        evaluate_every=config.evaluate_every,
        steps_per_call=config.steps_per_call,
    )


def make_optimizer(config: ConfigDict, plan: training.Plan) -> optax.GradientTransformation:
    """The optimiser of a config, its schedule laid over the plan's steps."""
    settings = config.optimizer
    rate = training.learning_rate_schedule(
        settings.schedule,
        settings.learning_rate,
        total_steps=plan.total_steps,
        warmup_steps=round(settings.warmup_epochs * plan.steps_per_epoch),
        end_factor=settings.end_factor,
    )
    return training.create_optimizer(
        settings.name, rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


def examples(dataset: data.Dataset) -> training.Batch:
    """A set as the arrays that the loop knows."""
    return {"image": jnp.asarray(dataset.images), "label": jnp.asarray(dataset.labels)}


def describe_data(sets: Mapping[str, data.Dataset], preprocess: data.Preprocess) -> dict[str, Any]:
    """What a run must remember of its data to be used without it, as JSON values (``data.json``)."""
    train_set = sets["train"]
    return {
        "name": train_set.name,
        "image_shape": list(train_set.image_shape),
        "class_names": list(train_set.class_names),
        "ink_extent": data.measure_ink_extent(train_set.images),
        "examples": {role: len(dataset) for role, dataset in sets.items()},
        "fingerprints": {role: dataset.fingerprint() for role, dataset in sets.items()},
        "preprocess": dataclasses.asdict(preprocess),
    }


def _read_description(directory: Path) -> dict[str, Any]:
    path = directory / "data.json"
    if not path.is_file():
        raise UsageError(
            f"{directory} holds no trained run: there is no {path}; train first, or name another --workdir"
        )
    return json.loads(path.read_text())


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _load(config: ConfigDict, split: str) -> data.Dataset:
    return data.load(config.data.name, split, data_dir=config.data.data_dir or None)


def _metrics(losses: Array, logits: Array, labels: Array, mask: Array) -> training.Metrics:
    correct = (logits.argmax(axis=-1) == labels).astype(losses.dtype)
    count = mask.sum()
    return {"loss": ((losses * mask).sum(), count), "accuracy": ((correct * mask).sum(), count)}


def _print_table(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    rich.print(table)


def _csv(paths: Sequence[Path], probabilities: np.ndarray, class_names: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["picture", "class", "probability", *class_names])
    for path, row in zip(paths, probabilities, strict=True):
        best = int(np.argmax(row))
        writer.writerow([path, class_names[best], f"{row[best]:.6f}", *(f"{value:.6f}" for value in row)])
    return out.getvalue()
