"""What a run computes: its problem, its plan, its devices, and the functions compiled for them.

If the learning rate is a constant of a compiled function, each learning rate needs its own compilation. Traced
hyperparameters are arguments instead: runs that differ only in these and in their seeds share the compiled functions,
in one process, and through JAX's compilation cache in several.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from cnn_jax.data.stream import Stream
from cnn_jax.metrics import Metric, metric_of
from cnn_jax.ops.arguments import Number
from cnn_jax.report.compilation import Announce, silent
from cnn_jax.runtime.xla import options_for_single_use
from cnn_jax.train.evaluation import Evaluations
from cnn_jax.train.feed import streamed_evaluation, streamed_step
from cnn_jax.train.parallel import ONE_DEVICE, DataParallel
from cnn_jax.train.plan import Plan
from cnn_jax.train.state import TrainState
from cnn_jax.train.step import Batch, Evaluate, ExampleArrays, Step, Summarize, scanned_evaluation, scanned_steps

Hyperparameters = Mapping[str, Number]
"""Dotted key of a config -> number, or a tracer while a function is compiled."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """What the loop needs of an experiment: pure functions, and examples as dicts of arrays with a leading axis.

    Attributes:
      init: The state before the first step, from the run's root key.
      step: One optimiser step, ``step(state, batch) -> (state, metrics)``; a metric named ``'loss'`` must stay finite.
      evaluate: The metrics of one batch that has a ``'mask'``, ``evaluate(state, batch) -> metrics``.
      train_examples: The training examples: arrays, or a stream of them from disk.
      eval_examples: Split -> examples or stream, for evaluation.
      metrics: Declarations of the metrics of ``step`` and ``evaluate``. Undeclared metrics are recorded, but not
        shown, and cannot be monitored.
      monitor: ``'split/metric'``, which chooses the best checkpoint and may end training early.
      summarize: Computes the scores of a split from the averages of its metrics; by default the averages.
    """

    init: Callable[[Key[Array, ""]], TrainState]
    step: Step
    evaluate: Evaluate
    train_examples: ExampleArrays | Stream
    eval_examples: Mapping[str, ExampleArrays | Stream]
    metrics: Sequence[Metric]
    monitor: str
    summarize: Summarize = dict

    @property
    def monitored(self) -> Metric:
        """The metric of ``monitor``, with its full name.

        Raises:
          UsageError: There is no such split or metric.
        """
        return metric_of(self.monitor, self.metrics, splits=self.eval_examples, what=f"monitor={self.monitor!r}")


class Program:
    """A problem with its plan, its devices and its traced hyperparameters, and the functions compiled for them.

    Args:
      problem: The problem; or a function that builds it from traced hyperparameters, for programs that share compiled
        functions, see :meth:`bind`. The function is also called with tracers instead of numbers.
      plan: The plan of the run.
      hyperparameters: The values of the traced hyperparameters; by default there are none.
      parallel: The devices.

    >>> import jax.numpy as jnp, optax
    >>> from cnn_jax.train.state import create_state
    >>> from cnn_jax.train.step import make_step
    >>> def loss(params, model_state, batch, key):
    ...     value = jnp.mean((params["w"] - batch["x"]) ** 2)
    ...     return value, ({"loss": (value, jnp.ones(()))}, model_state)
    >>> def problem(hyperparameters):
    ...     optimizer = optax.sgd(hyperparameters["learning_rate"])
    ...     init = lambda key: create_state(key, {"w": jnp.zeros(())}, {}, optimizer)
    ...     examples = {"x": jnp.ones(4)}
    ...     evaluate = lambda state, batch: {"loss": (jnp.zeros(()), jnp.ones(()))}
    ...     scores = [Metric("loss", better="lower")], "test/loss"
    ...     return Problem(init, make_step(loss, optimizer), evaluate, examples, {"test": examples}, *scores)
    >>> plan = Plan(batch_size=2, num_examples=4, total_steps=2, evaluate_every=2)
    >>> program = Program(problem, plan, hyperparameters={"learning_rate": 0.5})
    >>> for one in (program, program.bind({"learning_rate": 0.25})):
    ...     state, _ = one.steps(one.first_state(seed=0), one.problem.train_examples, 2)
    ...     print(state.params["w"])
    1.0
    0.75
    """

    def __init__(
        self,
        problem: Problem | Callable[[Hyperparameters], Problem],
        plan: Plan,
        *,
        hyperparameters: Hyperparameters | None = None,
        parallel: DataParallel = ONE_DEVICE,
    ) -> None:
        self.plan, self.parallel, self.hyperparameters = plan, parallel, dict(hyperparameters or {})
        self._make_problem: Callable[[Hyperparameters], Problem] = (
            (lambda _: problem) if isinstance(problem, Problem) else problem
        )
        self.functions = Functions(self._make_problem, plan, parallel)

    def bind(self, hyperparameters: Hyperparameters) -> "Program":
        """The program with other values of the same traced hyperparameters; both share the compiled functions.

        Raises:
          UsageError: See :meth:`check`.
        """
        other = copy.copy(self)
        other.hyperparameters = dict(hyperparameters)
        vars(other).pop("problem", None)
        other.check()
        return other

    def check(self) -> Metric:
        """Finds errors before anything is written or compiled.

        Returns:
          The monitored metric.

        Raises:
          UsageError: A hyperparameter, the target or the batch size is out of its range, or the monitor is unknown.
        """
        metric = self.problem.monitored
        self.plan.check_target(metric)
        self.parallel.check_batch(self.plan.batch_size)
        return metric

    @functools.cached_property
    def problem(self) -> Problem:
        """The problem with these hyperparameters.

        Raises:
          UsageError: A hyperparameter is out of its range.
        """
        return self._make_problem(self.hyperparameters)

    @property
    def template(self) -> TrainState:
        """Shapes, dtypes and shardings of a state."""
        return self.functions.template(self.hyperparameters)

    def first_state(self, seed: int, announce: Announce = silent) -> TrainState:
        """The state before the first step, placed on the devices.

        Args:
          seed: The seed of the run's root key.
          announce: Says that the function of the initial weights is being compiled.
        """
        return self.functions.first_state(seed, self.hyperparameters, announce)

    def steps(self, state: TrainState, examples: Batch, count: int) -> tuple[TrainState, Any]:
        """Runs ``count`` steps on examples that are on the devices.

        Args:
          state: The state to start from; it is donated.
          examples: The training examples.
          count: The number of steps, at most ``plan.longest_call``.

        Returns:
          The new state, and the metrics of each step as host arrays.
        """
        state, metrics = self.functions.compiled_steps(state, (self.hyperparameters, examples), np.int32(count))
        return state, jax.tree.map(lambda leaf: leaf[:count], jax.device_get(metrics))

    def streamed_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Any]:
        """Runs one step on a batch; the state is donated."""
        return self.functions.compiled_streamed_step(state, (self.hyperparameters, batch))

    def compile_steps(self, state: TrainState, examples: Batch) -> None:
        """Compiles everything that the first call of :meth:`steps` would compile."""
        self.functions.compiled_steps.lower(state, (self.hyperparameters, examples), np.int32(1)).compile()

    def compile_streamed_step(self, state: TrainState, batch: Batch) -> None:
        """Compiles everything that the first call of :meth:`streamed_step` would compile."""
        self.functions.compiled_streamed_step.lower(state, (self.hyperparameters, batch)).compile()

    def evaluations(self) -> Evaluations:
        """The evaluations of the problem; its data sets in memory are placed on the devices."""

        functions, values, problem = self.functions, self.hyperparameters, self.problem
        in_memory = _Bound(functions.compiled_evaluation, values)
        streamed = _Bound(functions.compiled_streamed_evaluation, values)
        options: dict[str, Any] = {"parallel": self.parallel, "summarize": problem.summarize}
        return Evaluations(in_memory, streamed, problem.eval_examples, batch_size=self.plan.batch_size, **options)


@dataclasses.dataclass(frozen=True)
class _Bound:
    """A compiled function of :class:`Functions` with the values of the traced hyperparameters."""

    compiled: Any
    hyperparameters: Hyperparameters

    def __call__(self, state: TrainState, examples: Batch, *others: Any) -> Any:
        return self.compiled(state, (self.hyperparameters, examples), *others)

    def lower(self, state: TrainState, examples: Batch, *others: Any) -> Any:
        return self.compiled.lower(state, (self.hyperparameters, examples), *others)


class Functions:
    """The functions of all programs that differ only in their traced hyperparameters, compiled once for all of them.

    ``steps`` and ``evaluation`` are the pure functions of :func:`~cnn_jax.train.step.scanned_steps` and
    :func:`~cnn_jax.train.step.scanned_evaluation`, but take the pair ``(hyperparameters, examples)`` instead of the
    examples. The compiled functions do the same.

    Args:
      make_problem: Builds the problem from traced hyperparameters.
      plan: The plan of the programs.
      parallel: The devices.
    """

    def __init__(self, make_problem: Callable[[Hyperparameters], Problem], plan: Plan, parallel: DataParallel) -> None:
        def of_problem(make: Callable[[Problem], Callable[..., Any]]) -> Callable[..., Any]:
            def function(state: TrainState, given: tuple[Hyperparameters, Batch], *others: Any) -> Any:
                hyperparameters, examples = given
                return make(make_problem(hyperparameters))(state, examples, *others)

            return function

        self._make_problem, self._parallel = make_problem, parallel
        self._template: TrainState | None = None
        sizes = {"batch_size": plan.batch_size, "num_examples": plan.num_examples, "longest": plan.longest_call}
        self.steps = of_problem(lambda problem: scanned_steps(problem.step, **sizes, parallel=parallel))
        self.evaluation = of_problem(lambda problem: scanned_evaluation(problem.evaluate, parallel=parallel))
        one_step = of_problem(lambda problem: streamed_step(problem.step, parallel=parallel))
        of_batch = of_problem(lambda problem: streamed_evaluation(problem.evaluate, parallel=parallel))
        self.compiled_steps, self.compiled_streamed_step = map(parallel.compile_steps, (self.steps, one_step))
        self.compiled_evaluation = parallel.compile_evaluation(self.evaluation)
        self.compiled_streamed_evaluation = parallel.compile_evaluation(of_batch)

    def init(self, key: Key[Array, ""], hyperparameters: Hyperparameters) -> TrainState:
        """The state before the first step, from the run's root key; a pure function."""
        return self._make_problem(hyperparameters).init(key)

    def template(self, hyperparameters: Hyperparameters) -> TrainState:
        """Shapes, dtypes and shardings of a state, which are the same for all hyperparameters."""
        if self._template is None:
            self._template = self._parallel.abstract(lambda: self.init(jax.random.key(0), hyperparameters))
        return self._template

    def first_state(self, seed: int, hyperparameters: Hyperparameters, announce: Announce = silent) -> TrainState:
        """The state of a run before its first step."""
        data = np.asarray(jax.random.key_data(jax.random.key(seed)))  # the same in every process
        self.template(hyperparameters)
        with announce("initial weights"):
            self._compiled_init.lower(data, hyperparameters).compile()
        return self._compiled_init(data, hyperparameters)

    @functools.cached_property
    def _compiled_init(self) -> Any:
        def init(data: Array, hyperparameters: Hyperparameters) -> TrainState:
            return self.init(jax.random.wrap_key_data(data), hyperparameters)

        shardings = self._parallel.shardings(self._template)
        options = options_for_single_use(jax.default_backend())
        return jax.jit(init, out_shardings=shardings, compiler_options=options)
