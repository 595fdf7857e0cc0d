"""What is being compiled, for how long, and whether it came from the cache, in the terminal."""

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
"""Within the context that it returns, what it was called with, such as ``'evaluation'``, is compiled."""

_SILENT_SECONDS = 5.0  # before a log file gets a line about what is still being compiled
_WORTH_A_LINE_SECONDS = 1.0


def silent(_name: str) -> contextlib.AbstractContextManager[None]:
    """An :data:`Announce` that says nothing."""
    return contextlib.nullcontext()


class Compilation:
    """An :data:`Announce`: shows what is being compiled while that lasts, and sums it up in a line.

    Args:
      show: Shows an object, whose string changes, in place; None on anything but a terminal.
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
        """Within it, what has this name is compiled."""
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
        """The time that was spent on compiling."""
        return sum(seconds for _, seconds, _ in self._compiled)

    def summary(self) -> str:
        """What was compiled, for how long, and what of it came from the cache; empty for nothing."""
        if not self._compiled:
            return ""
        if all(cached for *_, cached in self._compiled):
            names = ", ".join(name for name, *_ in self._compiled)
            return f"from the compilation cache in {self.seconds:.1f} s: {names}"
        parts = [f"{name} {seconds:.1f} s{' (cached)' * cached}" for name, seconds, cached in self._compiled]
        return f"compiled in {self.seconds:.1f} s: {', '.join(parts)}"


class Elapsed:
    """A text with the time since it was made; its string changes."""

    def __init__(self, text: str) -> None:
        self._text, self._started = text, time.monotonic()

    def __str__(self) -> str:
        return f"{self._text}  {format_duration(time.monotonic() - self._started)}"


@contextlib.contextmanager
def compiling() -> Iterator[Compilation]:
    """A :class:`Compilation` for a mode without a progress display, and its summary where it took a while."""
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
