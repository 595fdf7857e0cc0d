"""Groups of runs on devices: one run on all devices of its program, or many runs in stacks, each on one device.

A stack is several runs under one ``vmap``. A lane is a device, or a core of a CPU; the lanes train several stacks at
the same time.
"""

import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from cnn_jax.data.batches import padded_batches
from cnn_jax.data.stream import Stream
from cnn_jax.report.compilation import Announce, silent
from cnn_jax.runtime.memory import available_memory, release_freed_memory
from cnn_jax.runtime.xla import options_for_single_use
from cnn_jax.train.feed import Feed, make_streamed_steps
from cnn_jax.train.pace import Pace, nothing
from cnn_jax.train.profile import profile_steps
from cnn_jax.train.program import Hyperparameters, Program
from cnn_jax.train.state import TrainState, evaluated
from cnn_jax.train.step import Batch, Metrics, Totals, added, averages

_MOST_SIDE_BY_SIDE = 8  # the most runs in a stack on a CPU
_STACK_BYTES = 2**21  # the most bytes of parameters in a stack on a CPU: they stay in a core's cache
MEMORY_FRACTION = 0.8  # the part of the free memory that runs trained together may use


@runtime_checkable
class Group(Protocol):
    """Runs at the same step, each identified by its index."""

    def advance(self, count: int) -> Mapping[int, Metrics]:
        """Runs ``count`` steps and returns the metrics of each run, with an axis of steps."""
        ...

    def evaluate(self, between: Callable[[], None]) -> Mapping[int, dict[str, float]]:
        """The scores of each run: ``'split/metric' -> value``.

        Args:
          between: Called before each compiled call, possibly in several threads. An exception from it ends the
            evaluation.
        """
        ...

    def state(self, index: int) -> TrainState:
        """The state of a run. The next steps of a :class:`Single` donate its arrays."""
        ...

    def keep(self, indices: Sequence[int]) -> None:
        """Drops all other runs."""
        ...


class Single:
    """One run, index 0, on all devices of its program, with examples in memory or from a stream; a context manager.

    Args:
      program: The program of the run.
      state: The state to start from; the first steps donate its arrays.
      seed: The seed of the run's root key, which decides the order of a stream.
    """

    def __init__(self, program: Program, state: TrainState, *, seed: int) -> None:
        self._program, self._state, self._evaluations = program, state, program.evaluations()
        self._opened = contextlib.ExitStack()
        examples, plan, parallel = program.problem.train_examples, program.plan, program.parallel
        if isinstance(examples, Stream):
            key, sizes = jax.random.key(seed), {"batch_size": plan.batch_size, "total_steps": plan.total_steps}
            feed = self._opened.enter_context(Feed(examples, key, **sizes, parallel=parallel))
            self._steps, self._examples = make_streamed_steps(program.streamed_step), feed
        else:
            self._steps, self._examples = program.steps, parallel.replicate(examples)

    def __enter__(self) -> "Single":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def advance(self, count: int) -> dict[int, Metrics]:
        """Runs ``count`` steps."""
        self._state, metrics = self._steps(self._state, self._examples, count)
        return {0: metrics}

    def compile(self, announce: Announce) -> None:
        """Compiles the steps and the evaluation, so that no compilation interrupts the run later.

        Args:
          announce: Says what is being compiled.
        """
        with announce("training steps"):
            if isinstance(self._examples, Feed):
                self._program.compile_streamed_step(self._state, self._examples.sample_batch())
            else:
                self._program.compile_steps(self._state, self._examples)
        self._evaluations.compile(self._state, announce)
        release_freed_memory()

    def evaluate(self, between: Callable[[], None] = nothing) -> dict[int, dict[str, float]]:
        """The scores of the run."""
        return {0: self._evaluations(self._state, between=between)}

    def state(self, index: int) -> TrainState:
        """The state; the next steps donate its arrays."""
        return self._state

    def keep(self, indices: Sequence[int]) -> None:
        """Does nothing: there are no other runs."""

    def profile(self, count: int, directory: Path) -> str:
        """Profiles ``count`` extra steps that do not change the run; returns a line that says where the trace is."""
        longest = self._program.plan.longest_call
        return profile_steps(self._steps, self._state, self._examples, count, longest, directory)


