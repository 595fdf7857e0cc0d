"""Kills training runs at random times, continues them, and compares the results with an uninterrupted run.

    python benchmarks/kill.py [--kills 50] [--seed 0] [--signal KILL] [--config FILE [-- --config.ema_decay=0.99 ...]]

The same command is started repeatedly and killed after a random time, in half of the cases while a checkpoint is being
written. If a run ends before all kills have happened, the remaining kills go to another run. At the end the result
(``result.json``), all lines of scores (``metrics.jsonl``), and the last and the best checkpoint must have the same bits
as those of an uninterrupted run. Any difference is an error.

There are two kinds of runs, with half of the kills each: the digits in memory, and the same digits as a folder of
images that worker processes stream. Both use all features whose state has to be restored: augmentation, dropout,
averaged weights, an optimiser with two moments, early stopping (:func:`get_config`). ``--config`` selects another
config, and flags after ``--`` are added to the command. For at least 50 kills, results are written to
``benchmarks/results/kill-<machine>.md`` and ``.json``.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

RECORDED = 50  # the minimum number of kills for which results are written
AT_MOST_SECONDS = 600  # the time limit of a process


def get_config(folder: str = "") -> Any:
    """The config of the killed runs: ``--config=benchmarks/kill.py`` has the digits in memory.

    With a folder from :func:`write_digits`, ``--config=benchmarks/kill.py:folder``, images are streamed from it.
    """
    from cnn_jax.config import load_config

    config = load_config("lenet5_digits:smoke")
    config.epochs = 12
    config.model.options.dropout_rate = 0.2
    config.data.augment = ("affine(rotation=10, translation=0.1)", "cutout(size=2)")
    config.optimizer.name, config.optimizer.learning_rate = "adamw", 0.002
    config.ema_decay = 0.99
    config.early_stopping = "11 epochs"
    if folder:
        config.data.name, config.data.size = f"folder:{folder}", (8, 8)
        config.data.loading, config.data.workers = "stream", 1
    return config


def write_digits(folder: Path, count: int) -> Path:
    """Writes the first of scikit-learn's digits as PNG files, with one folder for each class."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number in range(count):
        path = folder / str(digits.target[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(digits.images[number] * (255 / 16)).astype(np.uint8)).save(path)
    return folder


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """Starts the command in the project's folder; its output is captured."""
    environment = {"JAX_PLATFORMS": "cpu", **os.environ}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def end(process: subprocess.Popen[bytes]) -> bytes:
    """Waits until the process and its workers have ended, and returns their output."""
    try:
        return process.communicate(timeout=AT_MOST_SECONDS)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        raise SystemExit(f"{' '.join(process.args)} hangs") from None  # type: ignore[arg-type]


def finish(process: subprocess.Popen[bytes]) -> None:
    """Waits for the end of a run, and exits if it failed."""
    printed = end(process)
    if process.returncode:
        raise SystemExit(f"the run failed with exit code {process.returncode}:\n{printed.decode()}")


def is_saving(workdir: Path) -> bool:
    """Whether a checkpoint is being written: orbax renames it when it is complete."""
    try:
        return any(not path.name.isdigit() for path in (workdir / "checkpoints").iterdir())
    except FileNotFoundError:
        return False


def kill_at(
    process: subprocess.Popen[bytes], workdir: Path, number: signal.Signals, instant: Callable[[], bool]
) -> tuple[bool, bool]:
    """Kills a process when ``instant()`` is true. Returns whether it was still running, and whether it was saving."""
    while process.poll() is None and not instant():
        time.sleep(0.001)
    saving = is_saving(workdir)
    running = process.poll() is None
    if running:
        process.send_signal(number)
    end(process)
    return running, saving


def kill_repeatedly(
    command: list[str], workdir: Path, *, kills: int, number: signal.Signals, chance: random.Random, seconds: float
) -> dict[str, int]:
    """Kills the command repeatedly, until the number of kills is reached or the run has ended, and then lets it end.

    Args:
      command: The command that trains in ``workdir``.
      workdir: The run's folder.
      kills: The maximum number of kills.
      number: The signal.
      chance: Draws the times of the kills.
      seconds: The duration of an uninterrupted run, which is the maximum time before a kill.

    Returns:
      The number of kills, and the number of kills during a save.
    """
    counts = {"kills": 0, "during a save": 0}
    while counts["kills"] < kills:
        begun = time.monotonic()
        wait = chance.uniform(0, seconds)
        during_a_save = chance.random() < 0.5

        def instant(begun: float = begun, wait: float = wait, during_a_save: bool = during_a_save) -> bool:
            return time.monotonic() - begun > wait and (not during_a_save or is_saving(workdir))

        running, saving = kill_at(start(command), workdir, number, instant)
        if not running:
            break
        counts["kills"] += 1
        counts["during a save"] += saving
    finish(start(command))
    return counts


def outcome(workdir: Path) -> dict[str, object]:
    """The outputs that must not depend on kills: the result, all scores, the arrays of the last and best checkpoint."""
    from cnn_jax import config as configs
    from cnn_jax import train
    from cnn_jax.tasks.saved import load_run

    config = configs.read_run_config(workdir)
    states = {name: load_run(config, workdir, checkpoint=name)[1] for name in ("latest", "best")}
    return {
        "result.json": json.loads((workdir / "result.json").read_text()),
        "metrics.jsonl": (workdir / "metrics.jsonl").read_text(),
        **{f"{name} checkpoint": (int(state.step), train.digest(state)) for name, state in states.items()},
    }


def survive(
    command: list[str], folder: Path, *, kills: int, number: signal.Signals, chance: random.Random
) -> dict[str, int]:
    """Kills and continues runs of one command. Returns the numbers of kills and of runs.

    Raises:
      SystemExit: The result of a run differs from that of an uninterrupted run.
    """
    undisturbed = folder / "undisturbed"
    finish(
        start([*command, f"--workdir={undisturbed}"])
    )  # compiles, so that the next one is not slower than later ones
    shutil.rmtree(undisturbed)
    begun = time.monotonic()
    finish(start([*command, f"--workdir={undisturbed}"]))
    seconds = time.monotonic() - begun
    expected = outcome(undisturbed)
    total = {"kills": 0, "during a save": 0, "runs": 0}
    while total["kills"] < kills:  # if a run has ended, the remaining kills go to another run
        workdir = folder / f"run-{total['runs']}"
        options: dict[str, Any] = {"kills": kills - total["kills"], "number": number, "chance": chance}
        counts = kill_repeatedly([*command, f"--workdir={workdir}"], workdir, seconds=seconds, **options)
        have = outcome(workdir)
        for name, value in expected.items():
            if have[name] != value:
                raise SystemExit(f"{name} of {workdir} differs from that of {undisturbed}")
        total = {"runs": total["runs"] + 1, **{name: total[name] + counts[name] for name in counts}}
        print(f"{counts['kills']} kills, {counts['during a save']} of them during a save: same bits", flush=True)
    return total


def markdown(report: dict[str, Any]) -> str:
    """The report as a page."""
    import record

    lines = ["# Recovery from kills", ""]
    lines += [f"- {name}: {value}" for name, value in report["circumstances"].items()]
    lines += [
        "",
        "Written by `python benchmarks/kill.py`, whose docstring has the details. Every run ended with the same",
    ]
    lines += ["parameters, scores, last and best checkpoint as an uninterrupted run, bit for bit.", ""]
    body = [[name, *map(str, counts.values())] for name, counts in report["survived"].items()]
    header = ["data", *next(iter(report["survived"].values()))]
    return "\n".join([*lines, *record.table(header, body)])


def main() -> None:
    import record

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="the seed of the times of the kills")
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    parser.add_argument("--config", help="a config to use instead of the two in this file")
    parser.add_argument("overrides", nargs="*", help="additional flags of launch.py, after --")
    arguments = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="kill-"))
    images = write_digits(folder / "images", 500)
    configs = {"in memory": __file__, "streamed from a folder": f"{__file__}:{images}"}
    if arguments.config:
        configs = {arguments.config: arguments.config}
    chance, survived = random.Random(arguments.seed), {}
    for number, (name, config) in enumerate(configs.items()):
        kills = arguments.kills // len(configs) + (number < arguments.kills % len(configs))
        print(f"{name}:", flush=True)
        survived[name] = survive(
            [sys.executable, "launch.py", f"--config={config}", *arguments.overrides],
            folder / str(number),
            kills=kills,
            number=signal.Signals[f"SIG{arguments.signal}"],
            chance=chance,
        )
    shutil.rmtree(folder)
    print(f"{arguments.kills} kills by SIG{arguments.signal}: every run ended with the same bits")
    if arguments.kills >= RECORDED:
        circumstances = record.circumstances(("jax", "jaxlib", "flax", "orbax-checkpoint", "grain", "numpy"))
        circumstances |= {"signal": f"SIG{arguments.signal}", "command": " ".join(["python", *sys.argv])}
        record.write("kill", {"circumstances": circumstances, "survived": survived}, markdown)


if __name__ == "__main__":
    main()
