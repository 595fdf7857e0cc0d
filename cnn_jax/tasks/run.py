"""One run of any task: train, evaluate, predict, summary. What is learned is the task's, see :mod:`cnn_jax.tasks.task`.

What is common to configs that differ in traced hyperparameters only is prepared once, so that a sweep trains many of
them in one program.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from cnn_jax import data, geometry
from cnn_jax import train as training
from cnn_jax.errors import PartlyFailedError, UsageError
from cnn_jax.metrics import Metric
from cnn_jax.report import summary as network_summary
from cnn_jax.report.compilation import compiling
from cnn_jax.runtime.command import command
from cnn_jax.runtime.files import check_output_folder, write_json
from cnn_jax.runtime.terminal import say
from cnn_jax.schema import Schema
from cnn_jax.tasks import generate
from cnn_jax.tasks.generation import Generation
from cnn_jax.tasks.inputs import OwnInput, read_inputs
from cnn_jax.tasks.network import TaskNetwork, declared_metrics, make_network
from cnn_jax.tasks.predictions import check_csv, describe_assumptions, file_names, print_table, write_csv
from cnn_jax.tasks.saved import load_run, reader_of_helpers
from cnn_jax.tasks.sets import (
    ExampleSet,
    check_same_data,
    check_same_words,
    describe_data,
    examples,
    find_examples,
    known_examples,
    load_sets,
    load_splits,
    make_augmentation,
    read_description,
    take,
)
from cnn_jax.tasks.start import Start, find_start
from cnn_jax.tasks.table import schema as task_schema
from cnn_jax.tasks.table import task_class
from cnn_jax.tasks.task import Task, brief_cells
from cnn_jax.train.evaluation import of_split

_TRACED = (
    *training.TRACED_HYPERPARAMETERS,
    "auxiliary_weight",
    "rotated_pairs.weight",
    "model.options.dropout_rate",
)
_ROLES = {"train": "training"}  # role of a set -> the word for it
_TAKEN_AT_ONCE = 500  # examples, while predictions are written


def monitor(config: ConfigDict) -> str:
    """The score that a run is judged by: it chooses the best checkpoint, and the best trial of a sweep.

    >>> from cnn_jax.tasks import default_config
    >>> monitor(default_config())
    'validation/accuracy'
    """
    split = "validation" if config.data.validation else "test"
    return task_class(config.experiment).metrics(config)[0].of(split).name


def schema(config: ConfigDict) -> Schema:
    """What the config of a run may contain."""
    return task_schema(config.experiment)


def metrics(config: ConfigDict) -> tuple[Metric, ...]:
    """The metrics that a run is scored by."""
    return declared_metrics(config, task_class(config.experiment))


def traced(config: ConfigDict) -> tuple[str, ...]:
    """The keys of a config whose values its compiled programs take as arguments."""
    return (*_TRACED, *task_class(config.experiment).traced)


def prepare(config: ConfigDict, directory: Path) -> "PreparedRun":
    """What a run is made of besides its traced hyperparameters: its data sets and where its network starts."""
    sets = load_sets(config, directory)
    sets["train"] = task_class(config.experiment).extended(config, sets["train"])
    start = find_start(config, _task(config, sets["train"]), sets["train"])
    _train_helpers(config, directory)
    return PreparedRun(sets, start, reader_of_helpers(config, directory))


def _train_helpers(config: ConfigDict, directory: Path) -> None:
    """Trains the helpers of a task that have a config, where this is not done yet."""
    for name, own in task_class(config.experiment).helpers(config).items():
        folder = directory / name
        if isinstance(own, ConfigDict) and not (folder / "result.json").is_file():
            say(f"{name}: first {own.model.name} is trained on {own.data.name}, in {folder}")
            train(own, folder, report=False)


def _task(config: ConfigDict, train_set: ExampleSet) -> Task:
    return task_class(config.experiment)(config, known_examples(train_set))


@dataclasses.dataclass(frozen=True)
class PreparedRun:
    """What runs share whose configs differ only in traced hyperparameters; :func:`prepare` makes it.

    Attributes:
      sets: By role: train, test, and validation if there is one.
      start: Where the network starts.
      helper: Reads the trained networks that the task uses besides its own, see :attr:`Task.helper`.
    """

    sets: Mapping[str, ExampleSet]
    start: Start
    helper: Callable[[str], Any]

    def plan(self, config: ConfigDict) -> training.Plan:
        """How long to train."""
        return training.make_plan(config, len(self.sets["train"]))

    def task(self, config: ConfigDict) -> Task:
        """What is learned."""
        task = _task(config, self.sets["train"])
        task.helper = self.helper
        return task

    def network(self, config: ConfigDict) -> TaskNetwork:
        """The network of a config."""
        return make_network(config, self.task(config), self.start.preprocess, input_name=self.sets["train"].input_name)

    def problem(self, config: ConfigDict, parallel: training.DataParallel) -> training.Problem:
        """What the training loop needs; traced hyperparameters of the config may be JAX arrays."""
        network, plan = self.network(config), self.plan(config)
        learning_rate = training.make_schedule(config, plan)
        optimizer = training.make_optimizer(config, learning_rate, network.abstract_params)
        step = network.step(optimizer, learning_rate, parallel)
        if config.data.augment:
            augmentation = make_augmentation(config, self.sets["train"], self.start.preprocess)
            step = training.augmented(step, augmentation, steps_per_epoch=plan.steps_per_epoch, parallel=parallel)

        def init(key: Key[Array, ""]) -> training.TrainState:
            return network.init(key, optimizer, self.start.values)

        return training.Problem(
            init=init,
            step=step,
            evaluate=network.evaluate,
            train_examples=examples(config, self.sets["train"]),
            eval_examples={role: examples(config, found) for role, found in self.sets.items() if role != "train"},
            metrics=metrics(config),
            monitor=monitor(config),
            summarize=network.scores,
        )

    def program(self, config: ConfigDict, parallel: training.DataParallel) -> training.Program:
        """What a run computes; the compiled functions are shared by the runs of this process with the same shape."""
        identity = training.shape_of(config, traced(config)), *self._identity
        shared = _program(_Shape(identity, self, config), parallel)
        return shared.bind(training.traced_hyperparameters(config, traced(config)))

    @functools.cached_property
    def _identity(self) -> tuple[Any, ...]:  # which every trial of a group asks for
        fingerprints = tuple((role, found.fingerprint()) for role, found in self.sets.items())
        return fingerprints, training.digest(dict(self.start.values))

    def describe(self, config: ConfigDict) -> str:
        """The network and the data in two lines."""
        own = self.network(config)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(own.abstract_model, nnx.Param)))
        shape, count = "x".join(map(str, own.input_shape)), len(own.task.outputs)
        several = f"{config.ensemble} x " if config.ensemble > 1 else ""
        network = f"{several}{config.model.name}, {parameters:,} parameters, input {shape}, {count} outputs"
        sizes = ", ".join(f"{len(found):,} {_ROLES.get(role, role)}" for role, found in self.sets.items())
        return f"network: {network}\ndata: {config.data.name}, {sizes} examples"

    def begin(self, config: ConfigDict, directory: Path) -> None:
        """Writes what is known about the data into the run's folder; where a run is continued, compares first."""
        check_same_data(directory, self.sets)
        if training.is_primary():
            write_json(directory / "data.json", describe_data(config, self.sets, self.start.preprocess))

    def finish(self, config: ConfigDict, directory: Path, trained: training.Trained, *, report: bool) -> None:
        """Writes ``result.json`` and, if wanted, ``report.html``."""
        network = self.network(config)
        result = {
            "step": int(trained.state.step),
            "scores": trained.scores,
            "parameters_sha256": training.digest(network.parameters(training.evaluated(trained.state))),
        }
        write_json(directory / "result.json", result)
        if report:
            from cnn_jax.tasks import report as page  # brings in matplotlib, which takes half a second

            page.write(directory, network, trained, self.sets)


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What makes one program differ from another, and what it is made of; of equal ones the first is used."""

    identity: tuple[Any, ...]
    run: PreparedRun = dataclasses.field(compare=False)
    config: ConfigDict = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=8)
def _program(shape: _Shape, parallel: training.DataParallel) -> training.Program:
    def problem(hyperparameters: training.Hyperparameters) -> training.Problem:
        return shape.run.problem(training.with_hyperparameters(shape.config, hyperparameters), parallel)

    return training.Program(problem, shape.run.plan(shape.config), parallel=parallel)


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
      config: With the keys of :func:`cnn_jax.tasks.default_config`.
      directory: The run's folder.
      profile: How many steps to trace first.
      report: Whether to write ``report.html``, too.
      on_evaluation: See :func:`cnn_jax.train.train`.
    """
    started = time.perf_counter()
    training.check_workdir(directory, config, may_change=training.MAY_CHANGE)
    run, parallel = prepare(config, directory), training.make_parallel(config)
    program = run.program(config, parallel)
    check_same_data(directory, run.sets)
    opened = training.open_workdir(
        directory, config, may_change=training.MAY_CHANGE, total_steps=program.plan.total_steps
    )
    with opened as changes:
        run.begin(config, directory)
        for line in (run.describe(config), f"device: {parallel.describe()}"):
            say(line)
        if changes:
            say(f"continuing with another config ({'; '.join(changes)}): the learning rate now follows its schedule")
        trained = training.train(
            program,
            seed=config.seed,
            directory=directory,
            how_to_continue=command(f"--workdir={directory}"),
            profile=profile,
            on_evaluation=on_evaluation,
        )
        if not training.is_primary():
            return
        run.finish(config, directory, trained, report=report)
    scores = run.task(config).describe(of_split(trained.scores, "test"))
    written = ", ".join(f"{name} {text}" for name, text in scores.items())
    say(f"test {written}, in {time.perf_counter() - started:.1f} s")
    say(f"the run is in {directory}" + (f"; open {directory / 'report.html'}" if report else ""))


