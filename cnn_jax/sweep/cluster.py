"""Workers on other machines: tasks of a Ray cluster, or Slurm jobs that are submitted through submitit.

Both claim trials from the storage and run them, like any worker. If a task or a node is lost, another worker continues
its trial. The machines need a shared folder, and several machines need a database server. Tasks import this module
before jax, so it must not import jax.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn_jax.errors import UsageError
from cnn_jax.runtime.extras import require
from cnn_jax.runtime.terminal import say
from cnn_jax.sweep.local import MOST_DEATHS, Deaths
from cnn_jax.sweep.settings import ONE_MACHINE, STORAGE_VARIABLE, SweepPlace

_END_SECONDS = 5.0  # time for workers to notice that the sweep is finished
_STOP_SECONDS = 60.0  # time for workers to save their trials
_HANDED_ON = ("XLA_FLAGS", "JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")


def require_runner(name: str) -> Any:
    """Imports the library of a runner, if it has one; called before a sweep writes anything.

    Raises:
      UsageError: The library is not installed.
    """
    libraries = {"ray": "ray", "slurm": "submitit"}
    return require(libraries[name], name, f"--runner={name}") if name in libraries else None


class RayWorkers:
    """Tasks on a Ray cluster, each of which runs one trial. Ray reuses their processes.

    Args:
      place: The folder and database of the sweep.
      count: The number of tasks at the same time.
      address: The address of the cluster: ``'auto'`` for one on this machine, ``'local'`` to start one for the sweep.
      cpus: The CPU cores of each task.
      gpus: The GPUs of each task.
    """

    def __init__(
        self, place: SweepPlace, count: int, *, address: str = "auto", cpus: float = 1.0, gpus: float = 0.0
    ) -> None:
        self._ray = require_runner("ray")
        self._place, self._count, self._address = place, count, address
        self._task = self._ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_run_one)
        self._running: list[Any] = []
        self._deaths = Deaths(MOST_DEATHS * count)

    def __enter__(self) -> "RayWorkers":
        try:
            self._ray.init(address=self._address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError) as error:
            raise UsageError(
                f"--ray_address={self._address}: no Ray cluster answers there; start one (ray start --head), or give "
                f"--ray_address=local ({' '.join(str(error).split())})"
            ) from error
        for _ in range(self._count):
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._running:
            with contextlib.suppress(Exception):  # the task may have ended
                self._ray.cancel(task)
        with contextlib.suppress(KeyboardInterrupt):
            self._ray.wait(self._running, num_returns=len(self._running), timeout=_STOP_SECONDS)
        self._ray.shutdown()  # disconnects; the cluster continues to run

    def tend(self, begun: Callable[[], int]) -> None:
        """Replaces tasks that have ended, and tasks that were lost with their nodes."""
        if not self._running:
            return
        done, self._running = self._ray.wait(self._running, num_returns=len(self._running), timeout=0)
        for task in done:
            try:
                more = self._ray.get(task)
            except Exception as error:
                self._deaths.count(begun(), f": {_last_line(error)}", error)
                more = True
            if more:
                self._start()

    def _start(self) -> None:
        environment = {key: os.environ[key] for key in _HANDED_ON if key in os.environ}
        self._running.append(self._task.remote(str(self._place.directory.absolute()), self._place.storage, environment))


class SlurmWorkers:
    """Jobs of a job array. Each is a worker that runs trials until none is left.

    Args:
      place: The folder and database of the sweep.
      count: The number of jobs.
      cpus: The CPU cores of each job.
      gpus: The GPUs of each job.
      options: Options of submitit: ``timeout_min=240``, ``partition=gpu``...; ``cluster=local`` runs jobs here.
    """

    def __init__(
        self, place: SweepPlace, count: int, *, cpus: int = 1, gpus: int = 0, options: Mapping[str, str] | None = None
    ) -> None:
        submitit = require_runner("slurm")
        self._place, self._count = place, count
        given = {key: int(value) if value.isdigit() else value for key, value in (options or {}).items()}
        cluster = given.pop("cluster", "slurm")
        if cluster == "slurm" and place.is_local:
            say(f"--runner=slurm: jobs on other machines will end at once: {ONE_MACHINE}")
        try:
            self._executor = submitit.AutoExecutor(folder=place.directory / "jobs", cluster=cluster)
            if cluster == "slurm":
                given = {key if key == "timeout_min" else f"slurm_{key}": value for key, value in given.items()}
                given["slurm_array_parallelism"] = count
            self._executor.update_parameters(name="sweep", cpus_per_task=cpus, gpus_per_node=gpus, **given)
        except (RuntimeError, NameError, TypeError, ValueError) as error:
            raise UsageError(f"--runner=slurm: {' '.join(str(error).split())}") from error
        self._jobs: list[Any] = []
        self._deaths = Deaths(MOST_DEATHS * count)

    def __enter__(self) -> "SlurmWorkers":
        self._start(self._count)
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            if not any(error):  # the sweep is finished, and the workers notice it
                self._wait(_END_SECONDS)
            for job in self._jobs:
                if not job.done():
                    job.cancel(check=False)
            self._wait(_STOP_SECONDS)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not all(job.done() for job in self._jobs):
            time.sleep(0.2)

    def tend(self, begun: Callable[[], int]) -> None:
        """Submits a new job for each lost job. A job that ended by itself found no trial left."""
        for job in [job for job in self._jobs if job.done()]:
            self._jobs.remove(job)
            error = job.exception()
            if error is not None:
                self._deaths.count(begun(), f": {_last_line(error)}", error)
                self._start(1)

    def _start(self, count: int) -> None:
        with _environment(self._place):
            directory = str(self._place.directory.absolute())
            self._jobs += self._executor.map_array(_run_all, [directory] * count)


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()


def _run_one(directory: str, storage: str, environment: Mapping[str, str]) -> bool:
    """The Ray task: runs one trial if one is left. Returns whether there may be more."""
    os.environ.update(environment)  # before jax is imported
    from cnn_jax.sweep.store import Store
    from cnn_jax.sweep.worker import work

    place = SweepPlace(Path(directory), storage)
    with contextlib.closing(Store(place)) as store:  # this process runs more than one task
        return work(store, most=1) == 1


def _run_all(directory: str) -> int:
    """The Slurm job: runs trials until none is left. Returns their number."""
    from cnn_jax.sweep.store import Store
    from cnn_jax.sweep.worker import work

    return work(Store(SweepPlace(Path(directory), os.environ.get(STORAGE_VARIABLE, ""))))


@contextlib.contextmanager
def _environment(place: SweepPlace) -> Iterator[None]:
    """The environment of jobs: the module path and the database URL, so that no password is written to a file."""
    changes = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), STORAGE_VARIABLE: place.storage}
    before = {key: os.environ.get(key) for key in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def slurm_options(pairs: Sequence[str]) -> dict[str, str]:
    """Options as command-line flags.

    >>> slurm_options(["partition=gpu", "timeout_min=240"])
    {'partition': 'gpu', 'timeout_min': '240'}
    """
    split = [pair.partition("=") for pair in pairs]
    for key, equals, value in split:
        if not (key and equals and value):
            raise UsageError(f"--slurm={','.join(pairs)} must be a list such as partition=gpu,timeout_min=240")
    return {key: value for key, _, value in split}
