"""The course of one run so far: its scores and their records, its best evaluation, what its checkpoints note."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cnn_jax.train.checkpoints import Checkpoints
from cnn_jax.train.evaluation import of_split, score
from cnn_jax.train.nonfinite import count_skipped, require_finite, require_finite_scores
from cnn_jax.train.plan import Best, Plan
from cnn_jax.train.records import NoRecords, Records, open_records
from cnn_jax.train.state import TrainState
from cnn_jax.train.step import Metrics, averages


@dataclasses.dataclass
class Course:
    """One run on its way; :func:`open_course` makes it.

    Attributes:
      plan: of the run.
      monitor: ``'split/metric'``, by which the best evaluation is chosen.
      checkpoints: of the run.
      records: of the run.
      step: how many steps are made.
      scores: of the last evaluation, ``'split/metric' -> value``.
      train_scores: of the last call.
      best: the best evaluation.
      skipped: how many steps were skipped because something was not finite.
    """

    plan: Plan
    monitor: str
    checkpoints: Checkpoints
    records: Records | NoRecords
    step: int
    scores: dict[str, float]
    best: Best
    skipped: int
    train_scores: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def epoch(self) -> float:
        """How many passes through the examples are made."""
        return self.step / self.plan.steps_per_epoch

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self.plan.ends_at(self.step, self.best)

    @property
    def evaluation(self) -> int:
        """The number of the evaluation at this step, from 1."""
        return -(-self.step // self.plan.evaluate_every)

    def after_call(self, count: int, metrics: Metrics) -> None:
        """Records the scores of a compiled call of ``count`` steps.

        Raises:
          UsageError: a loss was not finite, or too many steps were skipped.
        """
        self.skipped += count_skipped(metrics)
        limits = {"first_step": self.step, "skipped": self.skipped, "most": self.plan.max_skipped}
        require_finite(metrics, **limits, checkpoints=self.checkpoints)
        self.step += count
        self.train_scores = averages(metrics)
        self.records.write(step=self.step, epoch=self.epoch, split="train", scores=self.train_scores)

    def after_evaluation(self, scores: dict[str, float]) -> None:
        """Records the scores of an evaluation at this step.

        Raises:
          UsageError: one of them is not finite.
        """
        require_finite_scores(scores, step=self.step, checkpoints=self.checkpoints)
        self.scores = scores
        self.best = self.best.after(self.step, score(scores, self.monitor))
        for split in dict.fromkeys(name.partition("/")[0] for name in scores):
            self.records.write(step=self.step, epoch=self.epoch, split=split, scores=of_split(scores, split))

    def note(self) -> dict[str, Any]:
        """What a checkpoint of this step is saved with: its ``score`` and its ``notes``."""
        # The score of an unevaluated state is unknown: a stop between evaluations must not become the best.
        known = score(self.scores, self.monitor) if self.plan.evaluates_at(self.step) else -math.inf
        notes = {"scores": self.scores, "best": dataclasses.asdict(self.best), "skipped": self.skipped}
        return {"score": known, "notes": {"metrics_length": self.records.length, **notes}}

    def save(self, state: TrainState) -> None:
        """Saves a checkpoint of this step in the background."""
        self.checkpoints.save(state, **self.note())


@contextlib.contextmanager
def open_course(
    directory: Path, plan: Plan, monitor: str, checkpoints: Checkpoints, *, step: int, notes: Mapping[str, Any]
) -> Iterator[Course]:
    """The course of a run from a step on.

    Args:
      directory: of the run.
      plan: of the run.
      monitor: ``'split/metric'``.
      checkpoints: of the run.
      step: how many steps are made.
      notes: of the checkpoint of that step; empty at the start.
    """
    with open_records(directory, length=notes.get("metrics_length", 0), step=step) as records:
        best = Best(**notes.get("best", {}))
        yield Course(plan, monitor, checkpoints, records, step, notes.get("scores", {}), best, notes.get("skipped", 0))
