"""Kills a training run at random instants until it is done, and compares what it leaves with an undisturbed run.

    python benchmarks/kill.py [--kills 50] [--seed 0] [--signal KILL] [--config configs/lenet5_digits.py:smoke]
                              [-- --config.ema_decay=0.99 ...]

The same command is started again and again; each time it is killed after a random wait, half of the times while a
checkpoint is being written. The run is as long as it must be for that. In the end the final parameters (``result.json``),
every line of scores (``metrics.jsonl``) and the best checkpoint must have the same bits as those of a run that nobody
disturbed; a difference is an error. What follows ``--`` is added to the command, so that any config can be tortured.
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

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

# Everything that could go wrong in a continued run: averaged weights, dropout-like randomness, a patience that counts.
DEFAULT_OVERRIDES = (
    "--config.ema_decay=0.99",
    "--config.optimizer.name=adamw",
    "--config.optimizer.learning_rate=0.002",
)


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """The command as a process in the project's folder, silent unless it fails."""
    environment = {"JAX_PLATFORMS": "cpu", **os.environ}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Waits for the end of a run that must not fail."""
    printed, _ = process.communicate()
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
    process.communicate()
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
    """What must not depend on kills: the result, every line of scores, and the arrays of the best checkpoint."""
    from cnn_jax import config as configs
    from experiments import classification

    _, best = classification.load_run(configs.read_run_config(workdir), workdir, checkpoint="best")
    from cnn_jax import train

    return {
        "result.json": json.loads((workdir / "result.json").read_text()),
        "metrics.jsonl": (workdir / "metrics.jsonl").read_text(),
        "best checkpoint": (int(best.step), train.digest(best)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    parser.add_argument("--config", default="configs/lenet5_digits.py:smoke")
    parser.add_argument("overrides", nargs="*", default=DEFAULT_OVERRIDES, help="more flags of launch.py, behind --")
    arguments = parser.parse_args()

    chance = random.Random(arguments.seed)
    folder = Path(tempfile.mkdtemp(prefix="kill-"))
    command = [sys.executable, "launch.py", f"--config={arguments.config}", *arguments.overrides]
    undisturbed = folder / "undisturbed"
    finish(start([*command, f"--workdir={undisturbed}"]))  # compiles, which the next one need not
    shutil.rmtree(undisturbed)
    begun = time.monotonic()
    finish(start([*command, f"--workdir={undisturbed}"]))
    seconds = time.monotonic() - begun
    expected = outcome(undisturbed)

    left, saving, runs = arguments.kills, 0, 0
    while left > 0:  # a run that is done cannot be killed any more: the rest of the kills goes to another one
        workdir = folder / f"run-{runs}"
        counts = torture(
            [*command, f"--workdir={workdir}"],
            workdir,
            kills=left,
            number=signal.Signals[f"SIG{arguments.signal}"],
            chance=chance,
            seconds=seconds,
        )
        left, saving, runs = left - counts["kills"], saving + counts["during a save"], runs + 1
        have = outcome(workdir)
        for name, value in expected.items():
            if have[name] != value:
                raise SystemExit(f"{name} of {workdir} differs from that of {undisturbed}")
        print(f"run {runs}: {counts['kills']} kills, {counts['during a save']} of them during a save; same bits")
    shutil.rmtree(folder)
    print(f"{arguments.kills} kills ({saving} during a save) over {runs} runs: every run ended with the same bits")


if __name__ == "__main__":
    main()
