"""The driver of a sweep in a separate process: ``python -m tests.sweep.driving FOLDER WORKERS [RUNNER [ADDRESS]]``."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from cnn_jax.errors import Interrupted, UsageError
from cnn_jax.sweep import space
from cnn_jax.sweep.cluster import RayWorkers, SlurmWorkers
from cnn_jax.sweep.driver import drive
from cnn_jax.sweep.local import LocalWorkers, Workers
from cnn_jax.sweep.settings import Sweep, SweepPlace, read_sweep_file, write_sweep_file
from cnn_jax.sweep.store import Store
from tests.launch.process import ROOT, Fork, environment
from tests.sweep import trivial


def begin(directory: Path, *, storage: str = "", **options: Any) -> Store:
    """Starts a sweep of the trivial training, without workers."""
    config = trivial.default_config()
    config.update(options.pop("config", {}))
    part = options.pop("space", space.uniform("rate", 0.0, 1.0))
    described = Sweep(config, part, **{"train": "tests.sweep.trivial:train", "metric": trivial.METRIC, **options})
    place = SweepPlace(directory, storage)
    write_sweep_file(place, described)
    return Store(place, described)


def driver(directory: Path, workers: int = 2, *runner: str) -> Fork | subprocess.Popen[str]:
    """Starts a driver; each of its workers has its own session. A runner on a cluster is started without forks."""
    command = [sys.executable, "-m", "tests.sweep.driving", str(directory), str(workers), *runner]
    if not runner:
        return Fork(command, env=environment())
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=pipe, stderr=subprocess.STDOUT, text=True)


def until(condition: Callable[[], Any], *, seconds: float = 120.0) -> Any:
    """Waits until a condition is true and returns its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come true")


def starts(directory: Path, number: int) -> list[int]:
    """The processes that started or continued a trial."""
    path = directory / "trials" / f"{number:04d}" / "starts.txt"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


def evaluations(directory: Path, number: int) -> list[str]:
    """The lines of a trial's records."""
    path = directory / "trials" / f"{number:04d}" / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def workers(place: SweepPlace, count: int, kind: str = "local", address: str = "") -> Workers:
    """The workers of a runner."""
    match kind:
        case "ray":
            return RayWorkers(place, count, address=address)
        case "slurm":
            return SlurmWorkers(place, count, options={"cluster": "local"})
    return LocalWorkers(place, count)


def main() -> int:
    directory, count, *runner = Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
    place, _ = read_sweep_file(directory)
    try:
        with contextlib.nullcontext() if runner else mock.patch("subprocess.Popen", Fork):
            drive(Store(place), workers(place, count, *runner))
    except (Interrupted, UsageError) as error:
        print(error)
        return error.exit_code if isinstance(error, Interrupted) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
