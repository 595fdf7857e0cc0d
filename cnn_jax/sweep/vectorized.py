"""The vectorised runner: trials that differ only in numbers train together, in one compiled program.

Learning rate, momentum, weight decay, dropout, label smoothing: the numbers that an experiment's program takes as
arguments (``traced`` in its module), and the seed. Trials with other differences (batch size, width, optimiser)
form groups, and each group is compiled once. What would not pay is trained alone, and its log says why; where that is
all of a sweep, the driver leaves it to the local runner's workers instead (:func:`would_not_pay`).
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType

import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from cnn_jax import config as configs
from cnn_jax import train as training
from cnn_jax.data.stream import Stream
from cnn_jax.errors import UsageError
from cnn_jax.runtime.memory import available_memory
from cnn_jax.sweep import space, together
from cnn_jax.sweep.alone import LOG, ends_the_worker, one_line, run_alone
from cnn_jax.sweep.settings import Sweep
from cnn_jax.sweep.trial import Outcome, Report, Train, Trial

_MEMORY_PART = 0.8  # of what is free
_MOST_TOGETHER = 128  # each has files open
_LONELY = "no other trial differs from it in numbers alone"
_ALL_LONELY = "no two of its trials differ in numbers alone"


def run_vectorized(
    trials: Sequence[Trial], *, train: Train, report: Report, metric: str, reports: bool = True
) -> Iterator[Outcome]:
    """The :class:`~cnn_jax.sweep.trial.Runner` that trains trials together, and alone where that would not pay.

    Which it was, and why, is printed, and in the ``log.txt`` of each trial.
    """

    def alone(some: Sequence[Trial], reason: str) -> Iterator[Outcome]:
        if some:
            _log(some, f"trained alone: {reason}")
        yield from run_alone(some, train=train, report=report, metric=metric, reports=reports)

    done = [trial for trial in trials if (trial.workdir / "result.json").exists()]
    yield from run_alone(done, train=train, report=report, metric=metric, reports=reports)
    module = importlib.import_module(train.__module__)
    numbers = _numbers(module, trials[0].config) if trials else ()
    for group in groups([trial for trial in trials if trial not in done], numbers):
        left = {trial.number: trial for trial in group}
        try:
            for outcome in _run_group(group, module, alone, report=report, metric=metric, reports=reports):
                left.pop(outcome.number)
                yield outcome
        except Exception as error:
            if ends_the_worker(error):
                raise
            yield from alone(list(left.values()), f"together, it ended with {one_line(error)}")


def _run_group(
    group: Sequence[Trial],
    module: ModuleType,
    alone: Callable[[Sequence[Trial], str], Iterator[Outcome]],
    *,
    report: Report,
    metric: str,
    reports: bool,
) -> Iterator[Outcome]:
    """Trains trials that differ in numbers alone."""
    reason = _unprepared(module) or obstacle(group[0].config) or (_LONELY if len(group) == 1 else "")
    if reason:
        yield from alone(group, reason)
        return
    prepared: together.Prepared = module.prepare(group[0].config, group[0].workdir)
    whole, refused = _checked(group, prepared)
    yield from refused
    if whole and isinstance(prepared.task(whole[0].config, training.ONE_DEVICE).train_examples, Stream):
        yield from alone(whole, "its pictures are read from disk in every step")
        return
    if len(whole) < 2:
        yield from alone(whole, _LONELY)
        return
    keys = tuple(training.numbers_of(whole[0].config, _numbers(module, whole[0].config)))
    program = together.Program(prepared, whole[0].config, keys)
    size, most = _fitting(program, len(whole))
    if not size:
        yield from alone(whole, "two of them side by side do not fit into the memory")
        return
    for first in range(0, len(whole), min(most, _MOST_TOGETHER)):
        batch = whole[first : first + min(most, _MOST_TOGETHER)]
        yield from _train_together(program, batch, size, report=report, metric=metric, reports=reports)


def groups(trials: Sequence[Trial], numbers: Sequence[str]) -> list[list[Trial]]:
    """Trials that differ in seeds and numbers alone; a number of 0 says 'none', which is another program.

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


def would_not_pay(sweep: Sweep) -> str:
    """Why no two trials of a sweep are to be trained together, as far as is known beforehand; empty for no reason."""
    module = importlib.import_module(sweep.train.partition(":")[0])
    reason = _unprepared(module) or obstacle(sweep.config)
    if reason or sweep.seeds > 1:
        return reason
    numbers = _numbers(module, sweep.config)
    if sweep.engine != "grid":
        leaves = (leaf for leaf, _ in space.leaves(sweep.space) if not isinstance(leaf, space.When))
        varied = {name for leaf in leaves for name in space.names(leaf)}
        return "" if varied & {"seed", *numbers} else _ALL_LONELY
    shapes: set[str] = set()
    for point in space.grid(sweep.space, configs.flatten(sweep.config))[: sweep.points]:
        shape = training.shape_of(configs.override(sweep.config, point), numbers)
        if shape in shapes:
            return ""
        shapes.add(shape)
    return _ALL_LONELY


def _numbers(module: ModuleType, config: ConfigDict) -> Sequence[str]:
    """The keys of a config that its program takes as arguments."""
    return module.traced(config) if hasattr(module, "traced") else ()


