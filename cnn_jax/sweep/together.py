"""Runs that differ in numbers alone, trained together: one compiled program over stacks of their states.

A stack is a few runs side by side (``vmap``); lanes, one for each device or for each core of a CPU, advance several
stacks at the same time. Between the compiled calls every run is an ordinary one: it has its own folder, records,
checkpoints, best evaluation, and an end of its own. Whatever was killed goes on from there, together or alone.
"""

import dataclasses
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree
from ml_collections import ConfigDict

from cnn_jax import train as training
from cnn_jax.data.batches import padded_batches
from cnn_jax.data.stream import Stream
from cnn_jax.errors import Interrupted, UsageError
from cnn_jax.runtime.xla import options_for_single_use
from cnn_jax.sweep.trial import Trial
from cnn_jax.train import StopRequest

_MOST_SIDE_BY_SIDE = 8  # runs in a stack on a CPU
_STACK_BYTES = 2**21  # of their parameters: what stays in a core's cache
_SAVE_SECONDS = 30.0  # between checkpoints, or
_SAVE_SHARE = 20  # so many times what saving takes


@runtime_checkable
class Prepared(Protocol):
    """What an experiment makes of a config, to be shared by configs that differ in numbers only.

    ``prepare(config, directory)`` in the experiment's module, beside its ``train``, returns it.
    """

    def plan(self, config: ConfigDict) -> training.Plan:
        """For how long to train."""
        ...

    def task(self, config: ConfigDict, parallel: training.Parallel) -> training.Task:
        """What the loop has to know."""
        ...

    def program(self, config: ConfigDict, parallel: training.Parallel) -> training.Program:
        """The functions that all these configs share, with their numbers as arguments."""
        ...

    def begin(self, config: ConfigDict, directory: Path) -> None:
        """What is written into a run's folder, which is open, before it trains."""
        ...

    def finish(self, config: ConfigDict, directory: Path, trained: training.Trained, *, report: bool) -> None:
        """Writes ``result.json`` and, if asked, ``report.html``."""
        ...


# --- the program ------------------------------------------------------------------------------------------------------


