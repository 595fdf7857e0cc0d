"""Workers on this machine: processes that share its cores or GPUs, run many trials, and are replaced when they die."""

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from cnn_jax.errors import UsageError
from cnn_jax.sweep.settings import STORAGE_VARIABLE, SweepPlace

MOST_DEATHS = 3  # allowed deaths of each worker while no trial is started
_STOP_SECONDS = 60.0  # time for workers to save their trials
_MOST_WORKERS = 8  # the largest default number of workers without GPUs


@runtime_checkable
class Workers(Protocol):
    """The processes that run the trials of a sweep; a context manager that saves and ends them."""

    def __enter__(self) -> "Workers":
        """Starts them."""
        ...

    def __exit__(self, *error: object) -> None:
        """Ends them."""
        ...

    def tend(self, begun: Callable[[], int]) -> None:
        """Replaces workers that ended before the sweep did; ``begun`` is the number of started trials.

        Raises:
          UsageError: The workers end as fast as they are replaced.
        """
        ...


class Deaths:
    """Stops a sweep whose workers keep dying.

    Args:
      most: The allowed number of deaths while no trial is started.
    """

    def __init__(self, most: int) -> None:
        self._most, self._deaths, self._begun = most, 0, -1

    def count(self, begun: int, why: str, cause: BaseException | None = None) -> None:
        """Counts a death, after this number of started trials.

        Raises:
          UsageError: There were too many deaths; the message ends with ``why``.
        """
        if begun > self._begun:
            self._deaths, self._begun = 0, begun
        self._deaths += 1
        if self._deaths > self._most:
            raise UsageError(f"the workers end as soon as they begin{why}") from cause


def gpus(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs that this process may use, as in ``CUDA_VISIBLE_DEVICES``, found without initialising JAX.

    >>> gpus({"CUDA_VISIBLE_DEVICES": "2,3"}), gpus({"JAX_PLATFORMS": "cpu"})
    (['2', '3'], [])
    """
    if environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        return []
    if "CUDA_VISIBLE_DEVICES" in environ:
        return [device for device in environ["CUDA_VISIBLE_DEVICES"].split(",") if device not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def default_workers() -> int:
    """The default number of workers: one for each GPU, or without GPUs one for each core, at most eight."""
    return len(gpus()) or min(len(cores()), _MOST_WORKERS)


def shares(items: Sequence[int], count: int) -> list[list[int]]:
    """Divides the cores among the workers. If there are fewer cores than workers, each worker gets all of them.

    >>> shares([0, 1, 2, 3, 4], 2), shares([0, 1], 3)
    ([[0, 1], [2, 3, 4]], [[0, 1], [0, 1], [0, 1]])
    """
    if count > len(items):
        return [list(items)] * count
    ends = [round(k * len(items) / count) for k in range(count + 1)]
    return [list(items[start:end]) for start, end in itertools.pairwise(ends)]


class LocalWorkers:
    """Worker processes on this machine.

    Args:
      place: The folder and database of the sweep.
      count: The number of workers.
      kind: How workers train the trials that they claim, see :func:`cnn_jax.sweep.worker.work`.
      batch: The number of trials that a worker claims at the same time.
    """

    def __init__(self, place: SweepPlace, count: int, *, kind: str = "alone", batch: int = 1) -> None:
        self._place, self._options = place, [f"--kind={kind}", f"--batch={batch}"]
        self._cores, self._gpus = shares(cores(), count), gpus()
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * count
        self._ended: set[int] = set()  # workers whose normal end was already seen
        self._deaths = Deaths(MOST_DEATHS * count - 1)

    def __enter__(self) -> "LocalWorkers":
        (self._place.directory / "workers").mkdir(parents=True, exist_ok=True)
        for number in range(len(self._processes)):
            self._start(number)
        return self

    def __exit__(self, *_: object) -> None:
        alive = [process for process in self._processes if process is not None and process.poll() is None]
        for process in alive:
            process.terminate()
        end = time.monotonic() + _STOP_SECONDS
        # Killed workers lose little: their trials continue from the last checkpoint.
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            for process in alive:
                process.wait(max(end - time.monotonic(), 0.1))
        for started in filter(None, self._processes):
            started.kill()
            started.wait()
            if started.stdin is not None:
                started.stdin.close()

    def tend(self, begun: Callable[[], int]) -> None:
        """Replaces workers that have ended."""
        for number, process in enumerate(self._processes):
            code = None if process is None else process.poll()
            if code is None:
                continue
            if code == 0 and number not in self._ended:  # there may be nothing left to do
                self._ended.add(number)
                continue
            self._ended.discard(number)
            self._deaths.count(begun(), f" (exit code {code}): {self._last_line(number)}")
            self._start(number)

    def _start(self, number: int) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path]))}
        if self._place.storage:
            environment[STORAGE_VARIABLE] = self._place.storage
        if self._gpus:
            of_each = -(-len(self._processes) // len(self._gpus))
            if len(self._processes) > 1:
                environment["CUDA_VISIBLE_DEVICES"] = self._gpus[number % len(self._gpus)]
            if of_each > 1:
                environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 / of_each:.2f}")
        command = [sys.executable, "-m", "cnn_jax.sweep.worker", str(self._place.directory), *self._options]
        own = cores()
        with open(self._log(number), "ab") as log:
            try:
                _bind(self._cores[number])  # inherited by the new process
                self._processes[number] = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.PIPE,  # closed when this process ends, which ends the worker
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # so that only this process receives Ctrl-C; it then ends the worker
                )
            finally:
                _bind(own)

    def _log(self, number: int) -> Path:
        return self._place.directory / "workers" / f"{number}.log"

    def _last_line(self, number: int) -> str:
        lines = self._log(number).read_text(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'nothing was printed'}; see {self._log(number)}"


def _bind(to: Sequence[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, to)
