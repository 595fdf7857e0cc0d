"""What a sweep is made of: trials, which are ordinary runs with some keys of the config changed, and their outcomes."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from ml_collections import ConfigDict

from cnn_jax import train as training

State = Literal["waiting", "running", "complete", "pruned", "failed"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
      number: From 0, in the order in which trials were proposed.
      point: The values that are tried, from 0; the runs of one point differ in their seed alone.
      overrides: Dotted key -> value, the seed included where a point has several runs.
      config: The sweep's config with the overrides in it.
      workdir: The run's folder, ``<sweep>/trials/<number>``; what it holds is an ordinary run.
      deaths: How many workers have died on it where it is.
    """

    number: int
    overrides: Mapping[str, Any]
    config: ConfigDict
    workdir: Path
    point: int = 0
    deaths: int = 0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
      number: The trial's.
      state: ``'failed'`` for one that raised, diverged, or ended its process time and again.
      score: The sweep's metric at the last evaluation; for a pruned trial at the one that ended it. None if it failed.
      reason: One line on why it failed or was pruned; empty for a complete one.
      seconds: How long the process that ended it spent on it.
    """

    number: int
    state: Literal["complete", "pruned", "failed"]
    score: float | None = None
    reason: str = ""
    seconds: float = 0.0


@runtime_checkable
class Report(Protocol):
    """Called by a runner after each evaluation of a trial; returns whether to stop the trial there."""

    def __call__(self, trial: Trial, evaluation: int, scores: Mapping[str, float]) -> bool:
        """Takes the scores (``'split/metric' -> value``) of a trial's evaluation number 1, 2, 3..."""
        ...


@runtime_checkable
class OnEvaluation(Protocol):
    """Called by a run after each evaluation."""

    def __call__(self, evaluation: int, scores: Mapping[str, float]) -> None:
        """May raise to end the run."""
        ...


@runtime_checkable
class Train(Protocol):
    """How an experiment trains one run: to the end, or on from its last checkpoint, with ``result.json`` at the end.

    ``on_evaluation(evaluation, scores)`` is called when evaluation number 1, 2, 3... has been scored and saved. It may
    raise, which ends the run there; it can be continued. ``result.json`` has ``"scores"``, ``'split/metric' -> value``.
    ``report`` asks for ``report.html``.
    """

    def __call__(self, config: ConfigDict, directory: Path, *, report: bool, on_evaluation: OnEvaluation) -> None:
        """Trains."""
        ...


@runtime_checkable
class Preparation(Protocol):
    """What runs share whose configs differ in traced hyperparameters and seeds alone."""

    def program(self, config: ConfigDict, parallel: training.DataParallel) -> training.Program:
        """What the run of a config computes, bound to its values; all these configs share the compiled functions."""
        ...

    def begin(self, config: ConfigDict, directory: Path) -> None:
        """What is written into a run's folder, which is open, before it trains."""
        ...

    def finish(self, config: ConfigDict, directory: Path, trained: training.Trained, *, report: bool) -> None:
        """Writes ``result.json`` and, if asked, ``report.html``."""
        ...


@runtime_checkable
class Vectorizable(Protocol):
    """The module of an experiment whose runs can be trained together: what it has beside ``train``."""

    def traced(self, config: ConfigDict) -> Sequence[str]:
        """The keys of a config whose values the compiled functions take as arguments: the traced hyperparameters."""
        ...

    def prepare(self, config: ConfigDict, directory: Path) -> Preparation:
        """What a run shares with those that differ from it in traced hyperparameters and seeds alone."""
        ...


@runtime_checkable
class Runner(Protocol):
    """What runs trials that were claimed for it, and yields the outcome of each as soon as it is known.

    What ends the worker and not the trial it lets through: ``Interrupted``, ``KeyboardInterrupt``, a full disk,
    ``LeaseLost`` from ``report``.
    """

    def __call__(
        self, trials: Sequence[Trial], *, train: Train, report: Report, metric: str, reports: bool
    ) -> Iterator[Outcome]:
        """Runs trials.

        Args:
          trials: To be run.
          train: Trains one of them.
          report: Called after each evaluation; returns whether to stop the trial there, as pruned.
          metric: ``'split/metric'``, the score of an outcome.
          reports: Whether the runs are to have a ``report.html``.
        """
        ...


def trial_directory(sweep: Path, number: int) -> Path:
    """The folder of one run of a sweep.

    >>> trial_directory(Path("runs/sweep"), 7).as_posix()
    'runs/sweep/trials/0007'
    """
    return sweep / "trials" / f"{number:04d}"