class VectorizedProgram:
    """The functions of a program for stacks of runs, compiled for one device each. The examples stay on the devices.

    Args:
      program: The program of one of the runs, with examples in memory.
      announce: Says what is being compiled.
    """

    def __init__(self, program: Program, announce: Announce = silent) -> None:
        self.program, self._announce = program, announce
        self._functions, self._plan = program.functions, program.plan
        self._keys = tuple(program.hyperparameters)
        problem = program.problem
        assert not isinstance(problem.train_examples, Stream)
        self._examples, self._eval_examples = problem.train_examples, dict(problem.eval_examples)
        self._made: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self._locks: dict[Any, threading.Lock] = {}

    def first_states(self, seeds: Sequence[int], hyperparameters: Sequence[Hyperparameters]) -> list[TrainState]:
        """The states of several runs before their first step."""
        roots, options = jnp.stack(list(map(jax.random.key, seeds))), options_for_single_use(jax.default_backend())
        init = jax.jit(jax.vmap(self._functions.init), compiler_options=options)
        states = init(roots, self.stacked_values(hyperparameters))
        return [_row(states, row) for row in range(len(seeds))]

    def stacked_values(self, hyperparameters: Sequence[Hyperparameters]) -> dict[str, Array]:
        """The traced hyperparameters of several runs, each as an array (runs,)."""
        return {key: jnp.array([own[key] for own in hyperparameters], jnp.float32) for key in self._keys}

    def steps(self, size: int, device: jax.Device) -> Any:
        """The compiled ``steps(states, values, examples, count) -> (states, metrics)`` of a stack of ``size`` runs.

        States and values have shape (runs, ...), metrics (runs, steps); the states are donated.
        """

        def steps(states: TrainState, values: Mapping[str, Array], examples: Batch, count: Array) -> Any:
            return _each(lambda state, own: self._functions.steps(state, (own, examples), count), states, values)

        def compiled() -> Any:
            values = {key: jax.ShapeDtypeStruct((), jnp.float32) for key in self._keys}
            stacked = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype), (self.program.template, values)
            )
            shapes = _shapes((*stacked, self._examples, np.int32(1)), jax.sharding.SingleDeviceSharding(device))
            with self._announce(f"training steps of {size} runs"):
                return jax.jit(steps, donate_argnums=0).lower(*shapes).compile()

        return self._once(("steps", size, device), compiled)

    def evaluate(self, stack: "_Stack", between: Callable[[], None]) -> list[dict[str, float]]:
        """The scores of each run of a stack: ``'split/metric' -> value``."""

        def evaluate(states: TrainState, values: Mapping[str, Array], examples: Any, *batches: Any) -> Any:
            return _each(
                lambda state, own: self._functions.evaluation(state, (own, examples), *batches), states, values
            )

        summarize = self.program.problem.summarize
        scores: list[dict[str, float]] = [{} for _ in range(stack.size)]
        for split, examples in self.placed(stack.device)[1].items():
            given = evaluated(stack.states), stack.values, *examples
            name = "evaluate", split, stack.size, stack.device
            compiled = self._once(name, functools.partial(_compiled, evaluate, (*given, np.int32(0), np.int32(1))))
            totals: list[Totals] = [{} for _ in range(stack.size)]
            for first, count in stack.pace.calls(len(examples[1]), between):
                metrics = jax.device_get(compiled(*given, np.int32(first), np.int32(count)))
                totals = [added(total, _of_row(metrics, row), count) for row, total in enumerate(totals)]
            for of_run, total in zip(scores, totals, strict=True):
                own = summarize(averages(total))
                of_run.update({f"{split}/{metric}": value for metric, value in own.items()})
        return scores

    def placed(self, device: jax.Device) -> tuple[Batch, dict[str, Any]]:
        """All examples on a device: the training examples; split -> (examples, batches of indices, their masks)."""

        def place() -> Any:
            def with_batches(examples: Any) -> Any:
                return examples, *padded_batches(len(next(iter(examples.values()))), self._plan.batch_size)

            every = {
                split: jax.device_put(with_batches(examples), device) for split, examples in self._eval_examples.items()
            }
            return jax.device_put(dict(self._examples), device), every

        return self._once(("examples", device), place)

    def fitting(self, runs: int) -> tuple[int, int]:
        """How many runs fit into one stack, and how many into memory at the same time; 0 and 0 if not even one fits.

        A stack in training needs the memory that its compiled steps report. Every run needs memory for its state and
        for the state of its best evaluation.
        """
        devices = lanes()
        device = devices[0]
        template = self.program.template
        size, state_bytes = stack_size(runs, devices, _num_bytes(template.params)), _num_bytes(template)
        room = MEMORY_FRACTION * free_bytes(device) / max(devices.count(device), 1)
        while size:
            analysis = self.steps(size, device).memory_analysis()
            if analysis is None:
                return size, runs
            needed = analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes
            needed += size * state_bytes - analysis.alias_size_in_bytes
            if needed <= room:
                stacks = 1 + int((room - needed) / (2 * size * state_bytes))
                return size, size * stacks * len(devices)
            size = min(size - 1, int(size * room / needed))
        return 0, 0

    def _once(self, name: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:  # one lane compiles, the others wait for it
            if name not in self._made:
                self._made[name] = make()
        return self._made[name]


@dataclasses.dataclass
class _Stack:
    """Runs under one ``vmap`` on one device: their states and hyperparameters, with a leading axis, and their pace."""

    states: TrainState
    values: dict[str, Array]
    device: jax.Device
    pace: Pace = dataclasses.field(default_factory=Pace)

    @property
    def size(self) -> int:
        """The number of rows: runs, and repetitions that fill the stack."""
        return len(self.states.step)


class Stacks:
    """Several runs in stacks of equal size; a context manager.

    Args:
      program: The compiled functions of the runs.
      indices: The index that identifies each run.
      hyperparameters: The traced hyperparameters of each run.
      states: The state of each run.
      size: The largest number of runs in a stack.
    """

    def __init__(
        self,
        program: VectorizedProgram,
        indices: Sequence[int],
        hyperparameters: Sequence[Hyperparameters],
        states: Sequence[TrainState],
        size: int,
    ) -> None:
        self._program, self._size, self._lanes = program, size, lanes()
        self._hyperparameters = dict(zip(indices, hyperparameters, strict=True))
        self._pool = ThreadPoolExecutor(len(self._lanes))
        self._stack(dict(zip(indices, states, strict=True)))

    def __enter__(self) -> "Stacks":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def advance(self, count: int) -> dict[int, Metrics]:
        """Runs ``count`` steps and returns the metrics of each run, with an axis of steps."""

        def advanced(stack: _Stack) -> Metrics:
            compiled, examples = self._program.steps(stack.size, stack.device), self._program.placed(stack.device)[0]
            stack.states, metrics = compiled(stack.states, stack.values, examples, np.int32(count))
            return jax.tree.map(lambda leaf: leaf[:, :count], jax.device_get(metrics))

        found = list(self._pool.map(advanced, self._stacks))
        return {index: _of_row(found[number], row) for index, (number, row) in self._places.items()}

    def evaluate(self, between: Callable[[], None] = nothing) -> dict[int, dict[str, float]]:
        """The scores of each run."""
        found = list(self._pool.map(lambda stack: self._program.evaluate(stack, between), self._stacks))
        return {index: found[number][row] for index, (number, row) in self._places.items()}

    def state(self, index: int) -> TrainState:
        """A copy of the state of a run."""
        number, row = self._places[index]
        return _row(self._stacks[number].states, row)

    def keep(self, indices: Sequence[int]) -> None:
        """Drops all other runs. The remaining ones are stacked again when they fill at most half of the rows."""
        if indices and len(indices) <= len(self._stacks) * self._size // 2:
            self._stack({index: self.state(index) for index in indices})

    def _stack(self, states: Mapping[int, TrainState]) -> None:
        """Builds stacks of equal size; the last run is repeated to fill the last stack."""
        indices = list(states)
        self._size = min(self._size, -(-len(indices) // len(self._lanes)))
        stacks: list[_Stack] = []
        self._places: dict[int, tuple[int, int]] = {}  # run -> (stack, row in it)
        for number, first in enumerate(range(0, len(indices), self._size)):
            own, device = indices[first : first + self._size], self._lanes[number % len(self._lanes)]
            self._places |= {index: (number, row) for row, index in enumerate(own)}
            filled = [*own, *own[-1:] * (self._size - len(own))]
            stacked = _stacked([jax.device_put(states[index], device) for index in filled])
            values = self._program.stacked_values([self._hyperparameters[index] for index in filled])
            stacks.append(_Stack(stacked, jax.device_put(values, device), device))
        self._stacks = stacks


def lanes() -> list[jax.Device]:
    """The devices that train stacks at the same time: every device, or on a CPU the CPU once for every core."""
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        return devices
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return devices[:1] * cores


def stack_size(runs: int, lanes: Sequence[jax.Device], parameter_bytes: int) -> int:
    """How many runs are put into one stack.

    On accelerators the runs are divided equally; :meth:`VectorizedProgram.fitting` checks whether they fit. On a CPU a
    stack has as many runs as fit in a core's cache: eight LeNet-5 in a stack took two thirds of the time of eight runs
    in sequence, but four networks of four times its width took 1.2 times as long (docs/decisions.md).
    """
    share = -(-runs // len(lanes))
    if lanes[0].platform != "cpu":
        return share
    return max(1, min(share, _MOST_SIDE_BY_SIDE, _STACK_BYTES // max(parameter_bytes, 1)))


def free_bytes(device: jax.Device) -> float:
    """The free memory of a device, in bytes."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return float(available_memory())


def _compiled(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    return jax.jit(function).lower(*arguments).compile()


def _each(function: Callable[[TrainState, Mapping[str, Array]], Any], states: TrainState, values: Any) -> Any:
    """Applies a function to every run of a stack; without ``vmap`` for a single run, since it slows convolutions."""
    if len(states.step) > 1:
        return jax.vmap(function)(states, values)
    result = function(*jax.tree.map(lambda leaf: leaf[0], (states, values)))
    return jax.tree.map(lambda leaf: leaf[None], result)


def _of_row(metrics: Metrics, row: int) -> Metrics:
    """The metrics of one run of a stack, as host arrays."""
    return jax.tree.map(lambda leaf: leaf[row], metrics)


def _num_bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _shapes(tree: PyTree, where: jax.sharding.Sharding) -> PyTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree)


@jax.jit
def _row(states: TrainState, row: Any) -> TrainState:
    return jax.tree.map(lambda leaf: leaf[row], states)


@jax.jit
def _stacked(states: list[TrainState]) -> TrainState:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
