"""Image classification: a network, softmax cross-entropy, accuracy.

``launch.py`` calls one function per mode: :func:`train`, :func:`evaluate`, :func:`predict`, :func:`summary`. What a
trained run shows of itself is in :mod:`experiments.classification_report`.
"""

import csv
import io
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
from cnn_jax.data import augment
from cnn_jax.data.pictures import find_pictures, read_picture
from cnn_jax.errors import UsageError, nearest
from cnn_jax.files import write_json, write_whole
from experiments.classification_data import (
    check_same_data,
    describe_data,
    examples,
    load_sets,
    load_splits,
    make_augmentation,
    open_split,
    preprocess_of,
    read_description,
)


def default_config() -> ConfigDict:
    """Every key of a classification config, with a default that config files override."""
    config = ConfigDict(
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
                "size": (),  # (height, width) to which pictures of different sizes are read; empty for input_shape's
                "framing": "crop",  # how: crop, fit, stretch
                "loading": "auto",  # memory; stream, from disk by worker processes; or auto, by the memory there is
                "workers": -1,  # that read a stream; -1 for one for each core, 0 for threads instead
                "resize": "bilinear",  # how pictures reach input_shape: also pad, crop, none
                "augment": (),  # of the training pictures, in this order: ("flip", "pad_and_crop(padding=4)")
                "test_time": "",  # views whose predictions are averaged: mirror, ten_crop; empty for the picture alone
            },
            "ensemble": 1,  # how many networks to train and average
            "label_smoothing": 0.0,
            "reference": {"accuracy": 0.0, "source": ""},  # shown beside the score; 0 for none
        }
    )
    config.update(training.default_settings())
    return config


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
        augment.check_test_time(config.data.test_time)
        self.abstract_model = nnx.eval_shape(lambda: self.create(jax.random.key(0)))
        self._graph = nnx.split(self.abstract_model, nnx.Param, ...)[0]
        self.abstract_params = nnx.state(self.abstract_model, nnx.Param)

    def create(self, key: Key[Array, ""]) -> nn.Sequence:
        """The network with freshly drawn parameters."""
        return models.create(
            self.config.model.name,
            num_classes=len(self.class_names),
            input_shape=tuple(self.config.input_shape),
            width=self.config.model.width,
            dtype=_dtype(self.config.dtype),
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
        return training.create_state(key, params, model_state, optimizer, ema=self.config.ema_decay > 0)

    def step(self, optimizer: optax.GradientTransformation, parallel: training.Parallel) -> training.Step:
        """One optimiser step."""
        return training.make_step_of(self.config, self.loss, optimizer, parallel)

    def loss(
        self, params: PyTree, model_state: PyTree, batch: training.Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[training.Metrics, PyTree]]:
        """What training minimises: the mean cross-entropy of a batch with its smoothed labels.

        The metrics have the plain cross-entropy, to be compared with that of the other sets.
        """
        logits, model_state = self.apply(params, model_state, batch["image"], train=True, rngs=nnx.Rngs(key))
        smoothing = self.config.label_smoothing
        objective = ops.softmax_cross_entropy(logits, batch["label"], label_smoothing=smoothing).mean()
        return objective, (self.metrics(logits, batch), model_state)

    def metrics(self, logits: Float[Array, "batch classes"], batch: training.Batch) -> training.Metrics:
        """Loss and accuracy over the part of a batch where its mask is 1, or over all of it if it has none."""
        losses = ops.softmax_cross_entropy(logits, batch["label"])
        label = batch["label"]
        classes = label.argmax(axis=-1) if label.ndim == 2 else label  # a mixed picture's is its greater part
        correct = (logits.argmax(axis=-1) == classes).astype(losses.dtype)
        mask = batch.get("mask", jnp.ones_like(losses))
        count = mask.sum()
        return {"loss": ((losses * mask).sum(), count), "accuracy": ((correct * mask).sum(), count)}

    def logits(self, state: training.TrainState, images: Array) -> Float[Array, "batch classes"]:
        """The network's answer to raw images: of the views that ``config.data.test_time`` names, their average."""
        views = augment.test_time_views(self.config.data.test_time, images, size=tuple(self.config.input_shape[:2]))
        if views is None:
            return self.apply(state.params, state.model_state, images)[0]
        return augment.average_logits(
            jax.lax.map(lambda view: self.apply(state.params, state.model_state, view)[0], views)
        )

    def evaluate(self, state: training.TrainState, batch: training.Batch) -> training.Metrics:
        """Loss and accuracy of a batch."""
        return self.metrics(self.logits(state, batch["image"]), batch)

    def probabilities(self, state: training.TrainState, images: np.ndarray) -> np.ndarray:
        """Class probabilities (n, classes) of raw images, computed batch by batch."""
        forward = jax.jit(lambda images: jax.nn.softmax(self.logits(state, images).astype(jnp.float32)))
        indices, mask = data.padded_batches(len(images), min(len(images), 500))
        rows = np.concatenate([forward(images[batch]) for batch in np.asarray(indices)])
        return rows[np.asarray(mask).reshape(-1) > 0]

    def activations(self, state: training.TrainState, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """Every named intermediate of the network on raw images, in order."""
        forward = jax.jit(lambda images: self.apply(state.params, state.model_state, images, return_activations=True))
        (_, activations), _ = forward(images)
        return jax.device_get(activations)

    def first(self, state: training.TrainState) -> training.TrainState:
        """The state of one network, for pictures of its parameters."""
        return state


def train(config: ConfigDict, directory: Path, *, profile: int = 0) -> None:
    """Trains to the end, or on from the last checkpoint, and writes ``result.json`` and ``report.html``.

    Args:
      config: with the keys of :func:`default_config`.
      directory: the run's folder.
      profile: how many steps to trace first.
    """
    from experiments import classification_report  # matplotlib is needed here alone, and takes its time to import

    started = time.perf_counter()
    sets = load_sets(config, directory)
    preprocess = data.Preprocess.measure(sets["train"], tuple(config.input_shape), resize=config.data.resize)
    classifier = make_classifier(config, preprocess, sets["train"].class_names)
    plan, parallel = training.make_plan(config, len(sets["train"])), training.make_parallel(config)
    optimizer = training.make_optimizer(config, plan, classifier.abstract_params)
    step = classifier.step(optimizer, parallel)
    if config.data.augment:
        augmentation = make_augmentation(config, sets["train"], preprocess)
        step = training.augmented(step, augmentation, steps_per_epoch=plan.steps_per_epoch, parallel=parallel)
    task = training.Task(
        init=lambda key: classifier.init(key, optimizer),
        step=step,
        evaluate=classifier.evaluate,
        train_examples=examples(config, sets["train"]),
        eval_examples={role: examples(config, found) for role, found in sets.items() if role != "train"},
        monitor="validation/accuracy" if "validation" in sets else "test/accuracy",
    )
    with training.open_workdir(directory, config):
        check_same_data(directory, sets)
        if training.is_primary():
            write_json(directory / "data.json", describe_data(config, sets, preprocess))
        trained = training.train(
            task,
            plan,
            seed=config.seed,
            directory=directory,
            how_to_continue=f"python launch.py --workdir={directory}",
            parallel=parallel,
            profile=profile,
        )
        if not training.is_primary():
            return
        result = {
            "step": int(trained.state.step),
            "scores": trained.scores,
            "parameters_sha256": training.digest(training.evaluated(trained.state).params),
        }
        write_json(directory / "result.json", result)
        classification_report.write(directory, classifier, trained, data.sample(sets["test"]))
    accuracy = trained.scores["test/accuracy"]
    print(f"test accuracy {accuracy:.2%}, error {1 - accuracy:.2%}, in {time.perf_counter() - started:.1f} s")
    print(f"the run is in {directory}; open {directory / 'report.html'}")


def evaluate(config: ConfigDict, directory: Path, *, checkpoint: str) -> None:
    """Prints the scores of a checkpoint on the full test set."""
    (test_set,) = load_splits(config, [config.data.test])
    classifier, state = load_run(config, directory, checkpoint=checkpoint)
    test_examples = {"test": examples(config, test_set)}
    score = training.Evaluations(classifier.evaluate, test_examples, batch_size=config.batch_size)
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
    description = read_description(directory)
    height, width, channels = description["image_shape"]
    framed = {
        "ink_extent": description["ink_extent"],
        "invert": "auto" if description["ink_extent"] else False,
        "resize": description["framing"],
    }
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


def summary(config: ConfigDict) -> None:
    """Prints the network's table."""
    shape = tuple(config.input_shape)
    class_names = open_split(config, config.data.test).class_names
    as_is = data.Preprocess(shape, mean=(0.0,) * shape[-1], std=(1.0,) * shape[-1])
    classifier = Classifier(config, as_is, class_names)
    title = f"{config.model.name}, input {'x'.join(map(str, shape))}, {len(class_names)} classes"
    rich.print(geometry.format_table(geometry.trace(classifier.abstract_model, shape), title=title))


def load_run(config: ConfigDict, directory: Path, *, checkpoint: str) -> tuple[Classifier, training.TrainState]:
    """A trained run from its folder.

    Args:
      config: of the network that the checkpoint must hold.
      directory: the run's folder.
      checkpoint: ``'latest'`` or ``'best'``.

    Raises:
      UsageError: the folder holds no checkpoint, or a damaged one, or one of another network.
    """
    description = read_description(directory)
    preprocess = preprocess_of(description)
    classifier = make_classifier(config, preprocess, description["class_names"])
    plan = training.make_plan(config, description["examples"]["train"])
    optimizer = training.make_optimizer(config, plan, classifier.abstract_params)
    template = training.ONE_DEVICE.abstract(lambda: classifier.init(jax.random.key(0), optimizer))
    with training.Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore(template, step=checkpoints.best_step() if checkpoint == "best" else None)
    if restored is None:
        raise UsageError(
            f"{directory} holds no complete checkpoint; train first: python launch.py --workdir={directory}"
        )
    return classifier, training.evaluated(restored.state)


def make_classifier(config: ConfigDict, preprocess: data.Preprocess, class_names: Sequence[str]) -> Classifier:
    """The network of a config, or its networks."""
    if config.ensemble < 1:
        raise UsageError(f"ensemble={config.ensemble} must be at least 1")
    if config.ensemble == 1:
        return Classifier(config, preprocess, class_names)
    from experiments.classification_ensemble import EnsembleClassifier  # which is built upon this module

    return EnsembleClassifier(config, preprocess, class_names)


def _dtype(name: str) -> jnp.dtype:
    known = ("float32", "bfloat16", "float16")
    if name not in known:
        raise UsageError(f"dtype={name!r} is unknown; {nearest(name, known)}")
    return jnp.dtype(name)


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
