"""SIGTERM and Ctrl-C as a request to stop at the next safe point."""

import signal
from types import FrameType


class StopRequest:
    """Within its ``with`` block SIGTERM and SIGINT set :attr:`signal` instead of ending the process.

    A second signal of the same kind has its usual, immediate effect. One that arrives
    too late to be handled within the block is passed on to the enclosing block.

    >>> with StopRequest() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop.signal
    <Signals.SIGTERM: 15>
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        around = getattr(self._previous.get(self.signal), "__self__", None) if self.signal else None
        if isinstance(around, StopRequest) and self.signal and not any(error):
            around._note(self.signal, None)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        signal.signal(number, self._previous[self.signal])  # type: ignore[arg-type]
