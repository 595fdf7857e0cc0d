"""Commands that a sweep prints for the user."""

from pathlib import Path

from cnn_jax.runtime.command import command_name


def launch(*flags: str) -> str:
    """A command with these flags.

    >>> launch("--mode=sweep", "--workdir=runs/sweep")
    'python launch.py --mode=sweep --workdir=runs/sweep'
    """
    return " ".join([command_name(), *flags])


def continue_sweep(directory: Path) -> str:
    """The command that continues the sweep in a folder, or shows its results."""
    return launch("--mode=sweep", f"--workdir={directory}")
