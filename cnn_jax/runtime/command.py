"""The command that this program was started with, for messages that tell the user what to run next."""

import sys
from pathlib import Path


def command_name(program: str | None = None) -> str:
    """Returns ``'cnn-jax'`` for the installed command and ``'python launch.py'`` in a checkout.

    Args:
      program: The path of the program; by default the program of this process.

    >>> command_name("/usr/bin/cnn-jax"), command_name("launch.py")
    ('cnn-jax', 'python launch.py')
    """
    return "cnn-jax" if Path(program or sys.argv[0]).stem == "cnn-jax" else "python launch.py"
