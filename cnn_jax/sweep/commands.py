"""Commands that a sweep prints for the user."""

from pathlib import Path

from cnn_jax.runtime.command import command


def continue_sweep(directory: Path) -> str:
    """The command that continues the sweep in a folder, or shows its results.

    >>> continue_sweep(Path("runs/my sweep"))
    "python launch.py --mode=sweep '--workdir=runs/my sweep'"
    """
    return command("--mode=sweep", f"--workdir={directory}")