def evaluate(config: ConfigDict, directory: Path, *, checkpoint: str, output: str | None = None) -> None:
    """Prints the scores of a checkpoint on the full test set.

    Args:
      config: Of the run.
      directory: The run's folder.
      checkpoint: ``'latest'`` or ``'best'``.
      output: A ``.csv`` file for what is right and what is predicted, one line per test example.
    """
    check_csv(output)
    (test_set,) = load_splits(config, [config.data.test])
    check_same_words(directory, test_set)
    network, state = load_run(config, directory, checkpoint=checkpoint)
    for warning in read_description(directory).get("warnings", ()):
        say(f"warning: {warning}")
    test_examples = {"test": examples(config, test_set)}
    options: dict[str, Any] = {"batch_size": config.batch_size, "summarize": network.scores}
    evaluations = training.make_evaluations(network.evaluate, test_examples, **options)
    with compiling() as announce:
        evaluations.compile(state, announce)
    scores = evaluations(state)
    counts = {"step": f"{int(state.step)}", f"test {test_set.input_kind}s": f"{len(test_set):,}"}
    print_table(f"{directory}, {checkpoint} checkpoint", [counts | network.task.describe(of_split(scores, "test"))])
    if output is not None:
        write_csv(output, list(_compared(network, state, test_set)))


