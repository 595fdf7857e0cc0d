"""The training loop of any task, for one run or several together: steps, evaluations, checkpoints and signals.

Runs that are trained together share only the compiled calls. Each run has its own folder, records, checkpoints and
best evaluation, and ends by itself. An interrupted run continues from its newest checkpoint, with other runs or alone.
"""

import contextlib
import dataclasses
import math
import signal as signals
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn_jax.errors import Interrupted, UsageError
from cnn_jax.metrics import Metric
from cnn_jax.report.progress import Progress
from cnn_jax.runtime.interruption import StopRequest
from cnn_jax.runtime.terminal import say
from cnn_jax.train.checkpoints import Checkpoint, Checkpoints, NoWholeCheckpointError
from cnn_jax.train.groups import Group, Single, Stacks, VectorizedProgram
from cnn_jax.train.history import History, open_history
from cnn_jax.train.nonfinite import nans_located
from cnn_jax.train.pace import Pace
from cnn_jax.train.parallel import agreed
from cnn_jax.train.program import Program
from cnn_jax.train.state import TrainState

_SKIPPED = Metric("skipped", better="lower")  # a metric of make_step
_SAVE_SECONDS = 30.0  # the least time between checkpoints of runs that are trained together
_SAVE_SHARE = 20  # and at least this many times the duration of the last save


@dataclasses.dataclass(frozen=True)
class Trained:
    """The result of a run: the last state, on one device, and its scores, ``'split/metric' -> value``."""

    state: TrainState
    scores: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Run:
    """One of several runs that are trained together.

    Attributes:
      program: The program of the run. All runs share the compiled functions, see :meth:`Program.bind`.
      seed: The seed of the run's root key.
      directory: The folder of ``metrics.jsonl``, ``tensorboard/`` and ``checkpoints/``.
    """

    program: Program
    seed: int
    directory: Path


@dataclasses.dataclass(frozen=True)
class Ended:
    """How one of several runs ended.

    Attributes:
      index: The index of the run.
      evaluation: The number of its last evaluation.
      seconds: Its share of the training time.
      trained: The result; None if the run failed.
      stopped: Whether ``on_evaluation`` stopped the run.
      error: The error of a run that failed.
    """

    index: int
    evaluation: int
    seconds: float
    trained: Trained | None = None
    stopped: bool = False
    error: UsageError | None = None


def train(
    program: Program,
    *,
    seed: int,
    directory: Path,
    how_to_continue: str = "",
    profile: int = 0,
    on_evaluation: Callable[[int, Mapping[str, float]], None] | None = None,
) -> Trained:
    """Trains from the newest checkpoint in ``directory``, or from the start, to the end of the plan.

    Args:
      program: The problem, the plan and the devices. With several processes, all must call this with the same program.
      seed: The seed of the run's root key.
      directory: The folder of ``metrics.jsonl``, ``tensorboard/`` and ``checkpoints/``.
      how_to_continue: How the user continues the run, shown when it is interrupted.
      profile: How many steps to profile into ``profile/`` before the first step; 0 for none.
      on_evaluation: Called with the number of each evaluation, counted from 1, and its scores, after they are saved.
        An exception from it ends the run, which can be continued.

    Raises:
      Interrupted: A process received SIGTERM or Ctrl-C; the state is saved.
      UsageError: The loss is not finite (the last good checkpoint is kept), or all checkpoints are damaged.
      OSError: The disk is full; earlier checkpoints are intact.
    """

    def reported(_index: int, evaluation: int, scores: Mapping[str, float]) -> bool:
        if on_evaluation is not None:
            on_evaluation(evaluation, scores)
        return False

    plan, metric = program.plan, program.check()
    kept = Checkpoints(directory / "checkpoints", keep=plan.history_steps)
    with kept as checkpoints, contextlib.ExitStack() as opened:
        found = checkpoints.restore(program.template)
        step, metrics = int(found.state.step) if found else 0, (*program.problem.metrics, _SKIPPED)
        progress = opened.enter_context(
            Progress(plan.total_steps, steps_per_epoch=plan.steps_per_epoch, metrics=metrics, start_step=step)
        )
        start = found or Checkpoint(program.first_state(seed, announce=progress.compilation), {})
        group = opened.enter_context(Single(program, start.state, seed=seed))
        history = opened.enter_context(open_history(directory, program, checkpoints, step=step, notes=start.notes))
        if profile:
            count = min(profile, plan.total_steps - step)  # a stream ends after these steps
            progress.log(group.profile(count, directory / "profile"))
        if history.ended:
            longer = f"; to train longer: {how_to_continue} --config.epochs=<more>" if how_to_continue else ""
            progress.log(f"the run is finished at step {step} of {plan.total_steps}{longer}")
            ended = Ended(0, history.evaluation, 0.0, Trained(group.state(0), history.scores))
        else:
            group.compile(progress.compilation)  # a signal here ends the process at once: there is nothing to save
            progress.log(progress.compilation.summary())
            if step:
                progress.log(f"continuing from step {step} of {plan.total_steps}")
            loop = _Loop(group, [_Member(0, history)], reported, how_to_continue=how_to_continue, progress=progress)
            (ended,) = loop.train()
        if ended.trained is None:
            raise ended.error or AssertionError
        checkpoints.wait()
        if plan.reached(history.best, metric):
            reached = metric.format(history.scores[metric.name])
            progress.log(f"stopped at step {history.step}: {metric.name} has reached the target, {reached}")
        elif history.step < plan.total_steps:
            since = f"has not improved since step {history.best.step}"
            progress.log(f"stopped at step {history.step}: {metric.name} {since}")
    return dataclasses.replace(ended.trained, state=program.parallel.on_one_device(ended.trained.state))


