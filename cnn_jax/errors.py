"""The exception for errors that the user can fix, and the phrase that suggests similar names.

Everything in cnn_jax that rejects an argument, a config, a file or an image raises :class:`UsageError` with one line:
what is wrong, where, with which numbers, and how to fix it. ``launch.py`` prints that line and exits with code 2.
Library users can catch it as a ``ValueError``.
"""

import difflib
import errno
from collections.abc import Iterable

EXIT_CODE = 2

# A full disk, missing permissions, or a name that is too long. These are not errors of the program.
DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
)


class UsageError(ValueError):
    """An error of the user, described in one line: what, where, the numbers, and the fix."""


def nearest(name: str, options: Iterable[str], *, most: int = 3) -> str:
    """Returns a phrase for the end of an error message: the known names closest to a mistyped one.

    If no name is close, the phrase lists the first 12 known names.

    >>> nearest("optimiser.learning_rat", ["optimiser.learning_rate", "seed", "model.name", "data.name", "epochs"])
    "did you mean 'optimiser.learning_rate'?"
    >>> nearest("zero_padding", ["SAME", "VALID"])
    "known: 'SAME', 'VALID'"
    >>> nearest("FFT", ["auto", "fft"])
    "did you mean 'fft'?"
    """
    options = sorted(set(options))
    close = [option for option in options if option.lower() == name.lower()]
    close = close or difflib.get_close_matches(name, options, n=most, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(option) for option in close) + "?"
    shown = ", ".join(repr(option) for option in options[:12])
    return f"known: {shown}" + (f" and {len(options) - 12} more" if len(options) > 12 else "")


class PartlyFailedError(Exception):
    """Some inputs could not be processed and were listed with their reasons; the exit code is 1."""


class Interrupted(Exception):
    """A signal stopped a run. The run has saved its state and can be continued.

    Attributes:
      exit_code: 128 plus the signal's number, as shells and schedulers report it (130 or 143).
    """

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
