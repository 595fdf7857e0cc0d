"""The number of iterations of one compiled call. A call cannot be interrupted, so each is to take about a second."""

import time
from collections.abc import Callable, Iterator

from cnn_jax.train.parallel import agreed

SECONDS = 1.0  # of a call; the work between two calls takes a few milliseconds


class Pace:
    """Chooses the number of iterations of the next call, so that it takes about a second, from the last call.

    The results of a run do not depend on it: compiled loops take the number of iterations as an argument, and
    sums over several calls are added one iteration at a time (:func:`~cnn_jax.train.step.added`).

    Args:
      seconds: The intended duration of a call.

    >>> pace = Pace(seconds=1.0)
    >>> pace.next(100)  # the first call is a measurement
    1
    >>> pace.took(1, seconds=0.05)
    >>> pace.next(100), pace.next(7)
    (20, 7)
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._each: float | None = None  # seconds per iteration in the last call

    def next(self, left: int) -> int:
        """The number of iterations of the next call, from 1 to ``left``, the same in all processes."""
        return -agreed(-self._fitting(left))

    def took(self, count: int, seconds: float) -> None:
        """Records the duration of a call."""
        self._each = seconds / count

    @property
    def call_seconds(self) -> float:
        """The approximate duration of the next long call; 0 before the first."""
        return 0.0 if self._each is None else max(self._seconds, self._each)

    def calls(self, total: int, between: Callable[[], None]) -> Iterator[tuple[int, int]]:
        """Divides ``total`` iterations into calls, and times the body of the loop over them.

        Args:
          total: The number of iterations.
          between: Called before each call. An exception from it ends the loop.

        Yields:
          The first iteration of a call, and its number of iterations.
        """
        first = 0
        while first < total:
            between()
            count, started = self.next(total - first), time.perf_counter()
            yield first, count
            self.took(count, time.perf_counter() - started)
            first += count

    def _fitting(self, left: int) -> int:
        if self._each is None:
            return 1
        return max(1, min(left, int(self._seconds / max(self._each, 1e-9))))


def nothing() -> None:
    """Does nothing; the default of ``between``."""