def train_together(
    vectorized: VectorizedProgram,
    runs: Sequence[Run],
    *,
    size: int,
    on_evaluation: Callable[[int, int, Mapping[str, float]], bool],
) -> Iterator[Ended]:
    """Trains several runs together, each from its newest checkpoint, and yields each run when it ends.

    Args:
      vectorized: The compiled functions that all runs share.
      runs: The runs; their folders exist.
      size: How many runs are put into one stack, see :meth:`VectorizedProgram.fitting`.
      on_evaluation: Called with the index of a run, the number of its evaluation, counted from 1, and the scores.
        Returns whether to stop the run there. An exception from it ends all runs, which can be continued.

    Raises:
      Interrupted: The process received SIGTERM or Ctrl-C; all states are saved.
      OSError: The disk is full; earlier checkpoints are intact.
    """
    with contextlib.ExitStack() as opened:
        checkpoints = [
            opened.enter_context(Checkpoints(run.directory / "checkpoints", keep=run.program.plan.history_steps))
            for run in runs
        ]
        at_step: dict[tuple[int, bool], list[tuple[_Member, TrainState]]] = {}
        for index, start in enumerate(_starts(vectorized, runs, checkpoints)):
            run, step = runs[index], int(start.state.step)
            history = opened.enter_context(
                open_history(run.directory, run.program, checkpoints[index], step=step, notes=start.notes)
            )
            if history.ended:
                yield Ended(index, history.evaluation, 0.0, Trained(start.state, history.scores))
            else:
                at_step.setdefault((step, history.evaluation_due), []).append((_Member(index, history), start.state))
        while at_step:  # runs are at different steps only if an earlier save was interrupted
            pairs = at_step.pop(min(at_step))
            members = [member for member, _ in pairs]
            values = [runs[member.index].program.hyperparameters for member in members]
            indices, states = [member.index for member in members], [state for _, state in pairs]
            with Stacks(vectorized, indices, values, states, size) as group:
                del pairs, states  # the stacks hold copies: free the memory
                yield from _Loop(group, members, on_evaluation, save_seconds=_SAVE_SECONDS).train()


def _starts(vectorized: VectorizedProgram, runs: Sequence[Run], checkpoints: Sequence[Checkpoints]) -> list[Checkpoint]:
    """The newest undamaged checkpoint of each run, or its state before the first step without notes."""

    def restored(own: Checkpoints) -> Checkpoint | None:
        try:
            return own.restore(vectorized.program.template) if own.steps() else None
        except NoWholeCheckpointError as error:
            say(f"beginning again: {error}")
            own.remove_all()
            return None

    found = [restored(own) for own in checkpoints]
    if all(found):
        return [checkpoint for checkpoint in found if checkpoint is not None]
    first = vectorized.first_states([run.seed for run in runs], [run.program.hyperparameters for run in runs])
    return [checkpoint or Checkpoint(state, {}) for checkpoint, state in zip(found, first, strict=True)]


@dataclasses.dataclass
class _Member:
    """One run of the loop.

    Attributes:
      index: The index of the run.
      history: The progress of the run.
      best: The state of its best evaluation with its score and notes, until they are saved.
      seconds: Its share of the training time.
      trained: The result, when the run has ended.
      stopped: Whether ``on_evaluation`` stopped the run.
      error: The error of a run that failed.
    """

    index: int
    history: History
    best: tuple[TrainState, dict[str, Any]] | None = None
    seconds: float = 0.0
    trained: Trained | None = None
    stopped: bool = False
    error: UsageError | None = None

    def ended(self) -> Ended:
        return Ended(self.index, self.history.evaluation, self.seconds, self.trained, self.stopped, self.error)


