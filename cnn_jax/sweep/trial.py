"""Trials, which are runs with some changed keys of the sweep's config, their outcomes, and the types of runners."""

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
      number: The number of the trial, from 0, in the order in which trials were proposed.
      point: The number of its point, from 0. The runs of a point differ only in their seed.
      overrides: Dotted key -> value; includes the seed if a point has several runs.
      config: The sweep's config with the overrides.
      workdir: The run's folder, ``<sweep>/trials/<number>``, with the files of an ordinary run.
      deaths: How many workers have died on it since it last made progress.
    """

    number: int
    overrides: Mapping[str, Any]
    config: ConfigDict
    workdir: Path
    point: int = 0
    deaths: int = 0


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a trial.

    Attributes:
      number: The number of the trial.
      state: ``'failed'`` if it raised an error, diverged, or ended its process several times.
      score: The sweep's metric at the last evaluation; for a pruned trial at the one that ended it. None if it failed.
      reason: Why it failed or was pruned, in one line; empty for a complete trial.
      seconds: The time that the last process spent on it.
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
        """Reports the scores (``'split/metric' -> value``) of a trial's evaluation number 1, 2, 3..."""
        ...


@runtime_checkable
class OnEvaluation(Protocol):
    """Called by a run after each evaluation."""

    def __call__(self, evaluation: int, scores: Mapping[str, float]) -> None:
        """May raise to end the run."""
        ...


@runtime_checkable
class Train(Protocol):
    """Trains one run of an experiment to the end, from its last checkpoint if there is one; writes ``result.json``.

    ``on_evaluation(evaluation, scores)`` is called when evaluation number 1, 2, 3... is done and saved. An exception
    from it ends the run, which can be continued. ``result.json`` has ``"scores"``, ``'split/metric' -> value``.
    ``report`` says whether to write ``report.html``.
    """

    def __call__(self, config: ConfigDict, directory: Path, *, report: bool, on_evaluation: OnEvaluation) -> None:
        """Trains."""
        ...


@runtime_checkable
class Preparation(Protocol):
    """The parts that runs share if their configs differ only in traced hyperparameters and seeds."""

    def program(self, config: ConfigDict, parallel: training.DataParallel) -> training.Program:
        """The program of a config's run, bound to its values; all these configs share the compiled functions."""
        ...

    def begin(self, config: ConfigDict, directory: Path) -> None:
        """Writes the first files of a run into its open folder, before training."""
        ...

    def finish(self, config: ConfigDict, directory: Path, trained: training.Trained, *, report: bool) -> None:
        """Writes ``result.json`` and, if requested, ``report.html``."""
        ...


@runtime_checkable
class Vectorizable(Protocol):
    """The functions, besides ``train``, of an experiment's module whose runs can be trained together."""

    def traced(self, config: ConfigDict) -> Sequence[str]:
        """The traced hyperparameters: keys of a config whose values are arguments of the compiled functions."""
        ...

    def prepare(self, config: ConfigDict, directory: Path) -> Preparation:
        """Prepares what a run shares with runs that differ only in traced hyperparameters and seeds."""
        ...


@runtime_checkable
class Runner(Protocol):
    """Runs claimed trials, and yields the outcome of each as soon as it is known.

    It does not catch exceptions that end the worker instead of the trial: ``Interrupted``, ``KeyboardInterrupt``, a
    full disk, ``LeaseLost`` from ``report``.
    """

    def __call__(
        self, trials: Sequence[Trial], *, train: Train, report: Report, metric: str, reports: bool
    ) -> Iterator[Outcome]:
        """Runs trials.

        Args:
          trials: The trials to run.
          train: Trains one trial.
          report: Called after each evaluation; returns whether to stop the trial there, as pruned.
          metric: The metric whose value is the score of an outcome, ``'split/metric'``.
          reports: Whether to write a ``report.html`` for each run.
        """
        ...


def trial_directory(sweep: Path, number: int) -> Path:
    """The folder of one run of a sweep.

    >>> trial_directory(Path("runs/sweep"), 7).as_posix()
    'runs/sweep/trials/0007'
    """
    return sweep / "trials" / f"{number:04d}"