class Program:
    """The compiled functions of runs that differ in numbers alone.

    Args:
      prepared: of all of them.
      config: of one of them.
      keys: the dotted keys of the numbers in which they may differ.
    """

    def __init__(self, prepared: Prepared, config: ConfigDict, keys: Sequence[str]) -> None:
        self.prepared, self.keys = prepared, tuple(keys)
        self.plan = prepared.plan(config)
        self._of_one = prepared.program(config, training.ONE_DEVICE)
        task = prepared.task(config, training.ONE_DEVICE)
        self.monitor = task.monitor
        assert not isinstance(task.train_examples, Stream)
        self._examples = task.train_examples
        self._eval_examples = dict(task.eval_examples)
        self._made: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self._locks: dict[Any, threading.Lock] = {}
        self.state = self._of_one.template

    def init(self, roots: Key[Array, " runs"], values: Mapping[str, Array]) -> training.TrainState:
        """The stacked states of runs before their first step."""
        options = options_for_single_use(jax.default_backend())
        return jax.jit(jax.vmap(self._of_one.init), compiler_options=options)(roots, values)

    def steps(self, stack: "Stack", count: int) -> training.Metrics:
        """Advances a stack by ``count`` steps; the metrics have the axes runs, steps."""
        examples = self._placed(stack.device)[0]
        compiled = self.compile_steps(stack.size, count, stack.device)
        stack.states, metrics = compiled(stack.states, stack.values, examples)
        return jax.device_get(metrics)

    def compile_steps(self, size: int, count: int, device: jax.Device) -> Any:
        """The compiled ``steps(states, values, examples)`` for a stack of so many runs."""

        def steps(states: training.TrainState, values: Mapping[str, Array], examples: training.Batch) -> Any:
            return jax.vmap(lambda state, own: self._of_one.steps(state, (own, examples), count))(states, values)

        where = jax.sharding.SingleDeviceSharding(device)

        def compiled() -> Any:
            shapes = _shapes((self._stacked(size), self._stacked_values(size), self._examples), where)
            return jax.jit(steps, donate_argnums=0).lower(*shapes).compile()

        return self._once(("steps", size, count, device), compiled)

    def evaluate(self, stack: "Stack") -> list[dict[str, float]]:
        """The scores of each run of a stack: ``'split/metric' -> value``."""

        def evaluate(states: training.TrainState, values: Mapping[str, Array], examples: Any, *batches: Any) -> Any:
            def one(state: training.TrainState, own: Mapping[str, Array]) -> Any:
                return self._of_one.evaluation(state, (own, examples), *batches)

            return jax.vmap(one)(states, values)

        scores: list[dict[str, float]] = [{} for _ in range(stack.size)]
        for split, examples in self._placed(stack.device)[1].items():
            given = training.evaluated(stack.states), stack.values, *examples
            name = "evaluate", split, stack.size, stack.device
            compiled = self._once(name, partial(_compiled, evaluate, given))
            metrics = jax.device_get(compiled(*given))
            for number, of_run in enumerate(scores):
                averages = training.averages(_part(metrics, number))
                of_run.update({f"{split}/{name}": value for name, value in averages.items()})
        return scores

    def _placed(self, device: jax.Device) -> tuple[training.Batch, dict[str, Any]]:
        """All examples on a device."""

        def place() -> Any:
            size = self.plan.batch_size

            def with_batches(examples: Any) -> Any:
                return examples, *padded_batches(len(next(iter(examples.values()))), size)

            every = {
                split: jax.device_put(with_batches(examples), device) for split, examples in self._eval_examples.items()
            }
            return jax.device_put(dict(self._examples), device), every

        return self._once(("examples", device), place)

    def _once(self, name: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:  # the other lanes wait for what one of them compiles
            if name not in self._made:
                self._made[name] = make()
        return self._made[name]

    def _stacked(self, size: int) -> training.TrainState:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype), self.state)

    def _stacked_values(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        return {key: jax.ShapeDtypeStruct((size,), jnp.float32) for key in self.keys}


def _compiled(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    return jax.jit(function).lower(*arguments).compile()


def _part(tree: PyTree, row: int) -> Any:
    """One run's part of arrays on the host."""
    return jax.tree.map(lambda leaf: leaf[row, ...], tree)


def _shapes(tree: PyTree, where: jax.sharding.Sharding) -> PyTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree)


# --- stacks and lanes -------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Stack:
    """Runs side by side on one device: their states and numbers, with a leading axis; the last may be repeated."""

    states: training.TrainState
    values: dict[str, Array]
    device: jax.Device

    @property
    def size(self) -> int:
        """How many runs, repetitions included."""
        return len(self.states.step)

    def state(self, row: int) -> training.TrainState:
        """The state of one run."""
        return _row(self.states, row)


@jax.jit
def _row(states: training.TrainState, row: Any) -> training.TrainState:
    return jax.tree.map(lambda leaf: leaf[row], states)


@jax.jit
def _stacked(states: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def lanes() -> list[jax.Device]:
    """Where stacks advance at the same time: on every device, or, on a CPU, once for every core."""
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        return devices
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return devices[:1] * cores


def stack_size(runs: int, lanes: Sequence[jax.Device], parameter_bytes: int) -> int:
    """How many runs are put side by side.

    On accelerators as many as there are for each; whether they fit is asked of the compiled program. On a CPU as many
    as a core's cache has room for: eight LeNet-5 side by side took two thirds of the time of one after the other, four
    of its fourfold width 1.2 times as long (docs/decisions.md).
    """
    share = -(-runs // len(lanes))
    if lanes[0].platform != "cpu":
        return share
    return max(1, min(share, _MOST_SIDE_BY_SIDE, _STACK_BYTES // max(parameter_bytes, 1)))


# --- the loop ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Member:
    """One run under way.

    Attributes:
      trial: which.
      course: its scores so far.
      place: which stack, and which row of it.
      best: the state of its best evaluation, and what it is to be saved with, until that is done.
      seconds: its share of the time.
    """

    trial: Trial
    course: training.Course
    place: tuple[int, int] = (0, 0)
    best: tuple[training.TrainState, dict[str, Any]] | None = None
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Ended:
    """The end of a run: its last state, or the error that was it; ``pruned`` says whether it was told to end."""

    member: Member
    trained: training.Trained | None
    pruned: bool = False
    error: UsageError | None = None


def start_states(
    program: Program, trials: Sequence[Trial], checkpoints: Sequence[training.Checkpoints]
) -> list[training.Checkpoint]:
    """Each run's newest checkpoint, or its state before the first step without notes."""
    values = values_of(program.keys, trials)
    roots = jnp.stack([jax.random.key(trial.config.seed) for trial in trials])
    found = [_restored(own, program.state) if own.steps() else None for own in checkpoints]
    if all(found):
        return [checkpoint for checkpoint in found if checkpoint is not None]
    first = program.init(roots, values)
    return [checkpoint or training.Checkpoint(_row(first, row), {}) for row, checkpoint in enumerate(found)]


def _restored(checkpoints: training.Checkpoints, template: training.TrainState) -> training.Checkpoint | None:
    """A run's newest whole checkpoint; None, for a run to begin again, if all are damaged."""
    try:
        return checkpoints.restore(template)
    except training.NoWholeCheckpointError as error:
        print(f"beginning again: {error}", flush=True)
        checkpoints.remove_all()
        return None


def values_of(keys: Sequence[str], trials: Sequence[Trial]) -> dict[str, Array]:
    """The numbers in which trials differ, stacked."""

    def value(trial: Trial, key: str) -> float:
        group: Any = trial.config
        for name in key.split("."):
            group = group[name]
        return group

    return {key: jnp.array([value(trial, key) for trial in trials], jnp.float32) for key in keys}


class Batch:
    """Runs that stand at the same step, trained to their ends.

    Args:
      program: of these runs.
      members: the runs.
      states: one for each.
      size: of a stack.
      on_evaluation: told of each evaluation of each run; its answer is whether to stop it there.
    """

    def __init__(
        self,
        program: Program,
        members: Sequence[Member],
        states: Sequence[training.TrainState],
        *,
        size: int,
        on_evaluation: Callable[[Member], bool],
    ) -> None:
        self._program, self._size, self._on_evaluation = program, size, on_evaluation
        self._members = list(members)
        self._saved_at, self._saving = time.monotonic(), 0.0
        self._stack(states)

    def train(self) -> Iterator[Ended]:
        """Yields each run when it has ended.

        Raises:
          Interrupted: SIGTERM or Ctrl-C; all states are saved.
        """
        plan = self._program.plan
        with StopRequest() as stop, ThreadPoolExecutor(len(lanes())) as pool:
            while self._members:
                started, step = time.perf_counter(), self._members[0].course.step
                count = plan.call_length(step)
                metrics = list(pool.map(self._program.steps, self._stacks, itertools.repeat(count)))
                everybody = list(self._members)
                failed = list(self._after_call(count, metrics))
                self._drop(failed)
                ended: list[Ended] = []
                if self._members and plan.evaluates_at(step + count):
                    ended = self._after_evaluation(list(pool.map(self._program.evaluate, self._stacks)))
                    self._drop(ended)
                for member in everybody:
                    member.seconds += (time.perf_counter() - started) / len(everybody)
                self._heed(stop, step + count)
                for one in failed + ended:
                    yield one
                    self._heed(stop, step + count)
                if self._members and len(self._members) <= len(self._stacks) * self._size // 2:
                    self._stack([self._state(member) for member in self._members])

    def _heed(self, stop: StopRequest, step: int) -> None:
        """Saves what is left and ends, if that has been asked for."""
        if stop.signal:
            self._save(self._members)
            for member in self._members:
                member.course.checkpoints.wait()
            raise Interrupted(stop.signal, f"stopped by {stop.signal.name} at step {step}, saved")

    def _drop(self, ended: Sequence[Ended]) -> None:
        gone = {one.member.trial.number for one in ended}
        self._members = [member for member in self._members if member.trial.number not in gone]

    def _stack(self, states: Sequence[training.TrainState]) -> None:
        """Puts the runs that are left side by side, equally many in each stack."""
        own, runs = lanes(), len(self._members)
        self._size = min(self._size, -(-runs // len(own)))
        values, self._stacks = values_of(self._program.keys, [member.trial for member in self._members]), []
        for number, first in enumerate(range(0, runs, self._size)):
            rows = [min(first + row, runs - 1) for row in range(self._size)]  # the last one fills up
            for row, index in enumerate(rows):
                if first + row < runs:
                    self._members[index].place = number, row
            device = own[number % len(own)]
            stacked = _stacked([jax.device_put(states[index], device) for index in rows])
            numbers = {key: array[np.array(rows)] for key, array in values.items()}
            self._stacks.append(Stack(stacked, jax.device_put(numbers, device), device))

    def _state(self, member: Member) -> training.TrainState:
        number, row = member.place
        return self._stacks[number].state(row)

    def _after_call(self, count: int, metrics: Sequence[training.Metrics]) -> Iterator[Ended]:
        for member in self._members:
            number, row = member.place
            try:
                member.course.after_call(count, _part(metrics[number], row))
            except UsageError as error:
                yield Ended(member, None, error=error)

    def _after_evaluation(self, scores: Sequence[Sequence[dict[str, float]]]) -> list[Ended]:
        ended = []
        for member in self._members:
            course = member.course
            number, row = member.place
            try:
                course.after_evaluation(scores[number][row])
            except UsageError as error:
                ended.append(Ended(member, None, error=error))
                continue
            if course.best.step == course.step:
                member.best = self._state(member), course.note()
            pruned = self._on_evaluation(member) and not course.ended
            if pruned or course.ended:
                trained = training.Trained(self._state(member), course.scores)
                ended.append(Ended(member, trained, pruned))
        failed = {one.member.trial.number for one in ended if one.error}
        whole = [member for member in self._members if member.trial.number not in failed]
        if time.monotonic() - self._saved_at > max(_SAVE_SECONDS, _SAVE_SHARE * self._saving):
            started = time.monotonic()
            self._save(whole)
            self._saved_at, self._saving = time.monotonic(), time.monotonic() - started
        else:
            self._save([one.member for one in ended if not one.error])
        return ended

    def _save(self, members: Sequence[Member]) -> None:
        """Saves runs as they would have saved themselves: the best state, and the one they are in."""
        for member in members:
            course = member.course
            if member.best is not None and member.best[0].step != course.step:
                course.checkpoints.save(member.best[0], **member.best[1])
            course.save(self._state(member))
            member.best = None
