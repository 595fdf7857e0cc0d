"""Metrics: whether higher or lower is better, and the unit of their values. All code that compares scores uses them.

A task declares its metrics once. Best checkpoints, early stopping, targets, sweeps, pruning and reports depend only on
this declaration; names are never interpreted.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal

from cnn_jax.errors import UsageError, nearest

DIRECTIONS = ("higher", "lower")


@dataclasses.dataclass(frozen=True)
class Metric:
    """A quantity that a task reports.

    Attributes:
      name: The name, such as ``'accuracy'``; for one split ``'validation/accuracy'``, see :meth:`of`.
      better: ``'higher'`` or ``'lower'``.
      unit: ``'%'`` for a fraction of 1, which is written as a percentage; otherwise the text after the number, such as
        ``'px'``; empty for none.

    Raises:
      UsageError: ``better`` is neither ``'higher'`` nor ``'lower'``.

    >>> error = Metric("error", better="lower", unit="%")
    >>> error.is_better(0.1, than=0.2), error.format(0.1), error.of("test").name
    (True, '10.00%', 'test/error')
    """

    name: str
    better: str
    unit: str = ""

    def __post_init__(self) -> None:
        if self.better not in DIRECTIONS:
            raise UsageError(
                f"metric {self.name!r}: better={self.better!r} is unknown; {nearest(self.better, DIRECTIONS)}"
            )

    def __str__(self) -> str:
        return f"{self.name} ({self.better} is better)"

    @property
    def minimize(self) -> bool:
        """Whether lower values are better."""
        return self.better == "lower"

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """The direction of optimisation, as Optuna names it."""
        return "minimize" if self.minimize else "maximize"

    @property
    def is_fraction(self) -> bool:
        """Whether values are fractions of 1, which are written as percentages."""
        return self.unit == "%"

    def utility(self, value: float) -> float:
        """The value on a scale on which higher is always better: negated if lower values are better."""
        return -value if self.minimize else value

    def is_better(self, value: float, *, than: float | None) -> bool:
        """Whether a value is strictly better than another. NaN is never better; any number is better than None."""
        if value != value or than is None or than != than:
            return value == value
        return self.utility(value) > self.utility(than)

    def reaches(self, value: float | None, target: float) -> bool:
        """Whether a value is at least as good as a target; None and NaN are not."""
        return value is not None and self.utility(value) >= self.utility(target)

    def of(self, split: str) -> "Metric":
        """The metric of one split: ``Metric('loss', 'lower').of('test').name == 'test/loss'``."""
        return dataclasses.replace(self, name=f"{split}/{self.name}")

    def format(self, value: float) -> str:
        """A value with its unit: percentages with two decimals, other numbers with three significant digits."""
        if self.is_fraction:
            return f"{value:.2%}"
        return f"{value:.3g} {self.unit}".rstrip()

    def format_spread(self, mean: float, deviation: float) -> str:
        """The mean of several values and their standard deviation.

        >>> Metric("accuracy", "higher", "%").format_spread(0.989, 0.0022)
        '98.90% ± 0.22'
        """
        return f"{self.format(mean)} {self.format_deviation(deviation)}"

    def format_deviation(self, deviation: float) -> str:
        """A standard deviation, to be written after the mean."""
        return f"± {100 * deviation:.2f}" if self.is_fraction else f"± {deviation:.2g}"


def metric_of(score: str, metrics: Sequence[Metric], *, splits: Iterable[str] | None = None, what: str = "") -> Metric:
    """The metric of a score, given the name of the score.

    Args:
      score: The name, ``'split/metric'``, such as ``'validation/loss'``.
      metrics: The metrics that the task declares.
      splits: The splits that are evaluated; by default any.
      what: Where the name was given, for the error message; by default ``"score='<name>'"``.

    Returns:
      The declared metric, with the score's full name.

    Raises:
      UsageError: The name has another form, or the split or the metric does not exist.

    >>> metric_of("test/rmse", [Metric("rmse", "lower", "px")])
    Metric(name='test/rmse', better='lower', unit='px')
    """
    what = what or f"score={score!r}"
    known = {metric.name: metric for metric in metrics}
    split, slash, name = score.partition("/")
    if not slash:
        raise UsageError(f"{what} must be split/metric, such as 'validation/{next(iter(known), 'loss')}'")
    if splits is not None and split not in (known_splits := list(splits)):
        raise UsageError(f"{what} names a split that is not evaluated; {nearest(split, known_splits)}")
    if name not in known:
        scores = [f"{split}/{other}" for other in known]
        raise UsageError(f"{what} names a metric that the task does not declare; {nearest(score, scores)}")
    return known[name].of(split)
