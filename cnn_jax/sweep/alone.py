"""Trials one after the other, each as ``launch.py`` would run it."""

import contextlib
import json
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cnn_jax import config as configs
from cnn_jax.errors import DISK_ERRORS, Interrupted, UsageError
from cnn_jax.runtime.terminal import printable, say
from cnn_jax.sweep.database import StorageError
from cnn_jax.sweep.store import LeaseLost
from cnn_jax.sweep.trial import OnEvaluation, Outcome, Report, Train, Trial
from cnn_jax.train import InUseError, NoWholeCheckpointError

_MOST_LETTERS = 500  # the maximum length of a reason
LOG = "log.txt"


class _Pruned(Exception):
    pass


def run_alone(
    trials: Sequence[Trial], *, train: Train, report: Report, metric: str, reports: bool = True
) -> Iterator[Outcome]:
    """A :class:`~cnn_jax.sweep.trial.Runner` that trains its trials one after the other.

    Their output is written to ``log.txt`` in their folders. An exception becomes the outcome of its trial.
    """
    for trial in trials:
        outcome = _run(trial, train, report, metric, reports)
        if outcome.state == "failed" and not (trial.workdir / LOG).exists():  # the folder was removed
            shutil.rmtree(trial.workdir, ignore_errors=True)  # also files written since
            outcome = _run(trial, train, report, metric, reports)
        yield outcome


def ends_the_worker(error: BaseException) -> bool:
    """Whether an error is not caused by the running trial, so that another worker should take the trial over."""
    if isinstance(error, OSError):
        return error.errno in DISK_ERRORS
    if isinstance(error, KeyboardInterrupt):  # the user's? A worker treats the first as a request
        return signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return isinstance(error, Interrupted | InUseError | LeaseLost | StorageError)


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
                _train(trial, train, report=reports, on_evaluation=on_evaluation)
            return outcome("complete", _score(trial, metric))
        except _Pruned as pruned:
            return outcome("pruned", float(last[metric]), str(pruned))
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            if ends_the_worker(error):
                raise
            traceback.print_exc()
            return outcome("failed", reason=one_line(error))


def _train(trial: Trial, train: Train, *, report: bool, on_evaluation: OnEvaluation) -> None:
    """Trains from the newest checkpoint; from the start, if all of them are damaged."""
    options: dict[str, Any] = {"report": report, "on_evaluation": on_evaluation}
    try:
        train(trial.config, trial.workdir, **options)
    except NoWholeCheckpointError as error:
        say(f"beginning again: {error}")
        shutil.rmtree(trial.workdir / "checkpoints")
        train(trial.config, trial.workdir, **options)


def one_line(error: BaseException) -> str:
    """An error in one line, as the reason of a failed trial.

    >>> one_line(ValueError("no such\\ndata set")), one_line(KeyboardInterrupt())
    ('ValueError: no such data set', 'KeyboardInterrupt')
    """
    text = printable(" ".join(str(error).split()))
    line = text if isinstance(error, UsageError) else f"{type(error).__name__}: {text}".rstrip(": ")
    return line if len(line) <= _MOST_LETTERS else f"{line[: _MOST_LETTERS - 3]}..."


def _is_finished(trial: Trial, reports: bool) -> bool:
    """Whether a worker finished the run of a trial but died before it reported that."""
    if not all((trial.workdir / name).exists() for name in ("result.json", *(["report.html"] if reports else []))):
        return False
    known = trial.workdir / "config.json"
    return not (known.exists() and configs.differences(configs.read_run_config(trial.workdir), trial.config))


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
    """Redirects what is printed inside the block to a file in the run's folder."""
    trial.workdir.mkdir(parents=True, exist_ok=True)
    with (
        open(trial.workdir / LOG, "a", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        yield
    sys.stdout.flush()
