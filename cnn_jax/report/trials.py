"""What the page of a sweep reads of a trial, and how important each parameter is for the score."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

_MOST_TREES = 300  # trials for which importance is computed by a forest; beyond it takes too long
_LEAST_TRIALS = 10  # of which importance is asked


@runtime_checkable
class TrialLike(Protocol):
    """One trial: what the page reads of a :class:`cnn_jax.sweep.table.TrialRow`."""

    @property
    def number(self) -> int:
        """From 0."""
        ...

    @property
    def point(self) -> int:
        """Which values it has, from 0; the trials of a point differ in their seed alone."""
        ...

    @property
    def state(self) -> str:
        """``'complete'``, ``'pruned'``, ``'failed'``, ``'running'`` or ``'waiting'``."""
        ...

    @property
    def score(self) -> float | None:
        """The metric, if there is one."""
        ...

    @property
    def mean(self) -> float | None:
        """Of the scores of the complete trials of its point."""
        ...

    @property
    def std(self) -> float | None:
        """Their standard deviation."""
        ...

    @property
    def seconds(self) -> float:
        """It took."""
        ...

    @property
    def reason(self) -> str:
        """Why it was pruned or failed."""
        ...

    @property
    def overrides(self) -> Mapping[str, Any]:
        """Dotted key -> value."""
        ...


def importances(rows: Sequence[TrialLike], keys: Sequence[str], *, minimize: bool = False) -> dict[str, float]:
    """How much of the differences of the score each key accounts for, the greatest first; empty if that says nothing.

    By functional ANOVA over a forest (Hutter, Hoos & Leyton-Brown, "An efficient approach for assessing hyperparameter
    importance", 2014), and for many trials by PED-ANOVA (Watanabe, Bansal & Hutter, 2023), both Optuna's. Of complete
    trials; of the keys, those with more than one value that all of these have. One alone would account for all.
    """
    try:
        import optuna
    except ImportError:  # an extra; the page says nothing of importance then
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

    def chosen(row: TrialLike) -> list[tuple[str, Any]]:
        return [(key, row.overrides[key]) for key in space]

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
    """Whether there are values, and all are numbers."""
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def are_logarithmic(values: Sequence[float | int]) -> bool:
    """Whether numbers are better looked at by their orders of magnitude: there their median is nearer to the middle.

    >>> are_logarithmic([0.001, 0.01, 0.1, 1.0]), are_logarithmic([0.01, 0.3, 0.6, 0.9]), are_logarithmic([0.0, 1.0])
    (True, False, False)
    """
    tried = set(values)  # how often one was says nothing of the axis
    low, middle, high = min(tried), statistics.median(tried), max(tried)
    if low <= 0 or high < 4 * low:
        return False
    linear = (middle - low) / (high - low)
    return abs(math.log(middle / low) / math.log(high / low) - 0.5) < abs(linear - 0.5)
