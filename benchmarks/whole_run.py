"""Compares the time to train LeNet-5 to 99 % on MNIST with ``launch.py`` and with a plain PyTorch script.

    python benchmarks/whole_run.py [--runs 3]

Both are started from the command line and timed until they end. The time includes imports, reading, compilation,
training, and an evaluation after every epoch, until the test accuracy is 99 %. Network, batches, optimiser and schedule
are the same. ``launch.py`` also writes checkpoints and a report in this time. Its first start, which compiles, and
later starts, which read the compilation cache, are measured separately. PyTorch's batches are indexed from one tensor,
or come from a DataLoader. Runs of all kinds take turns, and every time is a median. MNIST must be prepared (``python -m
cnn_jax.data.prepare mnist``). Results are written to ``benchmarks/results/whole_run-<machine>.md`` and ``.json``.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import record

from cnn_jax import data

ROOT = Path(__file__).parents[1]
OURS = (
    "--config=configs/lenet5_mnist.py",
    "--config.data.train=train",
    "--config.data.validation=",
    "--config.target=0.99",
    "--config.batch_size=128",
    "--config.optimizer.learning_rate=0.1",
)


def write_npz(path: Path) -> None:
    """Writes MNIST in the format of the PyTorch script."""
    arrays = {}
    for part in ("train", "test"):
        found = data.load("mnist", part)
        arrays |= {f"images_{part}": found.images, f"labels_{part}": found.labels}
    np.savez(path, **arrays)


def timed(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """The time of a command in seconds, and the accuracy and number of epochs in its output."""
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    accuracy = re.findall(r"test accuracy (\d+\.\d+) ?%", done.stdout)[-1]
    epochs = max(float(epoch) for epoch in re.findall(r"^epoch (\d+)", done.stdout, re.M))
    return {"seconds": seconds, "accuracy": float(accuracy), "epochs": epochs}


def measure(runs: int) -> dict[str, list[dict[str, Any]]]:
    """Runs all kinds in turn, and returns the results of each kind."""
    with tempfile.TemporaryDirectory() as scratch:
        npz = Path(scratch, "mnist.npz")
        write_npz(npz)
        environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        torch = [sys.executable, "benchmarks/torch_lenet.py", str(npz)]
        kinds: dict[str, list[dict[str, Any]]] = {}

        def run(kind: str, command: list[str], environment: dict[str, str]) -> None:
            kinds.setdefault(kind, []).append(timed(command, environment))
            print(kind, kinds[kind][-1], file=sys.stderr, flush=True)

        for number in track(range(runs), console=Console(stderr=True)):
            own = environment | {"JAX_COMPILATION_CACHE_DIR": str(Path(scratch, f"cache{number}"))}
            for kind in ("launch.py, first start", "launch.py, started before"):
                workdir = f"--workdir={scratch}/{kind.replace(' ', '-')}{number}"
                run(kind, [sys.executable, "launch.py", *OURS, workdir], own)
            run("PyTorch, one tensor", torch, environment)
            run("PyTorch, DataLoader", [*torch, "--loader"], environment)
    return kinds


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    lines = ["# The time to train LeNet-5 to 99 % on MNIST", ""]
    lines += [f"- {name}: {value}" for name, value in report["circumstances"].items()]
    lines += ["", "Written by `python benchmarks/whole_run.py`, whose docstring explains the measurements.", ""]
    medians = {kind: statistics.median(run["seconds"] for run in runs) for kind, runs in report["runs"].items()}
    body = []
    for kind, runs in report["runs"].items():
        epochs, accuracies = ([run[key] for run in runs] for key in ("epochs", "accuracy"))
        others = (f"{medians[kind] / medians[peer]:.2f}" for peer in ("PyTorch, one tensor", "PyTorch, DataLoader"))
        seconds = f"{medians[kind]:.1f}"
        spread = f"{min(run['seconds'] for run in runs):.1f} to {max(run['seconds'] for run in runs):.1f}"
        body.append([kind, seconds, spread, f"{statistics.median(epochs):g}", f"{min(accuracies):.2f} %", *others])
    header = ["", "seconds", "range", "epochs", "minimum accuracy", "/ PyTorch, one tensor", "/ PyTorch, DataLoader"]
    return "\n".join(lines + record.table(header, body))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="the number of runs of each kind")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    circumstances = record.circumstances(("jax", "jaxlib", "torch", "numpy"))
    circumstances["load average before the run (the run itself adds to it)"] = f"{load:.2f}"
    report = {"circumstances": circumstances, "runs": measure(arguments.runs)}
    print(markdown(report))
    record.write("whole_run", report, markdown)


if __name__ == "__main__":
    main()