def _unprepared(module: ModuleType) -> str:
    return "" if hasattr(module, "prepare") else f"{module.__name__} has no function prepare(config, directory)"


def obstacle(config: ConfigDict) -> str:
    """Why trials of a config are not to be trained together, as far as it says; empty for no reason."""
    for key, value in (("debug_nans", True), ("shard_parameters", True), ("parallel", "pmap")):
        if config.get(key) == value:
            return f"{key}={value!r} is for one run"
    return ""


def _checked(group: Sequence[Trial], prepared: together.Prepared) -> tuple[list[Trial], list[Outcome]]:
    """The trials whose values are in range, which cannot be told of traced ones; and the outcomes of the others."""
    whole, refused = [], []
    for trial in group:
        try:
            prepared.task(trial.config, training.ONE_DEVICE)
            whole.append(trial)
        except UsageError as error:
            refused.append(Outcome(trial.number, "failed", reason=one_line(error)))
    return whole, refused


def _fitting(program: together.Program, runs: int) -> tuple[int, int]:
    """How many runs go into one stack, and how many can be held at a time; 0 and 0 if not even one fits.

    A stack that is advanced needs what its compiled program says; every run, in whichever stack, its state and that of
    its best evaluation.
    """
    lanes = together.lanes()
    device = lanes[0]
    size = together.stack_size(runs, lanes, _num_bytes(program.state.params))
    state_bytes = _num_bytes(program.state)
    room = _MEMORY_PART * _free_bytes(device) / max(lanes.count(device), 1)
    while size:
        analysis = program.compile_steps(size, program.plan.call_length(0), device).memory_analysis()
        if analysis is None:
            return size, runs
        needed = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes
        needed += size * state_bytes - analysis.alias_size_in_bytes
        if needed <= room:
            stacks = 1 + int((room - needed) / (2 * size * state_bytes))
            return size, size * stacks * len(lanes)
        size = min(size - 1, int(size * room / needed))
    return 0, 0


def _num_bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _free_bytes(device: jax.Device) -> float:
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return float(available_memory())


def _train_together(
    program: together.Program, trials: Sequence[Trial], size: int, *, report: Report, metric: str, reports: bool
) -> Iterator[Outcome]:
    _log(trials, f"{len(trials)} trials in one program, in stacks of {size}, {len(together.lanes())} at a time")

    def on_evaluation(member: together.Member) -> bool:
        return report(member.trial, member.course.evaluation, member.course.scores)

    def outcome(ended: together.Ended) -> Outcome:
        member, course = ended.member, ended.member.course
        number, seconds = member.trial.number, round(member.seconds, 3)
        if ended.trained is None:
            return Outcome(number, "failed", reason=str(ended.error), seconds=seconds)
        score = course.scores.get(metric)
        if score is None or score != score:
            wrong = "is not a number" if metric in course.scores else f"is not among {', '.join(course.scores)}"
            return Outcome(number, "failed", reason=f"its {metric} {wrong}", seconds=seconds)
        if ended.pruned:
            return Outcome(number, "pruned", score, f"pruned at evaluation {course.evaluation}", seconds)
        course.checkpoints.wait()
        program.prepared.finish(member.trial.config, member.trial.workdir, ended.trained, report=reports)
        return Outcome(number, "complete", score, seconds=seconds)

    with contextlib.ExitStack() as opened:
        whole = []
        for trial in trials:
            try:
                opened.enter_context(training.open_workdir(trial.workdir, trial.config))
            except training.InUseError:  # another worker lives, and is at it
                continue
            except UsageError as error:
                yield Outcome(trial.number, "failed", reason=one_line(error))
                continue
            program.prepared.begin(trial.config, trial.workdir)
            whole.append(trial)
        if not whole:
            return
        trials = whole
        checkpoints = [opened.enter_context(training.Checkpoints(trial.workdir / "checkpoints")) for trial in trials]
        found = together.start_states(program, trials, checkpoints)
        started: dict[int, list[tuple[together.Member, training.TrainState]]] = {}
        for trial, own, first in zip(trials, checkpoints, found, strict=True):
            state, step = first.state, int(first.state.step)
            course = opened.enter_context(
                training.open_course(trial.workdir, program.plan, program.monitor, own, step=step, notes=first.notes)
            )
            member = together.Member(trial, course)
            if course.ended:
                yield outcome(together.Ended(member, training.Trained(state, course.scores)))
            else:
                started.setdefault(step, []).append((member, state))
        for pairs in started.values():  # of several steps only where saving was cut short
            members, states = zip(*pairs, strict=True)
            batch = together.Batch(program, members, states, size=size, on_evaluation=on_evaluation)
            for ended in batch.train():
                yield outcome(ended)


def _log(trials: Sequence[Trial], line: str) -> None:
    """Prints a line, and writes it into the log of each trial."""
    numbers = ", ".join(str(trial.number) for trial in trials)
    print(f"trial{'s' * (len(trials) > 1)} {numbers}: {line}", flush=True)
    for trial in trials:
        trial.workdir.mkdir(parents=True, exist_ok=True)
        with open(trial.workdir / LOG, "a") as log:
            log.write(f"{line}\n")
