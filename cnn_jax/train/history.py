"""The progress of one run: its step, scores, best evaluation, log, and the notes saved in its checkpoints."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cnn_jax.errors import UsageError, nearest
from cnn_jax.metrics import Metric
from cnn_jax.train.checkpoints import Checkpoints
from cnn_jax.train.evaluation import of_split
from cnn_jax.train.nonfinite import count_skipped, require_finite, require_finite_scores
from cnn_jax.train.plan import Best, Plan
from cnn_jax.train.program import Program
from cnn_jax.train.records import MetricsLog, NoMetricsLog, open_metrics_log
from cnn_jax.train.state import TrainState
from cnn_jax.train.step import Metrics, Summarize, Totals, added, averages


@dataclasses.dataclass
class History:
    """The progress of one run, see :func:`open_history`.

    Attributes:
      plan: The plan of the run.
      metric: The metric that chooses the best evaluation, named ``'split/metric'``.
      checkpoints: The checkpoints of the run.
      log: The log in the run's ``metrics.jsonl``.
      step: The number of steps done.
      scores: The scores of the last evaluation, ``'split/metric' -> value``.
      best: The best evaluation.
      skipped: The number of steps skipped because the loss or gradient was not finite.
      evaluated_step: The step of the last evaluation.
      totals: The metrics of the steps since the last record of training.
      saved: Whether the current state is saved in a checkpoint.
      summarize: Computes the scores of a split from the averages of its metrics.
    """

    plan: Plan
    metric: Metric
    checkpoints: Checkpoints
    log: MetricsLog | NoMetricsLog
    step: int
    scores: dict[str, float]
    best: Best
    skipped: int
    evaluated_step: int = 0
    totals: Totals = dataclasses.field(default_factory=dict)
    saved: bool = False
    summarize: Summarize = dict
    _recorded: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def epoch(self) -> float:
        """The number of epochs done."""
        return self.step / self.plan.steps_per_epoch

    @property
    def train_scores(self) -> dict[str, float]:
        """The training scores since the last record, or those of the record if no step followed it."""
        return self.summarize(averages(self.totals)) if self.totals else self._recorded

    @property
    def evaluation_due(self) -> bool:
        """Whether the plan evaluates at this step and that is not done yet."""
        return self.plan.evaluates_at(self.step) and self.evaluated_step != self.step

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return not self.evaluation_due and self.plan.ends_at(self.step, self.best, self.metric)

    @property
    def evaluation(self) -> int:
        """The number of the evaluation at this step, counted from 1."""
        return -(-self.step // self.plan.evaluate_every)

    def after_call(self, count: int, metrics: Metrics) -> None:
        """Adds the metrics of a compiled call of ``count`` steps, and writes a record when the plan has one there.

        Raises:
          UsageError: A loss was not finite, or too many steps were skipped.
        """
        self.skipped += count_skipped(metrics)
        limits = {"first_step": self.step, "skipped": self.skipped, "most": self.plan.max_skipped}
        require_finite(metrics, **limits, checkpoints=self.checkpoints)
        is_record = self.step + count == self.plan.next_record(self.step)
        self.step, self.saved = self.step + count, False
        self.totals = added(self.totals, metrics)
        if is_record:
            self._recorded = self.summarize(averages(self.totals))
            self.totals = {}
            self.log.write(step=self.step, epoch=self.epoch, split="train", scores=self._recorded)

    def after_evaluation(self, scores: dict[str, float]) -> None:
        """Records the scores of an evaluation at this step.

        Raises:
          UsageError: A loss is not finite, or the monitored score is missing.
        """
        require_finite_scores(scores, step=self.step, checkpoints=self.checkpoints)
        name = self.metric.name
        if name not in scores:
            raise UsageError(f"monitor={name!r} is not among the scores of an evaluation; {nearest(name, scores)}")
        self.scores, self.evaluated_step, self.saved = scores, self.step, False
        self.best = self.best.after(self.step, scores[name], self.metric)
        for split in dict.fromkeys(name.partition("/")[0] for name in scores):
            self.log.write(step=self.step, epoch=self.epoch, split=split, scores=of_split(scores, split))

    def note(self) -> dict[str, Any]:
        """The ``score`` and ``notes`` of a checkpoint of this step."""
        # A state saved between evaluations has no known score and must not become the best.
        evaluated = self.evaluated_step == self.step > 0
        utility = self.metric.utility(self.scores[self.metric.name]) if evaluated else -math.inf
        notes = {"scores": self.scores, "best": self.best.to_json(self.metric), "skipped": self.skipped}
        notes |= {"evaluated_step": self.evaluated_step, "totals": self.totals}
        return {"score": utility, "notes": {"metrics_length": self.log.length, **notes}}

    def save(self, state: TrainState) -> None:
        """Saves a checkpoint of the current state in the background, unless there is one."""
        if not self.saved:
            self.checkpoints.save(state, **self.note())
            self.saved = True


@contextlib.contextmanager
def open_history(
    directory: Path, program: Program, checkpoints: Checkpoints, *, step: int, notes: Mapping[str, Any]
) -> Iterator[History]:
    """The history of a run that starts or continues at a step.

    Args:
      directory: The run directory.
      program: The program of the run.
      checkpoints: The checkpoints of the run.
      step: The number of steps done.
      notes: The notes of the checkpoint of that step; empty at the start.
    """
    metric = program.check()
    with open_metrics_log(directory, length=notes.get("metrics_length", 0), step=step) as log:
        yield History(
            program.plan,
            metric,
            checkpoints,
            log,
            step,
            scores=notes.get("scores", {}),
            best=Best.from_json(notes.get("best", {}), metric),
            skipped=notes.get("skipped", 0),
            evaluated_step=notes.get("evaluated_step", step),  # earlier versions saved no step before its evaluation
            totals={name: (total, count) for name, (total, count) in notes.get("totals", {}).items()},
            saved=bool(notes),
            summarize=program.problem.summarize,
        )
