"""Measures the throughput of sweeps with several workers, trials in one program, and the overhead of the driver.

    python benchmarks/sweep.py [--trials 32] [--epochs 4 60] [--runs 1] [--together 16] [--points 1000] [--only workers]

- **workers**: trials of LeNet-5 on the digits with one worker that uses all cores, with one worker for each core, and
  as separate commands; with few epochs, and with the config's number of epochs.
- **vectorized**: trials of LeNet-5 on MNIST that differ only in traced hyperparameters, one after the other and in one
  program.
- **driver**: a random sweep with one worker, where training does nothing: the time per trial, the memory of the driver
  after a tenth of the trials and after all, and the time for the table and the page.

Trials write no report. Times are from the start of the first trial to the end of the last one and include compilation.
The compilation cache is empty at the start of each measurement. The throughput of warm workers does not include each
worker's first trial, in which it compiles. Results are written to ``benchmarks/results/sweep-<machine>``.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import record  # noqa: E402
from ml_collections import ConfigDict  # noqa: E402

from cnn_jax.metrics import Metric  # noqa: E402
from cnn_jax.runtime import huge_pages, xla  # noqa: E402

PARTS = ("workers", "driver", "vectorized")
TOGETHER_IMAGES, TOGETHER_EPOCHS = 12_800, 4
METRIC = Metric("validation/accuracy", better="higher", unit="%")  # that trials are compared by


def train_nothing(config: ConfigDict, directory: Path, *, report: bool, on_evaluation: Callable[..., None]) -> None:
    """A substitute for training that only writes a score."""
    from cnn_jax.runtime.files import write_json

    score = 1.0 - (config.x - 0.3) ** 2 - (config.y - 0.7) ** 2
    write_json(directory / "result.json", {"scores": {"validation/accuracy": score}})


def measure(
    described: Any, count: int, *, watch: Callable[[int], None] | None = None, **options: Any
) -> dict[str, Any]:
    """Runs a sweep with ``count`` workers, and returns the total time and the sum of the trials' times."""
    from cnn_jax.sweep.driver import drive, write_results
    from cnn_jax.sweep.local import LocalWorkers
    from cnn_jax.sweep.settings import SweepPlace, write_sweep_file
    from cnn_jax.sweep.store import Store

    class Watched(LocalWorkers):
        def tend(self, begun: Callable[[], int]) -> None:
            if watch is not None:
                watch(begun())
            super().tend(begun)

    with tempfile.TemporaryDirectory() as folder:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{folder}/compiled"
        place = SweepPlace(Path(folder) / "sweep")
        place.directory.mkdir()
        write_sweep_file(place, described)
        store = Store(place, described)
        rows = drive(store, Watched(place, count, **options))
        trials = store.optuna.load_study(study_name=place.study, storage=place.url).trials
        first = min(trial.datetime_start for trial in trials)
        last = max(trial.datetime_complete for trial in trials)
        assert all(row.state == "complete" for row in rows), [row.reason for row in rows if row.state != "complete"][:1]
        own = sum(row.seconds for row in rows)
        warm = sorted(trial.datetime_start for trial in trials)[count:]  # without each worker's first trial
        warm_seconds = (last - warm[0]).total_seconds() if warm else float("nan")
        started = time.perf_counter()
        store.rows()
        read = time.perf_counter() - started
        started = time.perf_counter()
        write_results(described, place.directory, rows)
        written = time.perf_counter() - started
    return {
        "trials": len(rows),
        "seconds": (last - first).total_seconds(),
        "own": own,
        "warm": len(warm) / warm_seconds,
        "read": read,
        "written": written,
    }


def workers(trials: int, epochs: int, runs: int) -> dict[str, Any]:
    """LeNet-5 on the digits, with one worker and with one for each core, in turn; medians of the runs."""
    from cnn_jax.config import load_config
    from cnn_jax.sweep import space
    from cnn_jax.sweep.local import cores
    from cnn_jax.sweep.settings import Sweep

    config = load_config("lenet5_digits")
    config.epochs = epochs
    part = space.log_uniform("optimizer.learning_rate", 0.01, 0.3)
    described = Sweep(config, part, "cnn_jax.tasks.run:train", METRIC, trials, reports=False)
    sides = [[measure(described, count) for count in (1, len(cores()))] for _ in range(runs)]
    one, many = (
        {key: statistics.median(run[key] for run in side) for key in side[0]} for side in zip(*sides, strict=True)
    )
    return {
        "runs": runs,
        "epochs": epochs,
        "workers": len(cores()),
        "one": one,
        "many": many,
        "separate": separate_runs(epochs),
    }


