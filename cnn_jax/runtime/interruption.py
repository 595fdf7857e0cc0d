"""SIGTERM and Ctrl-C as a request to stop at the next safe point."""

import signal
import time
from collections.abc import Callable
from types import FrameType

from cnn_jax.runtime.signals import HANDLED, EndOnSignal, Watch

_ONE_REQUEST_SECONDS = 0.2  # on Ctrl-C, launchers such as ``uv run`` send a second signal to the program they started


class StopRequest:
    """Within its ``with`` block SIGTERM and SIGINT set :attr:`signal` instead of ending the process.

    A second signal has its usual, immediate effect. A signal that arrives too late to be handled in the block is
    passed to the enclosing block. A signal that the enclosing block received earlier also counts in this one.

    Args:
      tell: Called with the first signal as soon as it arrives. It is called in another thread, so that this also works
        while the main thread runs compiled code.

    >>> with StopRequest() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop.signal
    <Signals.SIGTERM: 15>
    """

    def __init__(self, tell: Callable[[signal.Signals], None] | None = None) -> None:
        self.signal: signal.Signals | None = None
        self._tell = tell
        self._told_at: float | None = None
        self._previous: dict[signal.Signals, object] = {}
        self._watch = Watch(self._take)

    def __enter__(self) -> "StopRequest":
        for number in HANDLED:
            self._previous[number] = signal.signal(number, self._note)
            around = self._around(number)
            self.signal = self.signal or (around.signal if isinstance(around, StopRequest) else None)
        self._watch.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._watch.__exit__(*error)
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        around = self._around(self.signal) if self.signal else None
        if around is not None and self.signal and not any(error) and not getattr(around, "signal", None):
            signal.raise_signal(self.signal)

    def _around(self, number: signal.Signals) -> "StopRequest | EndOnSignal | None":
        """The enclosing block that handles a signal."""
        around = getattr(self._previous[number], "__self__", None)
        return around if isinstance(around, StopRequest | EndOnSignal) else None

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """The Python signal handler. It runs in the main thread, after a compiled call has returned."""
        self.signal = self.signal or signal.Signals(number)
        signal.signal(number, self._previous[signal.Signals(number)])  # type: ignore[arg-type]

    def _take(self, number: int) -> bool:
        """Handles the first signal as soon as it arrives, in the thread of the watch."""
        if self._told_at is None:
            self.signal = self.signal or signal.Signals(number)
            self._told_at = time.monotonic()
            if self._tell is not None:
                self._tell(signal.Signals(number))
            return True
        return time.monotonic() - self._told_at < _ONE_REQUEST_SECONDS
