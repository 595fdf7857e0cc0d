"""The log of a run's scores in ``metrics.jsonl``, whose bytes do not depend on interruptions, and in TensorBoard."""

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
    """Writes the scores of a run as JSON lines and as TensorBoard events; a context manager.

    The file contains only results of the run (step, epoch, split, scores) and no times, so that a run that was
    interrupted and continued writes the same bytes as one that was not. Times are written to TensorBoard.

    Args:
      directory: The run directory.
      length: How many bytes of an earlier ``metrics.jsonl`` to keep: the value of :attr:`length` when the checkpoint to
        continue from was saved. Later lines are removed; the continued run writes them again.
      step: The step of that checkpoint. TensorBoard hides the events after it.
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
        """The length of ``metrics.jsonl`` in bytes, after a flush to disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def write(self, *, step: int, epoch: float, split: str, scores: dict[str, float]) -> None:
        """Writes one line, and one TensorBoard scalar per score (``split/name``)."""
        row: dict[str, Any] = {"step": step, "epoch": round(epoch, 4), "split": split, **scores}
        self._file.write((json.dumps(row) + "\n").encode())
        self._file.flush()
        for name, value in scores.items():
            self._events.add_scalar(f"{split}/{name}", value, step)

    def write_speed(self, *, step: int, examples_per_second: float) -> None:
        """Writes the speed to TensorBoard only, since it differs from run to run."""
        self._events.add_scalar("speed/examples_per_second", examples_per_second, step)


@contextlib.contextmanager
def _hidden(package: str) -> Iterator[None]:
    """A context in which a package that is not imported yet cannot be imported."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]


class NoMetricsLog:
    """The log in all processes but the first: it writes nothing, since the first process writes the scores."""

    length = 0

    def write(self, **_: object) -> None:
        """Writes nothing."""

    def write_speed(self, **_: object) -> None:
        """Writes nothing."""


@contextlib.contextmanager
def open_metrics_log(directory: Path, *, length: int = 0, step: int = 0) -> Iterator[MetricsLog | NoMetricsLog]:
    """The :class:`MetricsLog` of a run, or a :class:`NoMetricsLog` in processes that do not write."""
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
      LookupError: The file is empty.
      ValueError: The line is incomplete.
    """
    with open(directory / _FILE, "rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - _LONGEST_LINE, 0))
        return json.loads(file.read().splitlines()[-1])
