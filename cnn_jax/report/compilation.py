"""Shows in the terminal what is being compiled, how long it takes, and whether it came from the compilation cache."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from rich.live import Live
from rich.text import Text

from cnn_jax.report.formatting import format_duration
from cnn_jax.runtime.compilation_cache import watch_cache
from cnn_jax.runtime.terminal import Console, say

Announce = Callable[[str], contextlib.AbstractContextManager[None]]
"""Called with the name of what is compiled, such as ``'evaluation'``; returns a context for the compilation."""

_SILENT_SECONDS = 5.0  # compilations that take longer are announced in a log file
_WORTH_A_LINE_SECONDS = 1.0  # a total of at least this gets a summary


def silent(_name: str) -> contextlib.AbstractContextManager[None]:
    """An :data:`Announce` that shows nothing."""
    return contextlib.nullcontext()


class Compilation:
    """An :data:`Announce` that shows what is being compiled, and summarises it in one line.

    Args:
      show: Shows an object, whose string may change, in place; None if the output is not a terminal.
      log: Writes a line.

    Example:
      >>> compilation = Compilation(None, print)
      >>> with compilation("evaluation"):
      ...     pass
      >>> compilation.summary()
      'compiled in 0.0 s: evaluation 0.0 s'
    """

    def __init__(self, show: Callable[[object], None] | None, log: Callable[[str], None]) -> None:
        self._show, self._log = show, log
        self._compiled: list[tuple[str, float, bool]] = []  # name, seconds, from the cache

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """A context for the compilation of what has this name."""
        started = time.monotonic()
        late = threading.Timer(_SILENT_SECONDS, self._log, [f"compiling {name} ..."])
        if self._show is None:
            late.daemon = True
            late.start()
        else:
            self._show(Elapsed(f"compiling {name}"))
        try:
            with watch_cache() as from_cache:
                yield
        finally:
            late.cancel()
        self._compiled.append((name, time.monotonic() - started, from_cache()))

    @property
    def seconds(self) -> float:
        """The total compilation time."""
        return sum(seconds for _, seconds, _ in self._compiled)

    def summary(self) -> str:
        """One line: what was compiled, how long it took, and what came from the cache. Empty if there is nothing."""
        if not self._compiled:
            return ""
        if all(cached for *_, cached in self._compiled):
            names = ", ".join(name for name, *_ in self._compiled)
            return f"from the compilation cache in {self.seconds:.1f} s: {names}"
        parts = [f"{name} {seconds:.1f} s{' (cached)' * cached}" for name, seconds, cached in self._compiled]
        return f"compiled in {self.seconds:.1f} s: {', '.join(parts)}"


class Elapsed:
    """A text with the time since its creation; its string changes."""

    def __init__(self, text: str) -> None:
        self._text, self._started = text, time.monotonic()

    def __str__(self) -> str:
        return f"{self._text}  {format_duration(time.monotonic() - self._started)}"


@contextlib.contextmanager
def compiling() -> Iterator[Compilation]:
    """A :class:`Compilation` for modes without a progress display; prints a summary if it took at least a second."""
    if not (sys.stdout.isatty() and os.environ.get("TERM") != "dumb"):
        compilation = Compilation(None, say)
        yield compilation
    else:
        shown: list[object] = [""]
        live = Live(get_renderable=lambda: Text(str(shown[-1])), console=Console(file=sys.stdout), transient=True)
        with live:
            compilation = Compilation(shown.append, say)
            yield compilation
    if compilation.seconds >= _WORTH_A_LINE_SECONDS:
        say(compilation.summary())
