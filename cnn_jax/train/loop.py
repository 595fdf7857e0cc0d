"""The one training loop, for every task: it knows steps, scores, checkpoints and signals, and not what is learned."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from cnn_jax.data.batches import padded_batches, steps_per_epoch
from cnn_jax.errors import Interrupted, UsageError, nearest
from cnn_jax.report.progress import Progress
from cnn_jax.train.checkpoints import Checkpoint, Checkpoints
from cnn_jax.train.interruption import StopRequest
from cnn_jax.train.records import Records
from cnn_jax.train.state import TrainState
from cnn_jax.train.step import Batch, Evaluate, Metrics, Step, averages, make_evaluation, make_scanned_steps


@dataclasses.dataclass(frozen=True)
class Task:
    """What the loop has to know of an experiment: pure functions, and examples as dicts of arrays with a leading axis.

    Attributes:
      init: the state before the first step, from the run's root key.
      step: one optimiser step, ``step(state, batch) -> (state, metrics)``; a metric named ``'loss'`` must stay finite.
      evaluate: the metrics of one batch that has a ``'mask'``, ``evaluate(state, batch) -> metrics``.
      train_examples: what is learned from.
      eval_examples: split -> examples, scored whenever the loop evaluates.
      monitor: ``'split/metric'``, by which the best checkpoint is chosen; higher is better, except for a loss.
    """

    init: Callable[[Key[Array, ""]], TrainState]
    step: Step
    evaluate: Evaluate
    train_examples: Batch
    eval_examples: Mapping[str, Batch]
    monitor: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train and how often to look, in steps.

    Attributes:
      batch_size: examples a step.
      num_examples: examples in the training set; a last, smaller batch of an epoch is left out.
      epochs: passes through the training set.
      evaluate_every: epochs between evaluations; the end is always evaluated, and each evaluation saves a checkpoint.
      steps_per_call: the most steps in one compiled call; scores are recorded and signals answered between calls.
    """

    batch_size: int
    num_examples: int
    epochs: int
    evaluate_every: int = 1
    steps_per_call: int = 100

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs", "evaluate_every", "steps_per_call"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")
        steps_per_epoch(self.num_examples, self.batch_size)  # rejects a batch larger than the set

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass."""
        return steps_per_epoch(self.num_examples, self.batch_size)

    @property
    def total_steps(self) -> int:
        """Steps in the whole run."""
        return self.epochs * self.steps_per_epoch

    def call_length(self, step: int) -> int:
        """How many steps the call that starts at ``step`` makes.

        The calls of an epoch are of one length where a divisor near ``steps_per_call`` exists, since each length is
        compiled once, and end with the epoch. They depend on the step alone, so a continued run makes the same ones.

        >>> plan = Plan(batch_size=10, num_examples=4000, epochs=1, steps_per_call=90)
        >>> plan.call_length(0), Plan(batch_size=10, num_examples=4010, epochs=1).call_length(400)
        (80, 1)
        """
        within = step % self.steps_per_epoch
        divisors = (d for d in range(self.steps_per_call, 0, -1) if self.steps_per_epoch % d == 0)
        length = next(divisors)
        if length < self.steps_per_call / 4:
            length = self.steps_per_call
        return min(length, self.steps_per_epoch - within)

    def evaluates_at(self, step: int) -> bool:
        """Whether the loop evaluates and saves after ``step`` steps."""
        return step == self.total_steps or step % (self.evaluate_every * self.steps_per_epoch) == 0


@dataclasses.dataclass(frozen=True)
class Trained:
    """The end of a run: the last state, and the scores of its last evaluation, ``'split/metric' -> value``."""

    state: TrainState
    scores: dict[str, float]


def train(task: Task, plan: Plan, *, seed: int, directory: Path, how_to_continue: str) -> Trained:
    """Trains from the newest checkpoint in ``directory``, or from the start, to the end of the plan.

    Args:
      task: what to learn.
      plan: for how long.
      seed: of the run's root key.
      directory: where ``metrics.jsonl``, ``tensorboard/`` and ``checkpoints/`` are.
      how_to_continue: the command that continues the run, shown when it is interrupted.

    Raises:
      Interrupted: SIGTERM or Ctrl-C came; the state is saved.
      UsageError: the loss stopped being finite (the last good checkpoint is kept), or no checkpoint is whole.
      OSError: the disk is full; earlier checkpoints are intact.
    """
    init = jax.jit(task.init)
    key = jax.random.key(seed)
    _check_monitor(task)
    evaluate = Evaluations(task.evaluate, task.eval_examples, batch_size=plan.batch_size)
    steps = make_scanned_steps(task.step, batch_size=plan.batch_size, num_examples=plan.num_examples)
    with Checkpoints(directory / "checkpoints") as checkpoints, StopRequest() as stop:
        checkpoint = checkpoints.restore(jax.eval_shape(task.init, key)) or Checkpoint(init(key), {})
        state, notes = checkpoint.state, checkpoint.notes
        step, scores = int(state.step), notes.get("scores", {})
        examples = jax.device_put(task.train_examples)
        with (
            Records(directory, length=notes.get("metrics_length", 0), step=step) as records,
            Progress(plan.total_steps, steps_per_epoch=plan.steps_per_epoch, start_step=step) as progress,
        ):

            def save() -> None:
                # The score of an unevaluated state is unknown: a stop between evaluations must not become the best.
                score = _score(scores, task.monitor) if plan.evaluates_at(step) else -math.inf
                checkpoints.save(state, score=score, notes={"metrics_length": records.length, "scores": scores})

            if 0 < step < plan.total_steps:
                progress.log(f"continuing from step {step} of {plan.total_steps}")
            while step < plan.total_steps:
                started = time.perf_counter()
                count = plan.call_length(step)
                state, metrics = steps(state, examples, count)
                _require_finite(metrics, step, checkpoints)
                step += count
                speed = count * plan.batch_size / (time.perf_counter() - started)
                epoch, train_scores = step / plan.steps_per_epoch, averages(metrics)
                records.write(step=step, epoch=epoch, split="train", scores=train_scores)
                records.write_speed(step=step, examples_per_second=speed)
                if plan.evaluates_at(step):
                    scores = evaluate(state)
                    for split in task.eval_examples:
                        records.write(step=step, epoch=epoch, split=split, scores=_of_split(scores, split))
                    save()
                progress.update(step=step, scores={**train_scores, **scores}, examples_per_second=speed)
                if stop.signal is not None and step < plan.total_steps:
                    if not plan.evaluates_at(step):
                        save()
                    checkpoints.wait()
                    raise Interrupted(
                        stop.signal,
                        f"stopped by {stop.signal.name} at step {step}, saved; to continue: {how_to_continue}",
                    )
            checkpoints.wait()
    return Trained(state, scores)


class Evaluations:
    """Scores of a state on whole sets: called with a state, it gives ``{'split/metric': value}``.

    Args:
      evaluate: the metrics of one batch that has a ``'mask'``.
      examples: split -> examples.
      batch_size: examples a batch; the last one is padded and masked, so that the averages are exact.
    """

    def __init__(self, evaluate: Evaluate, examples: Mapping[str, Batch], *, batch_size: int) -> None:
        self._compiled = make_evaluation(evaluate)
        self._splits = {
            split: (jax.device_put(arrays), *map(jnp.asarray, padded_batches(_length(arrays), batch_size)))
            for split, arrays in examples.items()
        }

    def __call__(self, state: TrainState) -> dict[str, float]:
        """The scores of one state."""
        return {
            f"{split}/{name}": value
            for split, arguments in self._splits.items()
            for name, value in averages(self._compiled(state, *arguments)).items()
        }


def _length(examples: Batch) -> int:
    return next(iter(examples.values())).shape[0]


def _of_split(scores: Mapping[str, float], split: str) -> dict[str, float]:
    return {name.removeprefix(f"{split}/"): value for name, value in scores.items() if name.startswith(f"{split}/")}


def _check_monitor(task: Task) -> None:
    split = task.monitor.partition("/")[0]
    if split not in task.eval_examples:
        raise UsageError(
            f"monitor={task.monitor!r} names a split that is not scored; {nearest(split, task.eval_examples)}"
        )


def _score(scores: Mapping[str, float], monitor: str) -> float:
    if monitor not in scores:
        raise UsageError(f"monitor={monitor!r} is not among the scores; {nearest(monitor, scores)}")
    return -scores[monitor] if monitor.endswith("loss") else scores[monitor]


def _require_finite(metrics: Metrics, first_step: int, checkpoints: Checkpoints) -> None:
    losses = np.asarray(metrics["loss"][0])
    if np.isfinite(losses).all():
        return
    step = first_step + int(np.argmin(np.isfinite(losses))) + 1
    checkpoints.wait()
    kept = checkpoints.steps()
    where = f"the checkpoint of step {kept[-1]} is kept" if kept else "no checkpoint had been saved yet"
    raise UsageError(
        f"the loss is {losses[step - first_step - 1]} at step {step}; {where}; lower config.optimizer.learning_rate"
    )