def _compared(network: TaskNetwork, state: training.TrainState, found: ExampleSet) -> Iterator[dict[str, Any]]:
    """What is right and what is predicted, for every example of a set."""
    for first in range(0, len(found), _TAKEN_AT_ONCE):
        batch = take(found, range(first, min(first + _TAKEN_AT_ONCE, len(found))))
        drawn = network.drawn(batch)
        task, predictions = network.task, network.predict(state, np.asarray(network.network_input(drawn)))
        inputs = np.asarray(drawn[network.input_name])
        inside = task.inspect(inputs, predictions, functools.partial(network.activations, state, inputs))
        columns = task.targets(batch), task.rows(predictions), inside, task.compared(predictions, batch)
        for index, *cells in zip(batch["index"], *columns, strict=True):
            yield {"index": int(index), **dict(item for each in cells for item in each.items())}


def predict(
    config: ConfigDict,
    directory: Path,
    *,
    images: Sequence[str],
    output: str | None,
    checkpoint: str,
    words: Sequence[str] = (),
    count: int | None = None,
    seed: int | None = None,
) -> None:
    """Prints what the network says about the user's own images, or inputs of another kind; or makes images.

    Args:
      config: Of the run.
      directory: The run's folder.
      images: Files, and folders of files, see :func:`cnn_jax.tasks.inputs.read_inputs`.
      output: A ``.csv`` file to write it to as well; of a task that writes files a folder for these and for
        ``predictions.csv``.
      checkpoint: ``'latest'`` or ``'best'``.
      words: Of a network that makes images, see :func:`cnn_jax.tasks.generate.write`, as the following two.
      count: How many images.
      seed: Of the noise.

    Raises:
      PartlyFailedError: At the end, if some of the inputs cannot be read; the table and the file list them.
      UsageError: A path does not exist, the run has no checkpoint, or its network is given what the task draws.
    """
    task = task_class(config.experiment)
    if issubclass(task, Generation):
        if images:
            raise UsageError(f"--images={images[0]}: the network in {directory} makes images and is given none")
        generate.write(
            config, directory, words=words, count=count, seed=seed or 0, output=output, checkpoint=checkpoint
        )
        return
    if task.draw is not Task.draw:
        raise UsageError(f"--mode=predict: the network in {directory} is given what {task.__name__} draws, no files")
    for flag, value in (("words", words or None), ("count", count), ("seed", seed)):
        if value is not None:
            raise UsageError(f"--{flag} is for networks that make images, and that in {directory} does not")
    if not images:
        raise UsageError("--mode=predict needs --images=<image or folder>, several separated by commas or blanks")
    folder, table = None, output
    if task.writes_files and output:
        folder, table = Path(output), str(Path(output) / "predictions.csv")
        check_output_folder(folder, what="--output")
    else:
        check_csv(output)
    description = read_description(directory)
    own = read_inputs(images, description, whole=task.spatial)
    network, state = load_run(config, directory, checkpoint=checkpoint)
    notes, brief, full = dict(own.reasons), [], []
    predictions: dict[str, Any] = {}
    if own.read:
        with compiling() as announce:
            predictions, inside = _predictions(network, state, own.read, announce)
        if not task.spatial:
            framing = description["framing"]
            predictions = {
                name: network.task.of_file(one, own.read[name].size, framing) for name, one in predictions.items()
            }
        for name, read in own.read.items():
            one, cells = predictions[name][None], inside[name]
            brief += [
                row | brief_cells(dict(itertools.islice(cells.items(), 1))) for row in network.task.brief_rows(one)
            ]
            full += [row | cells for row in network.task.rows(one)]
            notes[name] = ", ".join(filter(None, [read.hint, *network.task.hints(one)]))
    assumed = {name: one.assumed for name, one in own.read.items()}

    def rows(cells: Sequence[Mapping[str, Any]], **columns: Mapping[str, str]) -> list[dict[str, Any]]:
        """A row for each input, also for those without cells, which cannot be read."""
        of_name, empty = dict(zip(own.read, cells, strict=True)), dict.fromkeys(cells[0] if cells else (), "")
        further = {each: {name: column.get(each, "") for name, column in columns.items()} for each in own.names}
        return [{own.kind: each, **of_name.get(each, empty), **further[each]} for each in own.names]

    print_table(f"{directory}, {checkpoint} checkpoint", rows(brief, note=notes), path=own.kind)
    if any(assumed.values()):
        say(describe_assumptions(assumed))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for path, name in file_names(predictions).items():
            image, prediction = own.read[path].array, predictions[path]
            network.task.write_prediction(folder, name, source=Path(path), image=image, prediction=prediction)
        sizes = {path: own.read[path].size for path in predictions}
        network.task.write_predictions(folder, predictions, sizes)
    if table is not None:
        write_csv(table, rows(full, assumed=assumed, note=notes))
    if own.reasons:
        raise PartlyFailedError(
            f"{len(own.reasons)} of {len(own.names)} {own.kind}s cannot be read; their notes say why"
        )


