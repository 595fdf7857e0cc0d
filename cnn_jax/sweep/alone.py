"""Trials one after the other, each as ``launch.py`` would run it."""

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence

from cnn_jax.errors import DISK_ERRORS, Interrupted, UsageError
from cnn_jax.sweep.store import LeaseLost
from cnn_jax.sweep.trial import Outcome, Report, Train, Trial
from cnn_jax.train import InUseError

LOG = "log.txt"


class _Pruned(Exception):
    pass


def run_alone(
    trials: Sequence[Trial], *, train: Train, report: Report, metric: str, reports: bool = True
) -> Iterator[Outcome]:
    """The :class:`~cnn_jax.sweep.trial.Runner` of trials that have nothing to do with each other.

    What they print goes to ``log.txt`` in their folders. What they raise is their outcome.
    """
    for trial in trials:
        yield _run(trial, train, report, metric, reports)


def _run(trial: Trial, train: Train, report: Report, metric: str, reports: bool) -> Outcome:
    started = time.perf_counter()
    last: Mapping[str, float] = {}

    def on_evaluation(evaluation: int, scores: Mapping[str, float]) -> None:
        nonlocal last
        last = scores
        if report(trial, evaluation, scores):
            raise _Pruned(f"pruned at evaluation {evaluation}")

    def outcome(state: str, score: float | None = None, reason: str = "") -> Outcome:
        return Outcome(trial.number, state, score, reason, round(time.perf_counter() - started, 3))  # type: ignore[arg-type]

    with _logged(trial):
        try:
            if not _is_finished(trial, reports):
                train(trial.config, trial.workdir, report=reports, on_evaluation=on_evaluation)
            return outcome("complete", _score(trial, metric))
        except _Pruned as pruned:
            return outcome("pruned", float(last[metric]), str(pruned))
        except (Interrupted, InUseError, LeaseLost):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                raise
            traceback.print_exc()
            return outcome("failed", reason=one_line(error))


def one_line(error: Exception) -> str:
    """An error as the reason for which a trial failed."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UsageError) else f"{type(error).__name__}: {text}".rstrip(": ")


def _is_finished(trial: Trial, reports: bool) -> bool:
    """Whether a worker that died had finished the run and only not said so."""
    return (trial.workdir / "result.json").exists() and (not reports or (trial.workdir / "report.html").exists())


def _score(trial: Trial, metric: str) -> float:
    path = trial.workdir / "result.json"
    if not path.exists():
        raise UsageError(f"the run wrote no {path.name}, from which a sweep reads its score")
    scores = json.loads(path.read_text())["scores"]
    if metric not in scores:
        raise UsageError(f"the run has no score {metric}; it has {', '.join(scores)}")
    if scores[metric] != scores[metric]:
        raise UsageError(f"its {metric} is not a number")
    return float(scores[metric])


@contextlib.contextmanager
def _logged(trial: Trial) -> Iterator[None]:
    """What is printed within goes to the run's folder."""
    trial.workdir.mkdir(parents=True, exist_ok=True)
    with (
        open(trial.workdir / LOG, "a", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        yield
    sys.stdout.flush()
