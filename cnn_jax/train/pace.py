"""How much one compiled call does: a program cannot be interrupted while it runs, so calls are short, by the clock."""

import time
from collections.abc import Callable, Iterator

from cnn_jax.train.parallel import agreed

SECONDS = 1.0  # of a call; what comes between two calls takes a few milliseconds


class Pace:
    """How many iterations the next call makes, so that it takes about a second; measured while a run goes on.

    The results of a run do not depend on it: compiled loops take the number of their iterations as an argument, and
    sums over several calls are made one iteration at a time (:func:`~cnn_jax.train.step.added`).

    Args:
      seconds: The duration that calls are to have.

    >>> pace = Pace(seconds=1.0)
    >>> pace.next(100)  # the first is a measurement
    1
    >>> pace.took(1, seconds=0.05)
    >>> pace.next(100), pace.next(7)
    (20, 7)
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._each: float | None = None  # seconds of an iteration, in the last call

    def next(self, left: int) -> int:
        """The number of iterations of the next call, at least 1 and at most ``left``; all processes get the same."""
        return -agreed(-self._fitting(left))

    def took(self, count: int, seconds: float) -> None:
        """Notes the duration of a call."""
        self._each = seconds / count

    @property
    def call_seconds(self) -> float:
        """The duration that the next long call will have, about; 0 before the first."""
        return 0.0 if self._each is None else max(self._seconds, self._each)

    def calls(self, total: int, between: Callable[[], None]) -> Iterator[tuple[int, int]]:
        """Divides ``total`` iterations into calls; what is done with each, until the next is asked for, is timed.

        Args:
          total: The number of iterations.
          between: Called before each call; what it raises ends the loop.

        Yields:
          The number of the first iteration of a call, and how many it makes.
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
    """For ``between``: does nothing."""
