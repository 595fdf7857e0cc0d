"""SIGTERM and Ctrl-C while the main thread is in compiled code, such as a training step or XLA's compiler.

Python runs the handlers of signals in the main thread, between two instructions of Python. A compiled program of a
minute delays them by a minute. :class:`Watch` learns of a signal at once, in a thread of its own.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGINT)


class Watch:
    """Calls a function as soon as SIGTERM or SIGINT arrives, in a thread of its own; a context manager.

    Python's handlers of the two signals must be set to functions within the block, or nothing arrives here.

    Args:
      take: ``take(number) -> bool``: whether the signal was meant for it. Other signals go to the watch around this
        one, and so do those that are not SIGTERM or SIGINT.

    >>> taken = threading.Event()
    >>> with EndOnSignal(), Watch(lambda number: taken.set() or True):
    ...     signal.raise_signal(signal.SIGTERM)
    ...     taken.wait(10)
    True
    """

    def __init__(self, take: Callable[[int], bool]) -> None:
        self._take = take

    def __enter__(self) -> "Watch":
        self._reading, self._writing = socket.socketpair()
        self._writing.setblocking(False)  # as Python requires: a handler must not wait
        self._around = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, daemon=True, name="signals")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._around)
        self._writing.close()  # which ends the thread
        self._thread.join()
        self._reading.close()

    def _run(self) -> None:
        while numbers := self._reading.recv(64):
            for number in numbers:
                if not (number in HANDLED and self._take(number)) and self._around >= 0:
                    with contextlib.suppress(OSError):
                        os.write(self._around, bytes([number]))


class EndOnSignal:
    """Within its ``with`` block SIGTERM and Ctrl-C end the process at once, with one line and the exit code 128 + n.

    For work of which nothing is lost, whatever the process is in. Where something is to be saved, a
    :class:`~cnn_jax.train.interruption.StopRequest` within it takes the first signal.
    """

    def __enter__(self) -> "EndOnSignal":
        self._previous = {number: signal.signal(number, self.leave_to_the_watch) for number in HANDLED}
        self._watch = Watch(_end)
        self._watch.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._watch.__exit__(*error)
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def leave_to_the_watch(self, number: int, frame: FrameType | None) -> None:
        """Python's handler, which would run too late."""


def _end(number: int) -> bool:
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # shows the cursor, which a progress bar hides
    os.write(2, f"{Path(sys.argv[0]).name}: ended by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)
