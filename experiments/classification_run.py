"""A classification run from its config: its sets, the task that the loop trains, what is written into its folder.

What is common to configs that differ in numbers only is prepared once: so a sweep trains many of them in one program.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Array, Key
from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax import data
from cnn_jax import train as training
from cnn_jax.models.airbench import whitening_kernel
from cnn_jax.runtime.files import write_json
from experiments.classification import TRACED_HYPERPARAMETERS, Classifier, load_run, make_classifier, metrics, monitor
from experiments.classification_data import (
    PictureSet,
    check_same_data,
    describe_data,
    examples,
    load_sets,
    make_augmentation,
    make_preprocess,
)


def prepare(config: ConfigDict, directory: Path) -> "Prepared":
    """What a run is made of besides the numbers in its config: its sets, its plan, the network that it starts from."""
    sets = load_sets(config, directory)
    source = None
    if config.model.features_from:
        path = Path(config.model.features_from)
        source = load_run(configs.read_run_config(path), path, checkpoint="latest")
    preprocess = source[0].preprocess if source else make_preprocess(config, sets["train"])
    whitening = None
    if config.model.whiten:
        some = data.sample(sets["train"], most=config.model.whiten).images[: config.model.whiten]
        whitening = whitening_kernel(preprocess(some))
    return Prepared(sets, preprocess, source, whitening)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What runs share whose configs differ only in numbers; :func:`prepare` makes it.

    Attributes:
      sets: by role.
      preprocess: raw images to network inputs.
      source: the run whose features are the start.
      whitening: the kernel of the network's first layer, where the pictures decide it.
    """

    sets: Mapping[str, PictureSet]
    preprocess: data.Preprocess
    source: tuple[Classifier, training.TrainState] | None
    whitening: Array | None

    def plan(self, config: ConfigDict) -> training.Plan:
        """For how long to train."""
        return training.make_plan(config, len(self.sets["train"]))

    def classifier(self, config: ConfigDict) -> Classifier:
        """The network of a config."""
        return make_classifier(config, self.preprocess, self.sets["train"].class_names)

    def task(self, config: ConfigDict, parallel: training.DataParallel) -> training.Task:
        """What the loop has to know; numbers in the config may be traced values."""
        classifier, plan = self.classifier(config), self.plan(config)
        optimizer = training.make_optimizer(config, plan, classifier.abstract_params)
        step = classifier.step(optimizer, parallel)
        if config.data.augment:
            augmentation = make_augmentation(config, self.sets["train"], self.preprocess)
            step = training.augmented(step, augmentation, steps_per_epoch=plan.steps_per_epoch, parallel=parallel)

        def init(key: Key[Array, ""]) -> training.TrainState:
            state = classifier.init(key, optimizer)
            if self.whitening is not None:
                state = classifier.whitened(state, self.whitening)
            return classifier.with_features(state, self.source[1]) if self.source else state

        return training.Task(
            init=init,
            step=step,
            evaluate=classifier.evaluate,
            train_examples=examples(config, self.sets["train"]),
            eval_examples={role: examples(config, found) for role, found in self.sets.items() if role != "train"},
            metrics=metrics(config),
            monitor=monitor(config),
        )

    def program(self, config: ConfigDict, parallel: training.DataParallel) -> training.Program:
        """What the run computes; what is compiled is shared by the runs of this process that differ in numbers only."""
        data = tuple((role, found.fingerprint()) for role, found in self.sets.items())
        source = training.digest(self.source[1]) if self.source else ""
        shared = _program(
            _Shape((training.shape_of(config, TRACED_HYPERPARAMETERS), data, source), self, config), parallel
        )
        return shared.bind(training.traced_hyperparameters(config, TRACED_HYPERPARAMETERS))

    def begin(self, config: ConfigDict, directory: Path) -> None:
        """Notes the run's data in its folder, which is open; or compares, where a run is continued."""
        check_same_data(directory, self.sets)
        if training.is_primary():
            write_json(directory / "data.json", describe_data(config, self.sets, self.preprocess))

    def finish(self, config: ConfigDict, directory: Path, trained: training.Trained, *, report: bool) -> None:
        """Writes ``result.json`` and, if wanted, ``report.html``."""
        classifier = self.classifier(config)
        result = {
            "step": int(trained.state.step),
            "scores": trained.scores,
            "parameters_sha256": training.digest(classifier.parameters(training.evaluated(trained.state))),
        }
        write_json(directory / "result.json", result)
        if report:
            from experiments import classification_report  # matplotlib is needed here alone, and slow to import

            classification_report.write(directory, classifier, trained, data.sample(self.sets["test"]))


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What makes one program another, and of what it is made; of equal ones the first is taken."""

    identity: tuple[Any, ...]
    run: Prepared = dataclasses.field(compare=False)
    config: ConfigDict = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=8)
def _program(shape: _Shape, parallel: training.DataParallel) -> training.Program:
    def task(hyperparameters: training.Hyperparameters) -> training.Task:
        return shape.run.task(training.with_hyperparameters(shape.config, hyperparameters), parallel)

    return training.Program(task, shape.run.plan(shape.config), parallel=parallel)
