"""SIGTERM and Ctrl-C while the main thread is in compiled code, such as a training step or XLA's compiler.

Python runs signal handlers in the main thread, between two bytecode instructions. A compiled call of one minute delays
them by up to a minute. :class:`Watch` receives signals at once, in its own thread.
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
    """Calls a function in its own thread as soon as SIGTERM or SIGINT arrives; a context manager.

    Within the block both signals must have a Python function as their handler. Otherwise they do not arrive here.

    Args:
      take: ``take(number) -> bool``, whether it handled the signal. Signals that it did not handle, and all signals but
        SIGTERM and SIGINT, are passed to the enclosing watch.

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
        self._writing.setblocking(False)  # required by Python: a signal handler must not wait
        self._around = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._run, daemon=True, name="signals")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._around)
        self._writing.close()  # ends the thread
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

    It is for work that need not be saved. To save something first, use a
    :class:`~cnn_jax.runtime.interruption.StopRequest` within the block: it handles the first signal.
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
        """The Python handler; it does nothing, since it would run too late."""


def _end(number: int) -> bool:
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # show the cursor, which a progress bar hides
    os.write(2, f"{Path(sys.argv[0]).name}: ended by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)
