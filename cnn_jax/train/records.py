"""The log of a run's scores: ``metrics.jsonl``, the same bytes with and without interruptions, and TensorBoard."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cnn_jax.train.parallel import is_primary

_FILE = "metrics.jsonl"
_LONGEST_LINE = 1 << 16  # bytes


class MetricsLog:
    """The scores of a run, one JSON object a line, and the same as TensorBoard events; a context manager.

    The file holds only what is a function of the run (step, epoch, split, scores), never times, so that a run that was
    killed and continued leaves the same bytes as one that was not. Times go to TensorBoard.

    Args:
      directory: The run directory.
      length: How many bytes of an earlier ``metrics.jsonl`` to keep: what :attr:`length` was when the checkpoint to
        continue from was saved. Lines written after it are dropped; the resumed run writes them again.
      step: The step of that checkpoint; TensorBoard hides the events after it.
    """

    def __init__(self, directory: Path, *, length: int = 0, step: int = 0) -> None:
        self._file = open(directory / _FILE, "ab")  # noqa: SIM115 - closed in __exit__
        self._file.truncate(length)
        with _hidden("torch"):  # tensorboardX imports it, which takes seconds, only to log torch tensors
            from tensorboardX import SummaryWriter

        self._events = SummaryWriter(str(directory / "tensorboard"), purge_step=step or None, max_queue=1000)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._events.close()

    @property
    def length(self) -> int:
        """The bytes of ``metrics.jsonl`` so far, all of them on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def write(self, *, step: int, epoch: float, split: str, scores: dict[str, float]) -> None:
        """Adds one line, and one TensorBoard scalar a score (``split/name``)."""
        row: dict[str, Any] = {"step": step, "epoch": round(epoch, 4), "split": split, **scores}
        self._file.write((json.dumps(row) + "\n").encode())
        self._file.flush()
        for name, value in scores.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def write_speed(self, *, step: int, examples_per_second: float) -> None:
        """Adds the speed to TensorBoard alone, since it differs from run to run."""
        self._events.add_scalar("speed/examples_per_second", examples_per_second, step)


@contextlib.contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Within it, a package that is not imported yet cannot be imported."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


class NoMetricsLog:
    """What processes other than the first write of the scores: nothing, since the first writes them once."""

    length = 0

    def write(self, **_: object) -> None:
        """Writes nothing."""

    def write_speed(self, **_: object) -> None:
        """Writes nothing."""


@contextlib.contextmanager
def open_metrics_log(directory: Path, *, length: int = 0, step: int = 0) -> Iterator[MetricsLog | NoMetricsLog]:
    """The :class:`MetricsLog` of a run, in the process that writes them."""
    if not is_primary():
        yield NoMetricsLog()
        return
    with MetricsLog(directory, length=length, step=step) as log:
        yield log


def read_records(directory: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``, oldest first; empty if there is none.

    >>> read_records(Path("/nowhere"))
    []
    """
    path = directory / _FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def read_last_record(directory: Path) -> dict[str, Any]:
    """The newest line of a run's ``metrics.jsonl``, without reading the others.

    Raises:
      OSError: There is no such file.
      LookupError: It is empty.
      ValueError: The line is only half written.
    """
    with open(directory / _FILE, "rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _LONGEST_LINE, 0))
        return json.loads(file.read().splitlines()[-1])
