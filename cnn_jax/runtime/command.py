"""Commands: how the user started this program, and how small commands report a user's mistake."""

import sys
from collections.abc import Callable
from pathlib import Path

from cnn_jax.errors import EXIT_CODE, UsageError
from cnn_jax.runtime.terminal import accept_any_text, say_error


def command_name(program: str | None = None) -> str:
    """Returns ``'cnn-jax'`` for the installed command and ``'python launch.py'`` in a checkout.

    Args:
      program: The path of the program; by default the program of this process.

    >>> command_name("/usr/bin/cnn-jax"), command_name("launch.py")
    ('cnn-jax', 'python launch.py')
    """
    return "cnn-jax" if Path(program or sys.argv[0]).stem == "cnn-jax" else "python launch.py"


def exit_code(run: Callable[[], None], *, debug: bool) -> int:
    """Runs a command: a ``UsageError`` becomes one line on stderr.

    Args:
      run: The command.
      debug: Whether to raise the error instead, so that its traceback is shown.

    Returns:
      0, or 2 for a mistake of the user.

    >>> exit_code(lambda: None, debug=False)
    0
    """
    accept_any_text()
    try:
        run()
    except UsageError as error:
        if debug:
            raise
        say_error("error", error)
        return EXIT_CODE
    return 0
