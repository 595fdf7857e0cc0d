"""The interface of a trial for the page of a sweep, and the importance of each parameter for the score."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from cnn_jax.metrics import Metric
from cnn_jax.report.formatting import is_number

_MOST_TREES = 300  # up to this number of trials importance is computed with a forest; for more it takes too long
_LEAST_TRIALS = 10  # the minimum number of trials for which importance is computed


@runtime_checkable
class TrialLike(Protocol):
    """One trial: the attributes of a :class:`cnn_jax.sweep.table.TrialRow` that the page uses."""

    @property
    def number(self) -> int:
        """The number of the trial, from 0."""
        ...

    @property
    def point(self) -> int:
        """The number of its point, from 0. The trials of a point differ only in their seed."""
        ...

    @property
    def state(self) -> str:
        """``'complete'``, ``'pruned'``, ``'failed'``, ``'running'`` or ``'waiting'``."""
        ...

    @property
    def score(self) -> float | None:
        """The value of the metric, or None."""
        ...

    @property
    def mean(self) -> float | None:
        """The mean score of the complete trials of its point, or if none is complete, of the pruned ones; or None."""
        ...

    @property
    def std(self) -> float | None:
        """The standard deviation of these scores, or None."""
        ...

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        ...

    @property
    def reason(self) -> str:
        """The reason why it was pruned or failed, or an empty string."""
        ...

    @property
    def overrides(self) -> Mapping[str, Any]:
        """The values that differ from the config, by dotted key."""
        ...


OneTrial = TypeVar("OneTrial", bound=TrialLike)


def best_first(rows: Sequence[OneTrial], metric: Metric) -> list[OneTrial]:
    """Sorts all trials by the mean of their point, then by their own score. Trials without a finite score come last.

    Pruned trials are sorted together with complete ones, by their last score.

    Args:
      rows: The trials.
      metric: The metric of the scores.
    """

    def place(score: float | None) -> float:
        return math.inf if score is None or not math.isfinite(score) else -metric.utility(score)

    def order(row: TrialLike) -> tuple[float | int, ...]:
        of_point = row.score if row.mean is None else row.mean
        return place(of_point), place(row.score), row.score is None, row.number

    return sorted(rows, key=order)


def importances(rows: Sequence[TrialLike], keys: Sequence[str], *, minimize: bool = False) -> dict[str, float]:
    """The share of the variation of the score that each key accounts for, largest first.

    It is computed by Optuna: by functional ANOVA over a forest (Hutter, Hoos & Leyton-Brown, "An efficient approach for
    assessing hyperparameter importance", 2014), or for many trials by PED-ANOVA (Watanabe, Bansal & Hutter, 2023).

    Args:
      rows: The trials. Only complete ones with a finite score are used.
      keys: The dotted keys. Only keys that all complete trials have, with more than one value, are used.
      minimize: Whether lower scores are better.

    Returns:
      The share of each key. It is empty if Optuna is not installed, if there are fewer than 10 complete trials or fewer
      than two keys, or if all scores are equal.
    """
    try:
        import optuna
    except ImportError:  # Optuna is optional; without it the page does not show importance
        return {}
    complete = [row for row in rows if row.state == "complete" and row.score is not None and math.isfinite(row.score)]
    keys = [key for key in keys if all(key in row.overrides for row in complete)]
    keys = [key for key in keys if len({repr(row.overrides[key]) for row in complete}) > 1]
    if len(keys) < 2 or len(complete) < _LEAST_TRIALS or len({row.score for row in complete}) == 1:
        return {}
    found = {key: [row.overrides[key] for row in complete] for key in keys}
    space: dict[str, Any] = {}
    for key, values in found.items():
        if are_numbers(values):
            low, high, log = min(values), max(values), are_logarithmic(values)
            whole = all(isinstance(value, int) for value in values)
            kind = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
            space[key] = kind(low, high, log=log)
        else:
            space[key] = optuna.distributions.CategoricalDistribution(sorted({repr(value) for value in values}))

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(direction="minimize" if minimize else "maximize")
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params={
                        key: v if are_numbers(found[key]) else repr(v)
                        for key, v in row.overrides.items()
                        if key in space
                    },
                    distributions=space,
                    value=row.score,
                )
                for row in complete
            ]
        )
        few = len(complete) <= _MOST_TREES
        evaluator: Any = (
            optuna.importance.FanovaImportanceEvaluator(seed=0)
            if few
            else optuna.importance.PedAnovaImportanceEvaluator()
        )
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {key: share for key, share in shares.items() if math.isfinite(share)}


def are_numbers(values: Sequence[Any]) -> bool:
    """Whether there is at least one value and all values are numbers."""
    return bool(values) and all(map(is_number, values))


def are_logarithmic(values: Sequence[float | int]) -> bool:
    """Whether positive numbers fit a logarithmic axis better: their median is nearer to its middle.

    >>> are_logarithmic([0.001, 0.01, 0.1, 1.0]), are_logarithmic([0.01, 0.3, 0.6, 0.9]), are_logarithmic([0.0, 1.0])
    (True, False, False)
    """
    tried = set(values)  # the number of times that a value was tried does not matter for the axis
    low, middle, high = min(tried), statistics.median(tried), max(tried)
    if low <= 0 or high < 4 * low:
        return False
    linear = (middle - low) / (high - low)
    return abs(math.log(middle / low) / math.log(high / low) - 0.5) < abs(linear - 0.5)