def _predictions(
    network: TaskNetwork, state: training.TrainState, read: Mapping[str, OwnInput], announce: Any
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The prediction of each input by its name, and its further cells; inputs of one size are predicted together."""
    names: dict[tuple[int, ...], list[str]] = {}
    for name, one in read.items():
        names.setdefault(one.array.shape, []).append(name)
    found: dict[str, Any] = {}
    inside: dict[str, dict[str, Any]] = {}
    for alike in names.values():
        inputs = np.stack([read[name].array for name in alike])
        predictions = network.predict(state, inputs, announce)
        cells = network.task.inspect(inputs, predictions, functools.partial(network.activations, state, inputs))
        found |= zip(alike, predictions, strict=True)
        inside |= zip(alike, cells, strict=True)
    return found, inside


def explain(config: ConfigDict, directory: Path, **options: Any) -> None:
    """Writes a page about what the network responds to in images, see :func:`cnn_jax.tasks.explain.write`."""
    from cnn_jax.tasks import explain as page  # brings in matplotlib

    page.write(config, directory, **options)


def explore(config: ConfigDict, directory: Path, **options: Any) -> None:
    """Writes a page that computes the network in the browser, or serves it; see :func:`cnn_jax.tasks.explore.show`."""
    from cnn_jax.tasks import explore as page  # brings in matplotlib

    page.show(config, directory, **options)


def summary(config: ConfigDict, *, output: str | None = None) -> None:
    """Prints the network's table, for which TFDS's data sets need not be prepared.

    Args:
      config: Names the network.
      output: A file to write it to as well, see :func:`cnn_jax.report.summary.write`.
    """
    if output is not None:
        network_summary.check_path(output)
    network = untrained(config)
    shape = network.input_shape
    title = f"{config.model.name}, input {'x'.join(map(str, shape))}, {len(network.task.outputs)} outputs"
    rows = geometry.trace(network.abstract_model, shape)
    geometry.print_table(rows, title=title)
    if output is not None:
        network_summary.write(output, rows, title=title, input_shape=shape)
        say(f"wrote {output}")


def untrained(config: ConfigDict) -> TaskNetwork:
    """The network of a config by itself: nothing is drawn, and no data set is read."""
    shape, known = tuple(config.input_shape), find_examples(config)
    as_is = data.Preprocess.scaled(shape)
    task: Task = task_class(config.experiment)(config, known)
    return make_network(config, task, as_is, input_name=known.input_name)
