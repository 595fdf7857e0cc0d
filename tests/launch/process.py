"""Running ``launch.py`` as its users do: as a process of its own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """The environment of a user, without the eight simulated devices that the tests see."""
    return {**{k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}, "COLUMNS": "200", "JAX_PLATFORMS": "cpu"}


def launch(*arguments: str, under: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Runs ``python launch.py`` to its end, under another command if one is given."""
    return subprocess.run(
        [*under, sys.executable, "launch.py", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def start(*arguments: str) -> subprocess.Popen[str]:
    """Starts ``python launch.py`` and returns at once."""
    return subprocess.Popen(
        [sys.executable, "launch.py", *arguments],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """What :func:`start` starts, for the ``with`` block, at whose end it is ended by force."""
    process = start(*arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def train(workdir: Path, *arguments: str, config: str = "configs/lenet5_digits.py:smoke") -> None:
    """Trains to the end, or fails with what the process printed."""
    done = launch(f"--config={config}", f"--workdir={workdir}", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
