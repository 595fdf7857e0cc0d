"""The vectorised runner: trains trials together, in one compiled program, if they differ only in numbers.

These numbers are the seed and an experiment's traced hyperparameters (:class:`~cnn_jax.sweep.trial.Vectorizable`), such
as learning rate, momentum, weight decay, dropout and label smoothing. Trials with other differences (batch size, width,
optimiser) form groups, and each group is compiled once. Trials without a group are trained alone, and their logs say
why. If no trials form a group, the driver uses the workers of the local runner (:func:`reason_against`).
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType

from ml_collections import ConfigDict

from cnn_jax import schema
from cnn_jax import train as training
from cnn_jax.data.stream import Stream
from cnn_jax.errors import UsageError
from cnn_jax.report.compilation import Compilation
from cnn_jax.runtime.terminal import say
from cnn_jax.sweep import space
from cnn_jax.sweep.alone import LOG, ends_the_worker, one_line, run_alone
from cnn_jax.sweep.settings import Sweep
from cnn_jax.sweep.trial import Outcome, Preparation, Report, Train, Trial, Vectorizable

_MOST_TOGETHER = 128  # each trial has open files
_NO_OTHER = "no other trial differs from it in numbers alone"
_NO_GROUPS = "no two of its trials differ in numbers alone"


def run_vectorized(
    trials: Sequence[Trial], *, train: Train, report: Report, metric: str, reports: bool = True
) -> Iterator[Outcome]:
    """The :class:`~cnn_jax.sweep.trial.Runner` that trains groups of trials together, and other trials alone.

    The choice and its reason are printed and written to the ``log.txt`` of each trial.
    """

    def alone(some: Sequence[Trial], reason: str) -> Iterator[Outcome]:
        if some:
            _log(some, f"trained alone: {reason}")
        yield from run_alone(some, train=train, report=report, metric=metric, reports=reports)

    done = [trial for trial in trials if (trial.workdir / "result.json").exists()]
    yield from run_alone(done, train=train, report=report, metric=metric, reports=reports)
    left = [trial for trial in trials if trial not in done]
    module = importlib.import_module(train.__module__)
    if not isinstance(module, Vectorizable):
        yield from alone(left, _not_vectorizable(module))
        return
    for group in groups(left, module.traced(left[0].config) if left else ()):
        unfinished = {trial.number: trial for trial in group}
        try:
            for outcome in _run_group(group, module, alone, report=report, metric=metric, reports=reports):
                unfinished.pop(outcome.number)
                yield outcome
        except Exception as error:
            if ends_the_worker(error):
                raise
            yield from alone(list(unfinished.values()), f"together, it ended with {one_line(error)}")


def _run_group(
    group: Sequence[Trial],
    module: Vectorizable,
    alone: Callable[[Sequence[Trial], str], Iterator[Outcome]],
    *,
    report: Report,
    metric: str,
    reports: bool,
) -> Iterator[Outcome]:
    """Trains trials that differ only in traced hyperparameters."""
    reason = obstacle(group[0].config) or (_NO_OTHER if len(group) == 1 else "")
    if reason:
        yield from alone(group, reason)
        return
    preparation = module.prepare(group[0].config, group[0].workdir)
    programs: list[tuple[Trial, training.Program]] = []
    for trial in group:
        try:
            programs.append((trial, preparation.program(trial.config, training.ONE_DEVICE)))
        except UsageError as error:
            yield Outcome(trial.number, "failed", reason=one_line(error))
    whole = [trial for trial, _ in programs]
    if programs and isinstance(programs[0][1].problem.train_examples, Stream):
        yield from alone(whole, "its examples are read from disk in every step")
        return
    if len(programs) < 2:
        yield from alone(whole, _NO_OTHER)
        return
    compilation = Compilation(None, lambda line: _log(whole, line))
    vectorized = training.VectorizedProgram(programs[0][1], compilation)
    size, most = vectorized.fitting(len(programs))
    _log(whole, compilation.summary())
    if not size:
        yield from alone(whole, "two of them side by side do not fit into the memory")
        return
    most = min(most, _MOST_TOGETHER)
    for first in range(0, len(programs), most):
        some = programs[first : first + most]
        yield from _train_together(preparation, vectorized, some, size, report=report, metric=metric, reports=reports)


def groups(trials: Sequence[Trial], numbers: Sequence[str]) -> list[list[Trial]]:
    """Groups of trials that differ only in seeds and numbers. A number of 0 means 'none', which is another program.

    >>> from pathlib import Path
    >>> def trial(number, **values):
    ...     return Trial(number, values, ConfigDict({"seed": 0, "rate": 0.1, "width": 1.0} | values), Path())
    >>> trials = [trial(0), trial(1, rate=0.5, seed=3), trial(2, width=2.0), trial(3, rate=0.0)]
    >>> [[trial.number for trial in group] for group in groups(trials, ["rate"])]
    [[0, 1], [2], [3]]
    """
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(training.shape_of(trial.config, numbers), []).append(trial)
    return list(found.values())


def reason_against(sweep: Sweep) -> str:
    """Why no two trials of a sweep can be trained together, if known before it starts; empty if they can."""
    module = importlib.import_module(sweep.train.partition(":")[0])
    if not isinstance(module, Vectorizable):
        return _not_vectorizable(module)
    reason = obstacle(sweep.config)
    if reason or sweep.seeds > 1:
        return reason
    traced = module.traced(sweep.config)
    if sweep.sampler != "grid":
        leaves = (leaf for leaf, _ in space.leaves(sweep.space) if not isinstance(leaf, space.When))
        varied = {name for leaf in leaves for name in space.names(leaf)}
        return "" if varied & {"seed", *traced} else _NO_GROUPS
    shapes: set[str] = set()
    for point in space.grid(sweep.space, schema.flatten(sweep.config))[: sweep.points]:
        shape = training.shape_of(schema.override(sweep.config, point), traced)
        if shape in shapes:
            return ""
        shapes.add(shape)
    return _NO_GROUPS


def _not_vectorizable(module: ModuleType) -> str:
    return f"{module.__name__} has no function prepare(config, directory) or traced(config)"


def obstacle(config: ConfigDict) -> str:
    """Why the settings of a config prevent training its trials together; empty if they do not."""
    for key, value in (("debug_nans", True), ("shard_parameters", True), ("parallel", "pmap")):
        if config.get(key) == value:
            return f"{key}={value!r} is for one run"
    return ""


def _train_together(
    preparation: Preparation,
    vectorized: training.VectorizedProgram,
    programs: Sequence[tuple[Trial, training.Program]],
    size: int,
    *,
    report: Report,
    metric: str,
    reports: bool,
) -> Iterator[Outcome]:
    count, lanes = len(programs), len(training.lanes())
    _log([trial for trial, _ in programs], f"{count} trials in one program, in stacks of {size}, {lanes} at a time")

    def outcome(trial: Trial, ended: training.Ended) -> Outcome:
        number, seconds = trial.number, round(ended.seconds, 3)
        if ended.trained is None:
            return Outcome(number, "failed", reason=str(ended.error), seconds=seconds)
        scores = ended.trained.scores
        score = scores.get(metric)
        if score is None or score != score:
            wrong = "is not a number" if metric in scores else f"is not among {', '.join(scores)}"
            return Outcome(number, "failed", reason=f"its {metric} {wrong}", seconds=seconds)
        if ended.stopped:
            return Outcome(number, "pruned", score, f"pruned at evaluation {ended.evaluation}", seconds)
        preparation.finish(trial.config, trial.workdir, ended.trained, report=reports)
        return Outcome(number, "complete", score, seconds=seconds)

    with contextlib.ExitStack() as opened:
        trials, runs = [], []
        for trial, program in programs:
            try:
                opened.enter_context(training.open_workdir(trial.workdir, trial.config))
            except training.InUseError:  # another live worker trains it
                continue
            except UsageError as error:
                yield Outcome(trial.number, "failed", reason=one_line(error))
                continue
            preparation.begin(trial.config, trial.workdir)
            trials.append(trial)
            runs.append(training.Run(program, trial.config.seed, trial.workdir))

        def on_evaluation(index: int, evaluation: int, scores: Mapping[str, float]) -> bool:
            return report(trials[index], evaluation, scores)

        for ended in training.train_together(vectorized, runs, size=size, on_evaluation=on_evaluation):
            yield outcome(trials[ended.index], ended)


def _log(trials: Sequence[Trial], line: str) -> None:
    """Prints a line, and writes it to the log of each trial."""
    numbers = ", ".join(str(trial.number) for trial in trials)
    say(f"trial{'s' * (len(trials) > 1)} {numbers}: {line}")
    for trial in trials:
        trial.workdir.mkdir(parents=True, exist_ok=True)
        with open(trial.workdir / LOG, "a") as log:
            log.write(f"{line}\n")
