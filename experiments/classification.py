"""Image classification: a network, softmax cross-entropy, accuracy.

``launch.py`` calls one function per mode: :func:`train`, :func:`evaluate`, :func:`predict`, :func:`summary`. What a
trained run shows of itself is in :mod:`experiments.classification_report`.
"""

import csv
import dataclasses
import functools
import io
import time
from collections.abc import Callable, Mapping, Sequence
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
from cnn_jax.data.images import find_images, read_image
from cnn_jax.errors import UsageError, nearest
from cnn_jax.ops.arguments import is_traced, may_differ_from_zero
from cnn_jax.report import summary as network_summary
from cnn_jax.runtime.files import write_atomically
from experiments.classification_data import (
    examples,
    find_class_names,
    load_splits,
    preprocess_of,
    read_description,
)

LOSSES = ("cross_entropy", "squared_error")
TRACED_HYPERPARAMETERS = (
    *training.TRACED_HYPERPARAMETERS,
    "label_smoothing",
    "auxiliary_weight",
    "model.options.dropout_rate",
)


def default_config() -> ConfigDict:
    """Every key of a classification config, with a default that config files override."""
    config = ConfigDict(
        {
            "experiment": "classification",
            "seed": 0,
            "input_shape": (32, 32, 1),
            "model": {
                "name": "lenet_5_modern",
                "width": 1.0,
                "options": {},  # of the network, see models.variant(name).options()
                "features_from": "",  # folder of a run whose network, but for the output layer, is where to start
                "whiten": 0,  # training pictures from which the kernel of a layer 'whiten' is computed; 0 for none
            },
            "data": {
                "name": "digits",
                "train": "train",
                "validation": "validation",  # chooses the best checkpoint; empty for none
                "test": "test",
                "classes": (),  # the numbers of those to tell apart; empty for all
                "train_part": (),  # (start, stop) of the training examples of these classes; empty for all
                "data_dir": "",  # where TFDS looks; empty for its own default
                "size": (),  # (height, width) to which pictures of different sizes are read; empty for input_shape's
                "framing": "crop",  # how: crop, fit, stretch
                "loading": "auto",  # memory; stream, from disk by worker processes; or auto, by the memory there is
                "workers": -1,  # that read a stream; -1 for one for each core, 0 for threads instead
                "resize": "bilinear",  # how pictures reach input_shape: also pad, crop, none
                "pixel_range": (),  # what black and white become, such as (-1.0, 1.0); empty: mean 0, deviation 1
                "augment": (),  # of the training pictures, in this order: ("flip", "pad_and_crop(padding=4)")
                "test_time": "",  # views whose predictions are averaged: mirror, ten_crop; empty for the picture alone
            },
            "ensemble": 1,  # how many networks to train and average
            "loss": "cross_entropy",  # or squared_error, against targets of -1 and 1
            "label_smoothing": 0.0,
            "auxiliary_weight": 0.3,  # of the loss of each auxiliary head, in networks that have such
            "top_k": 0,  # the score of having the class among so many, such as 5, beside the accuracy; 0 for none
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
        if config.loss not in LOSSES:
            raise UsageError(f"loss={config.loss!r} is unknown; {nearest(config.loss, LOSSES)}")
        if not is_traced(config.label_smoothing) and not 0 <= config.label_smoothing < 1:
            raise UsageError(f"label_smoothing={config.label_smoothing} must be at least 0 and less than 1")
        if config.loss != "cross_entropy" and may_differ_from_zero(config.label_smoothing):
            raise UsageError(f"label_smoothing={config.label_smoothing} means nothing to loss={config.loss!r}; use 0")
        if not 0 <= config.top_k < len(self.class_names):
            raise UsageError(
                f"top_k={config.top_k} says nothing of {len(self.class_names)} classes; use less, 0 for none"
            )
        self.abstract_model = nnx.eval_shape(lambda: self.create(jax.random.key(0)))
        self._trained = models.trainable(self.abstract_model, freeze=config.freeze)
        self._graph = nnx.split(self.abstract_model, self._trained, ...)[0]
        self.abstract_params = nnx.state(self.abstract_model, self._trained)

    def create(self, key: Key[Array, ""]) -> nn.Sequence:
        """The network with freshly drawn parameters."""
        return models.create(
            self.config.model.name,
            num_classes=len(self.class_names),
            input_shape=tuple(self.config.input_shape),
            width=self.config.model.width,
            dtype=_dtype(self.config.dtype),
            rngs=nnx.Rngs(key),
            **self.config.model.options,
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
        return output, nnx.state(model, nnx.Not(self._trained))

    def init(self, key: Key[Array, ""], optimizer: optax.GradientTransformation) -> training.TrainState:
        """The state before the first step."""
        model, decay = self.create(training.stream_key(key, "params")), self.config.ema_decay
        averaged = may_differ_from_zero(decay)
        params, model_state = nnx.state(model, self._trained), nnx.state(model, nnx.Not(self._trained))
        return training.create_state(key, params, model_state, optimizer, ema=averaged)

    @functools.cached_property
    def abstract_weights(self) -> tuple[PyTree, PyTree]:
        """The shapes of a state's parameters, and of what else the network keeps."""
        state = jax.eval_shape(lambda: self.init(jax.random.key(0), optax.identity()))
        return state.params, state.model_state

    def parameters(self, state: training.TrainState) -> PyTree:
        """All parameters of a state, those that are frozen included."""
        weights = nnx.merge_state(state.params, state.model_state)
        return nnx.filter_state(weights, nnx.Param)

    def with_features(self, state: training.TrainState, source: training.TrainState) -> training.TrainState:
        """A state that starts from what another network has learned, all but its output layer.

        Raises:
          UsageError: the other network is not the same up to its output layer.
        """
        head = "/".join(models.output_layer(self.abstract_model))
        own, learned = (
            dict(nnx.to_flat_state(nnx.merge_state(tree.params, tree.model_state))) for tree in (state, source)
        )
        for path, value in own.items():
            name = "/".join(map(str, path))
            if name.startswith(f"{head}/"):
                learned[path] = value
            elif path not in learned or learned[path].shape != value.shape:
                raise UsageError(
                    f"model.features_from={self.config.model.features_from}: it has no parameter {name} of shape "
                    f"{value.shape}; choose a run of {self.config.model.name} of the same width"
                )

        def filled(tree: PyTree) -> PyTree:
            return nnx.from_flat_state([(path, learned[path]) for path, _ in nnx.to_flat_state(tree)])

        return dataclasses.replace(state, params=filled(state.params), model_state=filled(state.model_state))

    def whitened(
        self, state: training.TrainState, kernel: Float[Array, "height width channels features"]
    ) -> training.TrainState:
        """A state whose layer ``whiten`` has this kernel.

        Raises:
          UsageError: the network has no such layer.
        """
        path = ("whiten", "kernel")
        flat = dict(nnx.to_flat_state(state.model_state))
        if path not in flat:
            raise UsageError(
                f"model.whiten={self.config.model.whiten}: {self.config.model.name} has no layer 'whiten'; use 0"
            )
        flat[path] = flat[path].replace(jnp.broadcast_to(kernel, flat[path].shape))
        model_state = nnx.from_flat_state(flat)
        ema = None if state.ema is None else (state.ema[0], model_state)
        return dataclasses.replace(state, model_state=model_state, ema=ema)

    def step(self, optimizer: optax.GradientTransformation, parallel: training.DataParallel) -> training.Step:
        """One optimiser step."""
        return training.make_step_of(self.config, self.loss, optimizer, parallel)

    def losses(self, logits: Array, labels: Array, *, label_smoothing: float = 0.0) -> Float[Array, " batch"]:
        """The config's loss, of each example."""
        if self.config.loss == "squared_error":
            return ops.squared_error(logits, labels)
        return ops.softmax_cross_entropy(logits, labels, label_smoothing=label_smoothing)

    def loss(
        self, params: PyTree, model_state: PyTree, batch: training.Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], tuple[training.Metrics, PyTree]]:
        """What training minimises: the mean loss of a batch with its smoothed labels.

        The metrics have the loss without smoothing, to be compared with that of the other sets.
        """
        options: dict[str, Any] = {"train": True, "rngs": nnx.Rngs(key), "return_activations": True}
        (logits, activations), model_state = self.apply(params, model_state, batch["image"], **options)
        smoothing = self.config.label_smoothing

        def objective(logits: Array) -> Array:
            return self.losses(logits, batch["label"], label_smoothing=smoothing).mean()

        auxiliary = sum(objective(activations[head]) for head in self.auxiliary_heads)
        total = objective(logits) + self.config.auxiliary_weight * auxiliary
        return total, (self.metrics(logits, batch), model_state)

    @property
    def auxiliary_heads(self) -> list[str]:
        """The activations that are logits of auxiliary classifiers."""
        layers = ((name, getattr(self.abstract_model, name)) for name in self.abstract_model.names)
        return [f"{name}/{layer.names[-1]}" for name, layer in layers if isinstance(layer, nn.Auxiliary)]

    def metrics(self, logits: Float[Array, "batch classes"], batch: training.Batch) -> training.Metrics:
        """Loss, accuracy and top-k accuracy over the part of a batch where its mask is 1, over all if it has none."""
        label = batch["label"]
        losses = self.losses(logits, label)
        classes = label.argmax(axis=-1) if label.ndim == 2 else label  # a mixed picture's is its greater part
        correct = (logits.argmax(axis=-1) == classes).astype(losses.dtype)
        mask = batch.get("mask", jnp.ones_like(losses))
        count, mask = mask.sum(), mask.astype(losses.dtype)
        metrics: training.Metrics = {
            "loss": ((losses * mask).sum(), count),
            "accuracy": ((correct * mask).sum(), count),
        }
        if self.config.top_k:
            own = jnp.take_along_axis(logits, classes[:, None], axis=-1)
            among = (logits > own).sum(axis=-1) < self.config.top_k
            metrics[f"top_{self.config.top_k}_accuracy"] = ((among.astype(losses.dtype) * mask).sum(), count)
        return metrics

    def logits(self, state: training.TrainState, images: Array) -> Float[Array, "batch classes"]:
        """The network's answer to raw images: of the views that ``config.data.test_time`` names, their average.

        That is the logarithm of the averaged probabilities, or, for squared errors, which know none, of the outputs.
        """
        views = augment.test_time_views(self.config.data.test_time, images, size=tuple(self.config.input_shape[:2]))
        if views is None:
            return self.apply(state.params, state.model_state, images)[0]
        each = jax.lax.map(lambda view: self.apply(state.params, state.model_state, view)[0], views)
        return augment.average_logits(each) if self.config.loss == "cross_entropy" else each.mean(axis=0)

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
        """Every named intermediate of the network on raw images, in order, as float32 whatever it computes in."""

        @jax.jit
        def forward(images: Array) -> dict[str, Array]:
            (_, activations), _ = self.apply(state.params, state.model_state, images, return_activations=True)
            return {name: array.astype(jnp.float32) for name, array in activations.items()}

        return jax.device_get(forward(images))

    def first(self, state: training.TrainState) -> training.TrainState:
        """The state of one network, for pictures of its parameters."""
        return state


def metrics(config: ConfigDict) -> list[training.Metric]:
    """What a run is scored by."""
    found = [training.Metric("loss", better="lower"), training.Metric("accuracy", better="higher", unit="%")]
    if config.top_k:
        found.append(training.Metric(f"top_{config.top_k}_accuracy", better="higher", unit="%"))
    return found


def monitor(config: ConfigDict) -> str:
    """The score that a run is judged by: chooses its best checkpoint, and the best of a sweep.

    >>> monitor(default_config())
    'validation/accuracy'
    """
    return "validation/accuracy" if config.data.validation else "test/accuracy"


def train(
    config: ConfigDict,
    directory: Path,
    *,
    profile: int = 0,
    report: bool = True,
    on_evaluation: Callable[[int, Mapping[str, float]], None] | None = None,
) -> None:
    """Trains to the end, or on from the last checkpoint, and writes ``result.json`` and ``report.html``.

    Args:
      config: with the keys of :func:`default_config`.
      directory: the run's folder.
      profile: how many steps to trace first.
      report: whether to write ``report.html``, too.
      on_evaluation: see :func:`cnn_jax.train.train`.
    """
    started = time.perf_counter()
    run, parallel = prepare(config, directory), training.make_parallel(config)
    program = run.program(config, parallel)
    with training.open_workdir(directory, config):
        run.begin(config, directory)
        trained = training.train(
            program,
            seed=config.seed,
            directory=directory,
            how_to_continue=f"python launch.py --workdir={directory}",
            profile=profile,
            on_evaluation=on_evaluation,
        )
        if not training.is_primary():
            return
        run.finish(config, directory, trained, report=report)
    accuracy = trained.scores["test/accuracy"]
    print(f"test accuracy {accuracy:.2%}, error {1 - accuracy:.2%}, in {time.perf_counter() - started:.1f} s")
    print(f"the run is in {directory}" + (f"; open {directory / 'report.html'}" if report else ""))


def prepare(config: ConfigDict, directory: Path) -> Any:
    """What runs share whose configs differ in numbers only, see :class:`experiments.classification_run.Prepared`."""
    from experiments import classification_run  # which is built upon this module

    return classification_run.prepare(config, directory)


def evaluate(config: ConfigDict, directory: Path, *, checkpoint: str) -> None:
    """Prints the scores of a checkpoint on the full test set."""
    (test_set,) = load_splits(config, [config.data.test])
    classifier, state = load_run(config, directory, checkpoint=checkpoint)
    test_examples = {"test": examples(config, test_set)}
    score = training.make_evaluations(classifier.evaluate, test_examples, batch_size=config.batch_size)
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
    paths = find_images(images)
    classifier, state = load_run(config, directory, checkpoint=checkpoint)
    description = read_description(directory)
    height, width, channels = description["image_shape"]
    framed = {
        "ink_extent": description["ink_extent"],
        "invert": "auto" if description["ink_extent"] else False,
        "resize": description["framing"],
    }
    pictures = [read_image(path, height=height, width=width, channels=channels, **framed) for path in paths]
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
        write_atomically(Path(output), _csv(paths, probabilities, classifier.class_names))
        print(f"wrote {output}")


def untrained(config: ConfigDict) -> Classifier:
    """The network of a config by itself: nothing is drawn, and no picture is read."""
    shape = tuple(config.input_shape)
    as_is = data.Preprocess(shape, mean=(0.0,) * shape[-1], std=(1.0,) * shape[-1])
    return Classifier(config, as_is, find_class_names(config))


def summary(config: ConfigDict, *, output: str | None = None) -> None:
    """Prints the network's table, for which TFDS's data sets need not be prepared.

    Args:
      config: names the network.
      output: a file to write it to as well, see :func:`cnn_jax.report.summary.write`.
    """
    if output is not None:
        network_summary.check_path(output)
    shape, classifier = tuple(config.input_shape), untrained(config)
    title = f"{config.model.name}, input {'x'.join(map(str, shape))}, {len(classifier.class_names)} classes"
    rows = geometry.trace(classifier.abstract_model, shape)
    geometry.print_table(rows, title=title)
    if output is not None:
        network_summary.write(output, rows, title=title, input_shape=shape)
        print(f"wrote {output}")


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
    with training.Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        step = checkpoints.best_step() if checkpoint == "best" else None
        state = checkpoints.restore_evaluated(*classifier.abstract_weights, step=step)
    if state is None:
        raise UsageError(
            f"{directory} holds no complete checkpoint; train first: python launch.py --workdir={directory}"
        )
    return classifier, state


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
