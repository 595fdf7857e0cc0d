"""The history of one run so far: its scores and their records, its best evaluation, what its checkpoints note."""

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
    """One run on its way; :func:`open_history` makes it.

    Attributes:
      plan: Of the run.
      metric: By which the best evaluation is chosen, named ``'split/metric'``.
      checkpoints: Of the run.
      log: The run's ``metrics.jsonl``.
      step: How many steps are made.
      scores: Of the last evaluation, ``'split/metric' -> value``.
      best: The best evaluation.
      skipped: How many steps were skipped because something was not finite.
      evaluated_step: The step of the last evaluation.
      totals: The metrics of the steps since the last record of training.
      saved: Whether there is a checkpoint of what the run is now.
      summarize: The scores of a split from the averages of its metrics.
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
        """How many passes through the examples are made."""
        return self.step / self.plan.steps_per_epoch

    @property
    def train_scores(self) -> dict[str, float]:
        """The averages since the last record of training, or those of the record."""
        return self.summarize(averages(self.totals)) if self.totals else self._recorded

    @property
    def evaluation_due(self) -> bool:
        """Whether this step is to be evaluated, and is not yet."""
        return self.plan.evaluates_at(self.step) and self.evaluated_step != self.step

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return not self.evaluation_due and self.plan.ends_at(self.step, self.best, self.metric)

    @property
    def evaluation(self) -> int:
        """The number of the evaluation at this step, from 1."""
        return -(-self.step // self.plan.evaluate_every)

    def after_call(self, count: int, metrics: Metrics) -> None:
        """Adds up the scores of a compiled call of ``count`` steps, and records them where the plan says so.

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
        """What a checkpoint of this step is saved with: its ``score`` and its ``notes``."""
        # The score of an unevaluated state is unknown: a stop between evaluations must not become the best.
        evaluated = self.evaluated_step == self.step > 0
        utility = self.metric.utility(self.scores[self.metric.name]) if evaluated else -math.inf
        notes = {"scores": self.scores, "best": self.best.to_json(self.metric), "skipped": self.skipped}
        notes |= {"evaluated_step": self.evaluated_step, "totals": self.totals}
        return {"score": utility, "notes": {"metrics_length": self.log.length, **notes}}

    def save(self, state: TrainState) -> None:
        """Saves a checkpoint of what the run is now in the background, unless there is one."""
        if not self.saved:
            self.checkpoints.save(state, **self.note())
            self.saved = True


@contextlib.contextmanager
def open_history(
    directory: Path, program: Program, checkpoints: Checkpoints, *, step: int, notes: Mapping[str, Any]
) -> Iterator[History]:
    """The history of a run from a step on.

    Args:
      directory: Of the run.
      program: What the run computes.
      checkpoints: Of the run.
      step: How many steps are made.
      notes: Of the checkpoint of that step; empty at the start.
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
            evaluated_step=notes.get("evaluated_step", step),  # earlier versions saved no step that was to be evaluated
            totals={name: (total, count) for name, (total, count) in notes.get("totals", {}).items()},
            saved=bool(notes),
            summarize=program.problem.summarize,
        )
