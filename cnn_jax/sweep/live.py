"""The progress of a sweep in the terminal: running trials, the best one, the time left; plain lines in log files."""

import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cnn_jax.report.formatting import format_duration, format_value, short_names
from cnn_jax.runtime.terminal import Console, printable, say
from cnn_jax.sweep.settings import Sweep
from cnn_jax.sweep.store import Running
from cnn_jax.sweep.table import TrialRow, best_row
from cnn_jax.sweep.trial import trial_directory
from cnn_jax.train import read_last_record

_SHOWN = 12  # running trials


class View:
    """A sweep's progress; a context manager. On a terminal it is redrawn in place, elsewhere each outcome is a line.

    Args:
      sweep: The sweep.
      directory: The sweep's folder.
      rows: The trials of earlier sessions. Finished trials among them are not printed.
    """

    def __init__(self, sweep: Sweep, directory: Path, rows: Sequence[TrialRow] = ()) -> None:
        self._sweep, self._directory, self._file = sweep, directory, sys.stdout
        self._watched = (-1, 0.0, 0.0)  # a trial, its finished share when first seen, and the time of that
        self._printed = {row.number for row in rows if _is_finished(row)}
        self._before, self._started, self._first_outcome = len(self._printed), time.monotonic(), 0.0
        terminal = self._file.isatty() and os.environ.get("TERM") != "dumb"
        self._live = Live(console=Console(file=self._file), refresh_per_second=4) if terminal else None

    def __enter__(self) -> "View":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, rows: Sequence[TrialRow], running: Sequence[Running]) -> None:
        """Updates the display."""
        for row in rows:
            if _is_finished(row) and row.number not in self._printed:
                self._printed.add(row.number)
                self._first_outcome = self._first_outcome or time.monotonic()
                self.print(self._outcome(row))
        if self._live is not None:
            group = Group(self._running(running), self._bar(rows, running))
            # Leave room for the ^C that a terminal prints: in a line of its own it would shift the redrawn lines.
            self._live.update(Constrain(group, self._live.console.width - 2))

    def print(self, line: str) -> None:
        """Prints a line; on a terminal above the display."""
        if self._live is not None:
            self._live.console.print(line, soft_wrap=True)
        else:
            say(line, stream=self._file)

    def _outcome(self, row: TrialRow) -> str:
        counted = f"[{len(self._printed)}/{self._sweep.trials}]"
        if row.state == "failed":
            found = f"failed: {row.reason}"
        else:
            found = self._score(row.score) + (f" ({row.reason})" if row.state == "pruned" else "")
        return f"{counted} trial {row.number}  {found}  {format_duration(row.seconds)}  {values(row.overrides)}"

    def _running(self, running: Sequence[Running]) -> Table:
        table = Table(box=None, pad_edge=False)
        for column in ("trial", "time", "evaluations", self._sweep.metric.name):
            table.add_column(column, no_wrap=True)
        table.add_column("values")  # cut off in narrow terminals
        for row, seconds, evaluation, score in running[:_SHOWN]:
            # Until its first record a trial reads its data and compiles.
            reached = str(evaluation) if evaluation else "-" if self._share(row) else "starting"
            cells = str(row.number), format_duration(seconds), reached, self._score(score)
            table.add_row(*cells, Text(printable(values(row.overrides)), no_wrap=True, overflow="ellipsis"))
        if len(running) > _SHOWN:
            table.add_row(f"and {len(running) - _SHOWN} more")
        return table

    def _bar(self, rows: Sequence[TrialRow], running: Sequence[Running]) -> Table:
        left = self._time_left(running)
        table = Table.grid(expand=True, padding=(0, 1))
        table.add_row(
            ProgressBar(total=self._sweep.trials, completed=len(self._printed)),
            Text(f"{len(self._printed)}/{self._sweep.trials}" + (f"  {left} left" if left else ""), justify="right"),
        )
        whole = Table.grid(expand=True)
        whole.add_row(Text(printable(self._best(rows, running)), no_wrap=True, overflow="ellipsis"))
        whole.add_row(table)
        return whole

    def _best(self, rows: Sequence[TrialRow], running: Sequence[Running]) -> str:
        """The best complete trial, or the best running one if none is complete."""
        best = best_row(rows, self._sweep.metric)
        if best is not None:
            return f"best: {self._score(best.mean)}, trial {best.number}: {values(best.overrides)}"
        scored = [(one.score, one.row) for one in running if one.score is not None]
        if not scored:
            return ""
        score, row = max(scored, key=lambda pair: self._sweep.metric.utility(pair[0]))
        return f"best so far: {self._score(score)}, trial {row.number}: {values(row.overrides)}"

    def _time_left(self, running: Sequence[Running]) -> str | None:
        """The remaining time from the speed of this process; before its first result, from the progress of a trial."""
        now, done, left = time.monotonic(), len(self._printed) - self._before, self._sweep.trials - len(self._printed)
        if done and not left:
            return None
        if done > 1 and left <= len(running):  # trials that were trained together end one after the other
            return format_duration((now - self._first_outcome) / (done - 1) * left)
        if done:
            return format_duration((now - self._started) / done * left)
        if not running:
            return None
        number, share = running[0].row.number, self._share(running[0].row)
        if self._watched[0] != number:
            self._watched = number, share, now
        _, before, since = self._watched
        if share <= before:
            return None
        speed = (share - before) * len(running) / (now - since)
        return format_duration((left - share * len(running)) / speed)

    def _share(self, row: TrialRow) -> float:
        """The finished part of a trial, by the epoch of its last record; 0 if it is unknown."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, ZeroDivisionError):  # it may be writing
            epochs = row.overrides.get("epochs", self._sweep.config.get("epochs"))
            return read_last_record(trial_directory(self._directory, row.number))["epoch"] / epochs
        return 0.0

    def _score(self, score: float | None) -> str:
        return "-" if score is None else self._sweep.metric.format(score)


def values(overrides: Mapping[str, Any]) -> str:
    """Overrides in one line.

    >>> values({"optimizer.learning_rate": 0.0123456, "optimizer.name": "sgd", "seed": 1})
    'learning_rate=0.01235  optimizer=sgd  seed=1'
    """
    names = short_names(overrides)
    return "  ".join(f"{names[key]}={format_value(value)}" for key, value in overrides.items())


def _is_finished(row: TrialRow) -> bool:
    return row.state in ("complete", "pruned", "failed")
