"""What a run computes: its functions, compiled with the numbers of its config as arguments of theirs.

A learning rate that is a constant of a compiled program makes another program of every learning rate. As an argument it
does not: runs that differ in such numbers alone, and in their seeds, share one, in one process and, through JAX's
compilation cache, in many.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from cnn_jax.data.stream import Stream
from cnn_jax.ops.arguments import Number
from cnn_jax.runtime.xla import options_for_single_use
from cnn_jax.train.evaluation import Evaluations
from cnn_jax.train.feed import streamed_evaluation, streamed_step
from cnn_jax.train.parallel import ONE_DEVICE, Parallel
from cnn_jax.train.plan import Plan
from cnn_jax.train.state import TrainState
from cnn_jax.train.step import Batch, Evaluate, Examples, Step, scanned_steps, whole_evaluation

Numbers = Mapping[str, Number]
"""Dotted key of a config -> number, which may be a value of the program that is being compiled."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What the loop has to know of an experiment: pure functions, and examples as dicts of arrays with a leading axis.

    Attributes:
      init: the state before the first step, from the run's root key.
      step: one optimiser step, ``step(state, batch) -> (state, metrics)``; a metric named ``'loss'`` must stay finite.
      evaluate: the metrics of one batch that has a ``'mask'``, ``evaluate(state, batch) -> metrics``.
      train_examples: what is learned from: arrays, or a stream of them from disk.
      eval_examples: split -> examples or stream, scored whenever the loop evaluates.
      monitor: ``'split/metric'``, by which the best checkpoint is chosen; higher is better, except for a loss.
    """

    init: Callable[[Key[Array, ""]], TrainState]
    step: Step
    evaluate: Evaluate
    train_examples: Examples | Stream
    eval_examples: Mapping[str, Examples | Stream]
    monitor: str


class Program:
    """The functions of all runs that differ in numbers alone, traced and compiled once for all of them.

    ``steps`` and ``evaluation`` are the pure functions of :func:`~cnn_jax.train.step.scanned_steps` and
    :func:`~cnn_jax.train.step.whole_evaluation`, but take the pair ``(numbers, examples)`` in place of the examples.
    ``compiled_steps``, ``compiled_evaluation`` and, with batches from a stream, ``compiled_streamed_step`` and
    ``compiled_streamed_evaluation`` do, too.

    Args:
      task: what to learn, from the numbers of a run; while it is compiled, from what stands for them.
      plan: of these runs.
      parallel: the devices.
    """

    def __init__(self, task: Callable[[Numbers], Task], plan: Plan, parallel: Parallel = ONE_DEVICE) -> None:
        def with_numbers(make: Callable[[Task], Callable[..., Any]]) -> Callable[..., Any]:
            def function(state: TrainState, given: tuple[Numbers, Batch], *others: Any) -> Any:
                numbers, examples = given
                return make(task(numbers))(state, examples, *others)

            return function

        self._task, self._plan, self._parallel = task, plan, parallel
        sizes = {"batch_size": plan.batch_size, "num_examples": plan.num_examples}
        self.steps = with_numbers(lambda task: scanned_steps(task.step, **sizes, parallel=parallel))
        self.evaluation = with_numbers(lambda task: whole_evaluation(task.evaluate, parallel=parallel))
        one_step = with_numbers(lambda task: streamed_step(task.step, parallel=parallel))
        of_batch = with_numbers(lambda task: streamed_evaluation(task.evaluate, parallel=parallel))
        self.compiled_steps, self.compiled_streamed_step = map(parallel.compile_steps, (self.steps, one_step))
        self.compiled_evaluation = parallel.compile_evaluation(self.evaluation)
        self.compiled_streamed_evaluation = parallel.compile_evaluation(of_batch)

    def init(self, key: Key[Array, ""], numbers: Numbers) -> TrainState:
        """The state before the first step, from the run's root key; pure."""
        return self._task(numbers).init(key)

    @functools.cached_property
    def template(self) -> TrainState:
        """Shapes, dtypes and shardings of a state."""
        return self._parallel.abstract(lambda: self.init(jax.random.key(0), {}))

    @functools.cached_property
    def _compiled_init(self) -> Callable[[np.ndarray, Numbers], TrainState]:
        def init(data: Array, numbers: Numbers) -> TrainState:
            return self.init(jax.random.wrap_key_data(data), numbers)

        shardings = self._parallel.shardings(self.template)
        options = options_for_single_use(jax.default_backend())
        return jax.jit(init, out_shardings=shardings, compiler_options=options)

    def first_state(self, seed: int, numbers: Numbers) -> TrainState:
        """The state before the first step, on the devices that are to hold it."""
        data = np.asarray(jax.random.key_data(jax.random.key(seed)))  # of which every process has the same
        return self._compiled_init(data, numbers)

    def evaluations(self, examples: Mapping[str, Examples | Stream], numbers: Numbers) -> Evaluations:
        """Scores of states of the run with these numbers."""

        def bound(compiled: Callable[..., Any]) -> Callable[..., Any]:
            return lambda state, examples, *others: compiled(state, (numbers, examples), *others)

        in_memory, streamed = bound(self.compiled_evaluation), bound(self.compiled_streamed_evaluation)
        size, parallel = self._plan.batch_size, self._parallel
        return Evaluations(in_memory, streamed, examples, batch_size=size, parallel=parallel)
