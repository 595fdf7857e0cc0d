"""Commands: how the user started this program, commands to print, and errors in one line with an exit code.

Exit codes: 0, done; 2, an error of the user, with a line that says how to fix it; 130 or 143, interrupted by Ctrl-C or
SIGTERM, saved and ready to be continued; 1, done except for some inputs, which are listed, or an internal error, with
its traceback.
"""

import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from cnn_jax.errors import DISK_ERRORS, EXIT_CODE, Interrupted, PartlyFailedError, UsageError
from cnn_jax.runtime.terminal import accept_any_text, say_error


def command_name(program: str | None = None) -> str:
    """Returns ``'cnn-jax'`` for the installed command and ``'python launch.py'`` in a checkout.

    Args:
      program: The path of the program; by default the program of this process.

    >>> command_name("/usr/bin/cnn-jax"), command_name("launch.py")
    ('cnn-jax', 'python launch.py')
    """
    return "cnn-jax" if Path(program or sys.argv[0]).stem == "cnn-jax" else "python launch.py"


def command(*arguments: str) -> str:
    """Returns a command that starts this program, as the user can paste it into a shell.

    Args:
      *arguments: The flags, which are quoted where a shell would split or change them.

    >>> command("--mode=sweep", "--workdir=runs/my sweep")
    "python launch.py --mode=sweep '--workdir=runs/my sweep'"
    """
    return f"{command_name()} {shlex.join(arguments)}"


def exit_code(run: Callable[[], None], *, debug: bool, program: str = "error") -> int:
    """Runs a command: an error that the user can fix becomes one line on stderr.

    Args:
      run: The command.
      debug: Whether to show the traceback of such an error, too.
      program: What the line begins with.

    Returns:
      The exit code.

    >>> exit_code(lambda: None, debug=False)
    0
    """
    accept_any_text()
    try:
        run()
    except (UsageError, PartlyFailedError, Interrupted, KeyboardInterrupt, OSError) as error:
        if isinstance(error, OSError) and error.errno not in DISK_ERRORS:
            raise
        if debug:
            traceback.print_exc()
        line, code = _line_and_code(error)
        say_error(program, line)
        return code
    return 0


def _line_and_code(error: BaseException) -> tuple[str, int]:
    match error:
        case OSError():
            where = f" ({error.filename})" if error.filename else ""
            fix = "make room or write to another folder, and run the same command again; saved checkpoints are intact"
            return f"{error.strerror}{where}: {fix}", EXIT_CODE
        case KeyboardInterrupt():
            return "interrupted", 130
        case Interrupted():
            return str(error), error.exit_code
        case PartlyFailedError():
            return str(error), 1
        case _:
            return str(error), EXIT_CODE