def separate_runs(epochs: int, count: int = 3) -> float:
    """The time of one such run of ``launch.py`` in seconds, with its report and a warm compilation cache."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"}
        started = 0.0
        for number in range(count + 1):  # the first one compiles
            if number == 1:
                started = time.perf_counter()
            values = {"epochs": epochs, "optimizer.learning_rate": 0.05 + 0.01 * number}
            options = [f"--config.{key}={value}" for key, value in values.items()]
            command = [sys.executable, "launch.py", "--config=configs/lenet5_digits.py", *options]
            command += [f"--workdir={folder}/{number}"]
            subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
        return (time.perf_counter() - started) / count


def vectorized(trials: int) -> dict[str, Any]:
    """LeNet-5 on MNIST, trials one after the other and all together."""
    from cnn_jax.config import load_config
    from cnn_jax.sweep import space
    from cnn_jax.sweep.settings import Sweep

    config = load_config("lenet5_mnist")
    config.data.train = f"train[:{TOGETHER_IMAGES}]"
    config.data.validation, config.data.test = "train[55000:56000]", "test[:1000]"
    config.epochs = TOGETHER_EPOCHS
    part = space.log_uniform("optimizer.learning_rate", 0.005, 0.1)
    described = Sweep(config, part, "cnn_jax.tasks.run:train", METRIC, trials, reports=False)
    alone, together = measure(described, 1), measure(described, 1, kind="vectorized", batch=trials)
    return {"images": TOGETHER_IMAGES * TOGETHER_EPOCHS * trials, "alone": alone, "together": together}


def driver(points: int) -> dict[str, Any]:
    """A sweep in which training does nothing."""
    from cnn_jax.sweep import space
    from cnn_jax.sweep.settings import Sweep

    config = ConfigDict({"seed": 0, "x": 0.0, "y": 0.0})
    part = space.product(space.uniform("x", 0.0, 1.0), space.uniform("y", 0.0, 1.0))
    described = Sweep(config, part, "benchmarks.sweep:train_nothing", METRIC, points, reports=False)
    memory: dict[int, int] = {}

    def watch(begun: int) -> None:
        memory[begun] = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    found = measure(described, 1, watch=watch)
    tenth = min((number for number in memory if number >= points / 10), default=points)
    return {**found, "memory": {str(number): memory[number] for number in (tenth, max(memory))}}


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = ["# Sweeps", ""]
    lines += [f"- {name}: {value}" for name, value in report["circumstances"].items()] + [""]
    for found in report.get("workers", ()):
        one, many = found["one"], found["many"]
        lines += [
            f"{one['trials']:.0f} trials of LeNet-5 on the digits, {found['epochs']} epochs each, with compilation "
            f"(medians of {found.get('runs', 1)}):",
            "",
        ]
        rows = []
        for name, side in (("one worker, all cores", one), (f"{found['workers']} workers", many)):
            speeds = [f"{side['trials'] / side['seconds']:.3f}", f"{one['seconds'] / side['seconds']:.2f}"]
            warm = [f"{side['warm']:.3f}", f"{side['warm'] / one['warm']:.2f}"]
            rows.append([name, f"{side['seconds']:.1f}", *speeds, *warm])
        lines += record.table(
            ["", "seconds", "trials/s", "times as fast", "trials/s, once warm", "times as fast, once warm"], rows
        )
        each, times = found["separate"], found["separate"] * many["trials"] / many["seconds"]
        lines += [
            f"A separate run of `launch.py` with its report takes {each:.1f} s with a warm compilation cache; "
            f"{found['workers']} workers are {times:.1f} times as fast as such runs one after the other.",
            "",
        ]
        overhead = (one["seconds"] - one["own"]) / one["trials"]
        lines += [f"The time between the trials of a single worker is {overhead:.3f} s per trial.", ""]
    if found := report.get("vectorized"):
        alone, together = found["alone"], found["together"]
        each = found["images"] // alone["trials"]
        lines += [f"{alone['trials']} trials of LeNet-5 on MNIST, {each:,} images each, with compilation:", ""]
        rows = []
        for name, side in (("one after the other", alone), ("in one program", together)):
            seconds, speed = side["seconds"], found["images"] / side["seconds"]
            rows.append([name, f"{seconds:.1f}", f"{speed:,.0f}", f"{alone['seconds'] / seconds:.2f}"])
        lines += record.table(["", "seconds", "images/s", "times as fast"], rows)
    if found := report.get("driver"):
        memory = ", ".join(f"{size / 2**20:.0f} MiB after {number} trials" for number, size in found["memory"].items())
        each = found["seconds"] / found["trials"]
        lines += [
            f"{found['trials']:,} trials in which training does nothing: {each:.3f} s per trial.",
            f"The driver uses {memory}.",
            f"Reading the table takes {found['read']:.2f} s, writing it and the page {found['written']:.2f} s.",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument(
        "--epochs", type=int, nargs="+", default=[4, 60], help="numbers of epochs of the workers' trials"
    )
    parser.add_argument("--runs", type=int, default=1, help="runs of the part workers, of which medians are taken")
    parser.add_argument("--together", type=int, default=16)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas; others keep their results")
    arguments = parser.parse_args()
    huge_pages.restart_with_huge_pages()
    xla.apply_recommended_flags(os.environ)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")  # as in launch.py
    path = record.path_of("sweep")
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    report["circumstances"] = record.circumstances(["jax", "jaxlib", "optuna"])
    measured: dict[str, Callable[[], Any]] = {
        "workers": lambda: [workers(arguments.trials, epochs, arguments.runs) for epochs in arguments.epochs],
        "driver": lambda: driver(arguments.points),
        "vectorized": lambda: vectorized(arguments.together),
    }
    for part in arguments.only.split(","):
        report[part] = measured[part]()
        record.write("sweep", report, markdown)


if __name__ == "__main__":
    main()
