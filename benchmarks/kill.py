"""Kills a training run at random instants until it is done, and compares what it leaves with an undisturbed run.

    python benchmarks/kill.py [--kills 50] [--seed 0] [--signal KILL] [--config FILE [-- --config.ema_decay=0.99 ...]]

The same command is started again and again; each time it is killed after a random wait, half of the times while a
checkpoint is being written. A run that is done leaves the rest of the kills to another one. In the end the final
parameters (``result.json``), all lines of scores (``metrics.jsonl``), the last and the best checkpoint must have the
same bits as those of a run that nobody disturbed; a difference is an error.

Two runs are tortured, with half of the kills each: the digits in memory, and the same digits as a folder of pictures
that worker processes stream, both with all that could go wrong in a continued run: augmentation, dropout, averaged
weights, two moments a parameter, a patience that counts (:func:`get_config`). ``--config`` names another config, and
what follows ``--`` is added to the command. From 50 kills on, the record goes to
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

RECORDED = 50  # kills, from which on the result is worth keeping
AT_MOST_SECONDS = 600  # any one process


def get_config(folder: str = "") -> Any:
    """What is tortured, a config for launch.py: ``--config=benchmarks/kill.py``, digits in memory.

    With a folder from :func:`write_digits`, ``--config=benchmarks/kill.py:folder``, pictures streamed from it.
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
    """The first of scikit-learn's digits as PNG files, in one folder a class."""
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
    """The command as a process in the project's folder, silent unless it fails."""
    environment = {"JAX_PLATFORMS": "cpu", **os.environ}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def end(process: subprocess.Popen[bytes]) -> bytes:
    """Waits until the process and its workers have ended; what they printed."""
    try:
        return process.communicate(timeout=AT_MOST_SECONDS)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        raise SystemExit(f"{' '.join(process.args)} hangs") from None  # type: ignore[arg-type]


def finish(process: subprocess.Popen[bytes]) -> None:
    """Waits for the end of a run that must not fail."""
    printed = end(process)
    if process.returncode:
        raise SystemExit(f"the run failed with exit code {process.returncode}:\n{printed.decode()}")


def is_saving(workdir: Path) -> bool:
    """Whether a checkpoint is half written: orbax gives it its name when it is whole."""
    try:
        return any(not path.name.isdigit() for path in (workdir / "checkpoints").iterdir())
    except FileNotFoundError:
        return False


def kill_at(
    process: subprocess.Popen[bytes], workdir: Path, number: signal.Signals, instant: Callable[[], bool]
) -> tuple[bool, bool]:
    """Kills a process when the instant has come; whether it still ran then, and whether it was saving."""
    while process.poll() is None and not instant():
        time.sleep(0.001)
    saving = is_saving(workdir)
    running = process.poll() is None
    if running:
        process.send_signal(number)
    end(process)
    return running, saving


def torture(
    command: list[str], workdir: Path, *, kills: int, number: signal.Signals, chance: random.Random, seconds: float
) -> dict[str, int]:
    """Kills the command until it has been killed often enough, or is done, and then lets it end.

    Args:
      command: what trains in ``workdir``.
      workdir: the run's folder.
      kills: how many times.
      number: the signal.
      chance: draws the instants.
      seconds: how long an undisturbed run takes, from which the instants are drawn.

    Returns:
      How many kills there were, and how many of them during a save.
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
    """What must not depend on kills: the result, every line of scores, the arrays of the last and best checkpoint."""
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
    """Tortures runs of one command until there were so many kills; how many, and over how many runs.

    Raises:
      SystemExit: a run ended with other bits.
    """
    undisturbed = folder / "undisturbed"
    finish(start([*command, f"--workdir={undisturbed}"]))  # compiles, which the next one need not
    shutil.rmtree(undisturbed)
    begun = time.monotonic()
    finish(start([*command, f"--workdir={undisturbed}"]))
    seconds = time.monotonic() - begun
    expected = outcome(undisturbed)
    total = {"kills": 0, "during a save": 0, "runs": 0}
    while total["kills"] < kills:  # a run that is done cannot be killed any more: the rest goes to another one
        workdir = folder / f"run-{total['runs']}"
        options: dict[str, Any] = {"kills": kills - total["kills"], "number": number, "chance": chance}
        counts = torture([*command, f"--workdir={workdir}"], workdir, seconds=seconds, **options)
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

    lines = ["# Runs that are killed", ""]
    lines += [f"- {name}: {value}" for name, value in report["circumstances"].items()]
    lines += ["", "Written by `python benchmarks/kill.py`, whose docstring says what is done. Every run ended with the"]
    lines += ["same parameters, scores, last and best checkpoint as an undisturbed one, bit for bit.", ""]
    body = [[name, *map(str, counts.values())] for name, counts in report["survived"].items()]
    header = ["data", *next(iter(report["survived"].values()))]
    return "\n".join([*lines, *record.table(header, body)])


def main() -> None:
    import record

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    parser.add_argument("--config", help="another one than the two of this file")
    parser.add_argument("overrides", nargs="*", help="more flags of launch.py, behind --")
    arguments = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="kill-"))
    pictures = write_digits(folder / "pictures", 500)
    configs = {"in memory": __file__, "streamed from a folder": f"{__file__}:{pictures}"}
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
