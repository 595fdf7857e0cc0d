"""Samplers choose the next values: grids, quasi-random sequences and Optuna's adaptive samplers. Pruners end trials.

Point ``n`` depends only on the sweep's seed, on ``n``, and on the results of the points before ``n - ahead``. The same
sweep therefore proposes the same points, whatever the number of workers, the order in which trials finish, and the
processes that are killed.
"""

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn_jax import schema
from cnn_jax.errors import UsageError, nearest
from cnn_jax.runtime.extras import require
from cnn_jax.sweep import space
from cnn_jax.sweep.settings import Sweep
from cnn_jax.typed import typed

if TYPE_CHECKING:
    import optuna

SAMPLERS = {
    "grid": "every combination",
    "sobol": "a scrambled Sobol sequence, which fills a space more evenly than independent draws",
    "halton": "a scrambled Halton sequence",
    "random": "the same as sobol",
    "tpe": "tree-structured Parzen estimator (Bergstra et al., 2011)",
    "cmaes": "covariance matrix adaptation (Hansen and Ostermeier, 2001)",
    "gp": "Gaussian process and expected improvement; needs PyTorch",
}
LEARNING: dict[str, Callable[[Any, int], Any]] = {
    "tpe": lambda samplers, seed: samplers.TPESampler(seed=seed),
    "cmaes": lambda samplers, seed: samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
    "gp": lambda samplers, seed: samplers.GPSampler(seed=seed, warn_independent_sampling=False),
}
"""Name of a sampler that learns from results -> a function of ``optuna.samplers`` and a seed that creates it."""
PRUNERS = {
    "none": "every trial runs to its end",
    "halving": "asynchronous successive halving (Li et al., 2018): one of four continues after 1, 4, 16... evaluations",
    "hyperband": "several such rules together (Li et al., 2017), by thirds, as soon as the first trial is complete",
}
_SEQUENCES = {"sobol": "sobol", "random": "sobol", "halton": "halton"}


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A point: its overrides, and the values that Optuna stores."""

    overrides: dict[str, Any]
    params: dict[str, Any]
    distributions: dict[str, "optuna.distributions.BaseDistribution"]
    system_attrs: dict[str, Any] = dataclasses.field(default_factory=dict)


def load_optuna() -> Any:
    """Imports Optuna and hides its messages, except warnings."""
    optuna = require("optuna", "sweep", "a sweep")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def learns(sampler: str) -> bool:
    """Whether a sampler uses results."""
    return sampler in LEARNING


@typed
def check(sampler: str, pruner: str) -> None:
    """Raises a ``UsageError`` for an unknown sampler or pruner, or one whose package is missing."""
    if sampler not in SAMPLERS:
        raise UsageError(f"--sampler={sampler} is unknown; {nearest(sampler, SAMPLERS)} (of {', '.join(SAMPLERS)})")
    if pruner not in PRUNERS:
        raise UsageError(f"--pruner={pruner} is unknown; {nearest(pruner, PRUNERS)}")
    load_optuna()
    if sampler == "cmaes":
        require("cmaes", "sweep", "--sampler=cmaes")
    if sampler == "gp":
        require("torch", "torch", "--sampler=gp")


def make_pruner(name: str) -> "optuna.pruners.BasePruner":
    """Creates one of :data:`PRUNERS`; its steps are evaluations."""
    pruners = load_optuna().pruners
    match name:
        case "halving":
            return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=4)
        case "hyperband":
            return pruners.HyperbandPruner(min_resource=1, reduction_factor=3)
    return pruners.NopPruner()


class Sampler:
    """Proposes the points of a sweep in order."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._base = schema.flatten(sweep.config)
        self._drawn: list[Proposal] = []

    def propose(self, number: int, before: Sequence["optuna.trial.FrozenTrial"]) -> Proposal | None:
        """Proposes a point.

        Args:
          number: The number of the point, from 0.
          before: All points before it, in order.

        Returns:
          The point; None if it depends on a result that is not known yet.
        """
        if self.sweep.sampler == "grid":
            return self._of_grid(number)
        if not learns(self.sweep.sampler):
            return self._of_sequence(number)
        known = max(number - self.sweep.ahead + 1, 0)
        if not all(point.state.is_finished() for point in before[:known]):
            return None
        return self._learned(number, [*before[:known], *map(_hidden, before[known:])])

    @functools.cached_property
    def _grid(self) -> list[dict[str, Any]]:
        return space.grid(self.sweep.space, self._base)

    @functools.cached_property
    def _choices(self) -> dict[str, list[Any]]:
        """The values of each key in the grid, in a form that Optuna can store."""
        keys = dict.fromkeys(key for point in self._grid for key in point)
        return {key: list(dict.fromkeys(_single(p[key]) for p in self._grid if key in p)) for key in keys}

    def _of_grid(self, number: int) -> Proposal:
        categorical = load_optuna().distributions.CategoricalDistribution
        point = self._grid[number]
        params = {key: _single(value) for key, value in point.items()}
        return Proposal(point, params, {key: categorical(self._choices[key]) for key in params})

    @functools.cached_property
    def _sequence(self) -> "optuna.Study":
        optuna = load_optuna()
        with _quiet():
            sampler = optuna.samplers.QMCSampler(
                qmc_type=_SEQUENCES[self.sweep.sampler],
                scramble=True,
                seed=self.sweep.seed,
                independent_sampler=optuna.samplers.RandomSampler(seed=self.sweep.seed),
                warn_independent_sampling=False,
            )
        return optuna.create_study(sampler=sampler)

    def _of_sequence(self, number: int) -> Proposal:
        while len(self._drawn) <= number:
            trial = self._sequence.ask()
            overrides = space.suggest(self.sweep.space, trial, self._base, everything=True)
            self._drawn.append(Proposal(overrides, trial.params, trial.distributions))
            self._sequence.tell(trial, 0.0)  # has no effect on a sequence
        return self._drawn[number]

    def _learned(self, number: int, before: Sequence["optuna.trial.FrozenTrial"]) -> Proposal:
        optuna = load_optuna()
        seed = int(np.random.SeedSequence([self.sweep.seed, number]).generate_state(1)[0] >> 1)
        with _quiet():
            sampler = LEARNING[self.sweep.sampler](optuna.samplers, seed)
            study = optuna.create_study(direction=self.sweep.metric.direction, sampler=sampler)
            for point in before:
                study.add_trial(point)
            trial = study.ask()
            overrides = space.suggest(self.sweep.space, trial, self._base)
        system_attrs = study.get_trials(deepcopy=False)[-1].system_attrs
        return Proposal(overrides, trial.params, trial.distributions, dict(system_attrs))


def _hidden(point: "optuna.trial.FrozenTrial") -> "optuna.trial.FrozenTrial":
    """A point without results."""
    optuna = load_optuna()
    kept = {"params": point.params, "distributions": point.distributions, "system_attrs": point.system_attrs}
    return optuna.create_trial(state=optuna.trial.TrialState.RUNNING, **kept)


def _single(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else repr(value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses Optuna's warnings about experimental features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
