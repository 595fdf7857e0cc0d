"""A worker: claims trials, runs them and reports their outcomes, until the sweep is finished.

Runners start it on this machine as ``python -m cnn_jax.sweep.worker``. Users start it with ``launch.py
--mode=sweep-worker``, on any machine that can access the storage and the folder.
"""

import argparse
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from cnn_jax import native
from cnn_jax.errors import EXIT_CODE, Interrupted, UsageError
from cnn_jax.runtime.terminal import say_error
from cnn_jax.sweep.alone import run_alone
from cnn_jax.sweep.database import StorageError
from cnn_jax.sweep.settings import STORAGE_VARIABLE, SweepPlace
from cnn_jax.sweep.store import LeaseLost, Store
from cnn_jax.sweep.trial import Runner, Trial
from cnn_jax.train import InUseError, StopRequest

KINDS = ("alone", "vectorized")
_WAIT_SECONDS = 0.2  # the time between two attempts to claim a trial


def work(store: Store, *, kind: str = "alone", batch: int = 1, most: int | None = None) -> int:
    """Runs trials until the sweep is finished.

    Args:
      store: The trials of the sweep.
      kind: One of :data:`KINDS`: train each trial alone, or all trials that were claimed together in one program.
      batch: The number of trials that are claimed together.
      most: Return after so many trials; by default run all.

    Returns:
      The number of finished trials.

    Raises:
      Interrupted: The process received SIGTERM or Ctrl-C; the running trial is saved, and any worker can continue it.
      UsageError: The storage is not for this machine, or does not respond.
      OSError: The disk is full.
    """
    native.enable()
    store.check_machine()
    run, train, finished = _runner(kind), store.sweep.load_train(), 0
    metric, reports = store.sweep.metric.name, store.sweep.reports

    def report(trial: Trial, evaluation: int, scores: Mapping[str, float]) -> bool:
        pruned = store.report(trial, evaluation, scores)
        if stop.signal:  # received before the training handled signals
            raise Interrupted(stop.signal, f"stopped by {stop.signal.name} at evaluation {evaluation}, saved")
        return pruned

    with store.alive(), StopRequest() as stop:
        while most is None or finished < most:
            if stop.signal:
                raise Interrupted(stop.signal, f"stopped by {stop.signal.name}; another worker can continue")
            trials = store.claim(batch if most is None else min(batch, most - finished))
            if trials is None:
                break
            if not trials:
                time.sleep(_WAIT_SECONDS)
                continue
            unfinished = {trial.number: trial for trial in trials}
            try:
                for outcome in run(trials, train=train, report=report, metric=metric, reports=reports):
                    store.finish(outcome)
                    del unfinished[outcome.number]
                    finished += 1
                    if stop.signal:
                        break
            except (InUseError, LeaseLost):  # another live worker runs the trial
                time.sleep(_WAIT_SECONDS)
            except StorageError:  # the trials cannot be given back
                unfinished.clear()
                raise
            finally:
                for trial in unfinished.values():
                    store.give_back(trial)
    return finished


def _runner(kind: str) -> Runner:
    if kind == "alone":
        return run_alone
    return importlib.import_module("cnn_jax.sweep.vectorized").run_vectorized


def main() -> int:
    """The process that a runner starts. It saves and ends when its standard input is closed: the runner has ended."""
    parser = argparse.ArgumentParser(
        prog="python -m cnn_jax.sweep.worker", description="A worker of a sweep, as the runners start it."
    )
    parser.add_argument("directory", type=Path, help="the sweep's folder")
    parser.add_argument("--kind", choices=KINDS, default="alone")
    parser.add_argument("--batch", type=int, default=1, help="how many trials are claimed together")
    arguments = parser.parse_args()
    threading.Thread(target=_end_with_the_runner, daemon=True).start()
    try:
        store = Store(SweepPlace(arguments.directory, os.environ.get(STORAGE_VARIABLE, "")))
        work(store, kind=arguments.kind, batch=arguments.batch)
    except UsageError as error:
        say_error("worker", error)
        return EXIT_CODE
    except Interrupted as error:
        return error.exit_code
    return 0


def _end_with_the_runner() -> None:
    while os.read(0, 1):  # not sys.stdin: this thread would hold its lock when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
