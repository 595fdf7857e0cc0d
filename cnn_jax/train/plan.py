"""When to evaluate, record and stop, computed from the step alone."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnn_jax.data.batches import steps_per_epoch
from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train, and how often to evaluate and record, in steps.

    Attributes:
      batch_size: The number of examples in a step.
      num_examples: The number of examples in the training set. A smaller last batch of an epoch is left out.
      total_steps: The number of steps in the whole run.
      evaluate_every: Steps between evaluations. The last step is always evaluated; each evaluation saves a checkpoint.
      steps_per_call: The most steps in one compiled call, and between two records of the training scores.
      patience: Training ends at an evaluation this many steps after the best one; 0 for never.
      target: Training ends at an evaluation whose monitored score is at least as good as this; None for never.
      max_skipped: The most steps that may be skipped because their loss or gradient was not finite.
      keep_history: How many checkpoints are kept besides the latest and the best, see :attr:`history_steps`.
    """

    batch_size: int
    num_examples: int
    total_steps: int
    evaluate_every: int
    steps_per_call: int = 100
    patience: int = 0
    target: float | None = None
    max_skipped: int = 0
    keep_history: int = 0

    def __post_init__(self) -> None:
        for name in ("batch_size", "total_steps", "evaluate_every", "steps_per_call"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 1")
        for name in ("patience", "max_skipped", "keep_history"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name}={getattr(self, name)} must not be negative")
        steps_per_epoch(self.num_examples, self.batch_size)  # rejects a batch larger than the set

    @property
    def steps_per_epoch(self) -> int:
        """The number of whole batches in one epoch."""
        return steps_per_epoch(self.num_examples, self.batch_size)

    def next_record(self, step: int) -> int:
        """The first step after ``step`` at which the training scores are recorded.

        Records are equally spaced within an epoch if it has a divisor near ``steps_per_call``. There is also a record
        at each evaluation, at the end of the run, and at the end of each epoch, unless epochs have only a few steps.
        Records do not depend on where a run was interrupted.

        >>> plan = Plan(batch_size=10, num_examples=4000, total_steps=400, evaluate_every=400, steps_per_call=90)
        >>> plan.next_record(0), plan.next_record(79), plan.next_record(80)
        (80, 80, 160)
        """
        periods = self._epoch, self.evaluate_every
        last = max(step - step % period for period in periods)  # records are counted from here
        following = last + ((step - last) // self._record_every + 1) * self._record_every
        return min(following, *(step - step % period + period for period in periods), self.total_steps)

    @property
    def longest_call(self) -> int:
        """The most steps of one compiled call: those between two records."""
        return min(self._record_every, self._epoch, self.evaluate_every, self.total_steps)

    @functools.cached_property
    def _epoch(self) -> int:
        """The number of steps after which the spacing of the records starts again."""
        return self.evaluate_every if self.steps_per_epoch < self.steps_per_call / 4 else self.steps_per_epoch

    @functools.cached_property
    def _record_every(self) -> int:
        length = next(d for d in range(self.steps_per_call, 0, -1) if self._epoch % d == 0)
        return self.steps_per_call if length < self.steps_per_call / 4 else length

    def evaluates_at(self, step: int) -> bool:
        """Whether the loop evaluates and saves after ``step`` steps."""
        return step == self.total_steps or (step > 0 and step % self.evaluate_every == 0)

    @functools.cached_property
    def history_steps(self) -> tuple[int, ...]:
        """The steps whose checkpoints are kept: equally spaced logarithms, from the first step to the last.

        >>> plan = Plan(batch_size=10, num_examples=4000, total_steps=1000, evaluate_every=400, keep_history=4)
        >>> plan.history_steps
        (1, 10, 100, 1000)
        """
        steps = np.geomspace(self.total_steps, 1, self.keep_history)
        return tuple(np.unique(np.rint(steps).astype(int)).tolist())

    def next_pause(self, step: int) -> int:
        """The first step after ``step`` at which a compiled call must end: at a record or a kept checkpoint.

        >>> plan = Plan(batch_size=10, num_examples=4000, total_steps=1000, evaluate_every=400, keep_history=4)
        >>> plan.next_pause(0), plan.next_pause(1), plan.next_pause(10)
        (1, 10, 100)
        """
        kept = (other for other in self.history_steps if other > step)
        return min(self.next_record(step), next(kept, self.total_steps))

    def check_target(self, metric: Metric) -> None:
        """Raises a UsageError for a target outside 0 to 1 if the metric is a fraction of 1."""
        if self.target is not None and metric.is_fraction and not 0 <= self.target <= 1:
            raise UsageError(f"target={self.target} must be a fraction of 1, such as 0.99, since {metric.name} is one")

    def ends_at(self, step: int, best: "Best", metric: Metric) -> bool:
        """Whether the run ends after ``step`` steps: all are done, the target is reached, or patience is exhausted."""
        impatient = self.patience > 0 and self.evaluates_at(step) and step - best.step >= self.patience
        return step >= self.total_steps or impatient or self.reached(best, metric)

    def reached(self, best: "Best", metric: Metric) -> bool:
        """Whether the best evaluation has reached the target."""
        return self.target is not None and metric.reaches(best.value, self.target)


@dataclasses.dataclass(frozen=True)
class Best:
    """The best evaluation so far: its step and the value of the monitored metric.

    >>> accuracy = Metric("validation/accuracy", better="higher")
    >>> Best().after(10, 0.5, accuracy).after(20, 0.7, accuracy).after(30, 0.7, accuracy)
    Best(step=20, value=0.7)
    """

    step: int = 0
    value: float | None = None

    def after(self, step: int, value: float, metric: Metric) -> "Best":
        """The best evaluation after one at ``step`` with this value; the first of equal ones."""
        return Best(step, value) if metric.is_better(value, than=self.value) else self

    def to_json(self, metric: Metric) -> dict[str, Any]:
        """The fields saved in a checkpoint, with a score for which higher is better."""
        return {"step": self.step, "score": None if self.value is None else metric.utility(self.value)}

    @staticmethod
    def from_json(fields: Mapping[str, Any], metric: Metric) -> "Best":
        """The inverse of :meth:`to_json`; no evaluation for empty fields."""
        score = fields.get("score")
        return Best(fields.get("step", 0), None if score is None else metric.utility(score))
