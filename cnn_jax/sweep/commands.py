"""The commands that a sweep shows its user."""

from pathlib import Path


def launch(*flags: str) -> str:
    """A command with these flags.

    >>> launch("--mode=sweep", "--workdir=runs/sweep")
    'python launch.py --mode=sweep --workdir=runs/sweep'
    """
    return " ".join(["python launch.py", *flags])


def continue_sweep(directory: Path) -> str:
    """The command that continues the sweep in a folder, or shows its results."""
    return launch("--mode=sweep", f"--workdir={directory}")