class _Loop:
    """Trains runs that are at the same step until they end.

    Args:
      group: The states of the runs.
      members: The history of each run.
      on_evaluation: See :func:`train_together`.
      save_seconds: The least time between checkpoints; 0 to save at each evaluation.
      how_to_continue: How the user continues the run, shown when it is interrupted.
      progress: The display of the first run.
    """

    def __init__(
        self,
        group: Group,
        members: Sequence[_Member],
        on_evaluation: Callable[[int, int, Mapping[str, float]], bool],
        *,
        save_seconds: float = 0.0,
        how_to_continue: str = "",
        progress: Progress | None = None,
    ) -> None:
        self._group, self._members, self._on_evaluation = group, list(members), on_evaluation
        self._save_seconds, self._saved_at, self._saving = save_seconds, time.monotonic(), 0.0
        self._how_to_continue, self._progress = how_to_continue, progress
        self._pace, self._stop = Pace(), StopRequest(self._tell_of_stop)

    def train(self) -> Iterator[Ended]:
        """Yields each run when it ends; raises the errors of :func:`train_together`."""
        every = self._members
        with self._stop:
            while self._members:
                members, started = self._members, time.perf_counter()
                self._stop_if_asked(members)
                speed = self._make_steps()
                self._evaluate()
                if self._progress is not None and members[0].error is None:
                    history = members[0].history
                    scores = {**history.train_scores, **history.scores}
                    self._progress.update(step=history.step, scores=scores, examples_per_second=speed)
                for member in members:
                    member.seconds += (time.perf_counter() - started) / len(members)
                ended = [member for member in members if member not in self._members]
                for number, member in enumerate(ended):
                    if self._members or number:
                        self._stop_if_asked(members)
                    yield member.ended()
                self._group.keep([member.index for member in self._members])
            for member in every:  # before a late signal ends the process
                member.history.checkpoints.wait()

    def _make_steps(self) -> float:
        """Runs one compiled call, unless an interrupted evaluation must come first; returns its examples per second."""
        first = self._members[0].history
        if first.evaluation_due:
            return 0.0
        count, started = self._pace.next(first.plan.next_pause(first.step) - first.step), time.perf_counter()
        with nans_located(first.step):
            metrics = self._group.advance(count)
        seconds = time.perf_counter() - started
        self._pace.took(count, seconds)
        speed = count * first.plan.batch_size / seconds
        for member in self._members:
            with _failure_of(member):
                member.history.after_call(count, metrics[member.index])
                member.history.log.write_speed(step=member.history.step, examples_per_second=speed)
        self._members = [member for member in self._members if member.error is None]
        if self._members and first.step in first.plan.history_steps and not first.evaluation_due:
            self._save_all()
        return speed

    def _evaluate(self) -> None:
        """Evaluates if the plan evaluates at this step; then saves checkpoints and ends runs as the scores decide."""
        if not self._members or not self._members[0].history.evaluation_due:
            return
        if self._progress is not None:
            self._progress.show("evaluating")
        try:
            scores = self._group.evaluate(self._raise_if_asked)
        except _StopAskedError:
            self._stop_if_asked(self._members)
            raise
        for member in self._members:
            with _failure_of(member):
                member.history.after_evaluation(scores[member.index])
        self._members = [member for member in self._members if member.error is None]
        due = time.monotonic() - self._saved_at >= max(self._save_seconds, _SAVE_SHARE * self._saving)
        due = due or not self._save_seconds
        if due:
            self._save_all()
        for member in self._members:
            history = member.history
            if not due and history.best.step == history.step:
                member.best = self._group.state(member.index), history.note()
            member.stopped = self._on_evaluation(member.index, history.evaluation, history.scores) and not history.ended
            if member.stopped or history.ended:
                self._save(member)
                member.trained = Trained(self._group.state(member.index), history.scores)
        self._members = [member for member in self._members if member.trained is None]

    def _raise_if_asked(self) -> None:
        """Raises _StopAskedError in every process if one of them has received a signal."""
        if agreed(self._stop.signal or 0):
            raise _StopAskedError

    def _stop_if_asked(self, members: Sequence[_Member]) -> None:
        """Saves the remaining runs and raises Interrupted if one of the processes has received a signal."""
        number = agreed(self._stop.signal or 0)
        if number:
            self._save_all()
            for member in self._members:
                member.history.checkpoints.wait()
            step = max(member.history.step for member in members)
            to_continue = f"; to continue: {self._how_to_continue}" if self._how_to_continue else ""
            signal = signals.Signals(number)
            raise Interrupted(signal, f"stopped by {signal.name} at step {step}, saved{to_continue}")

    def _tell_of_stop(self, signal: signals.Signals) -> None:
        """Prints an answer to a signal at once, from another thread: the current compiled call must end first."""
        if self._progress is None:
            return
        name, again = ("Ctrl-C", "press it") if signal == signals.SIGINT else (signal.name, "send it")
        when = f"in about {math.ceil(self._pace.call_seconds)} s" if self._pace.call_seconds else "after this step"
        self._progress.log(f"{name}: saving and stopping {when}; {again} again to end at once")

    def _save_all(self) -> None:
        started = time.monotonic()
        for member in self._members:
            self._save(member)
        self._saved_at, self._saving = time.monotonic(), time.monotonic() - started

    def _save(self, member: _Member) -> None:
        """Saves the best state, if that is not done yet, and the current state."""
        history = member.history
        if member.best is not None and history.best.step != history.step:
            state, note = member.best
            history.checkpoints.save(state, **note)
        history.save(self._group.state(member.index))
        member.best = None


class _StopAskedError(Exception):
    """A signal has asked to save and stop."""


@contextlib.contextmanager
def _failure_of(member: _Member) -> Iterator[None]:
    """Turns a UsageError into the end of one run; the other runs continue."""
    try:
        yield
    except UsageError as error:
        member.error = error
