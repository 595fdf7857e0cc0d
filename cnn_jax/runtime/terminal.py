"""Text for the terminal: the only module that prints lines and creates consoles for tables and progress bars.

Names of files, folders and classes, values of flags, and messages of other programs can contain anything: bytes that
are not UTF-8, control characters, or text that ``rich`` would parse as markup (``[final]``) or emoji (``:smile:``).
Here all text is printed unchanged, except for characters that a terminal cannot show.
"""

import io
import os
import re
import signal
import sys
from typing import Any

import rich.console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters and surrogates
_UNDECODED = range(0xDC80, 0xDD00)  # surrogates by which Python represents bytes in names that are not UTF-8


def printable(text: str) -> str:
    r"""Replaces control characters, and bytes that are not UTF-8, by escapes such as ``\n`` and ``\xff``.

    >>> print(printable("caf\udce9 \x1b[31m.png"))
    caf\xe9 \x1b[31m.png
    """

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        return f"\\x{code - 0xDC00:02x}" if code in _UNDECODED else repr(match[0])[1:-1]

    return _UNPRINTABLE.sub(escape, text)


def say(text: object = "", *, stream: Any = None) -> None:
    """Prints one or more lines and flushes the stream.

    Args:
      text: The text. Line breaks are kept, other control characters are escaped.
      stream: The text stream to print to; ``sys.stdout`` by default.

    Raises:
      SystemExit: Nobody reads the stream any more.

    >>> say("[final] :smile:")
    [final] :smile:
    """
    stream = stream or sys.stdout
    try:
        print(_printable_lines(str(text)), file=stream, flush=True)
    except BrokenPipeError:  # the program that reads the output has ended, as in "| head -1"
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # Python flushes the stream when it ends
        raise SystemExit(128 + signal.SIGPIPE) from None


def say_error(program: str, error: object) -> None:
    """Prints an error on ``sys.stderr`` in one line."""
    say(f"{program}: {' '.join(str(error).splitlines())}", stream=sys.stderr)


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


class Console(rich.console.Console):
    """A ``rich`` console that shows every string as it is: no markup, no emoji codes, no highlighting.

    Args:
      **options: The options of ``rich.console.Console``.

    >>> Console(width=40).print("[final] :smile:")
    [final] :smile:
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # rich calls it for lines, cells, headings and titles
        """See ``rich.console.Console``."""
        return super().render_str(_printable_lines(text), **options)


def progress_bar(console: Console, **options: Any) -> Progress:
    """Returns ``rich``'s progress bar, whose descriptions are shown unchanged."""
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, **options)


def accept_any_text() -> None:
    """Makes the standard streams escape characters that their encoding does not have, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
