"""How a sweep looks in the terminal: running trials, the best so far, the time left; plain lines for log files."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cnn_jax.report.formatting import format_duration, format_score, format_value, short_names
from cnn_jax.sweep.settings import Sweep
from cnn_jax.sweep.store import Running
from cnn_jax.sweep.table import Row, best_row

_SHOWN = 12  # running trials


class View:
    """A sweep's progress; a context manager. On a terminal it is redrawn in place, elsewhere each outcome is a line.

    Args:
      sweep: whose.
      rows: those of earlier sittings, which are not told again.
    """

    def __init__(self, sweep: Sweep, rows: Sequence[Row] = ()) -> None:
        self._sweep, self._file = sweep, sys.stdout
        self._told = {row.number for row in rows if _is_finished(row)}
        self._before, self._started = len(self._told), time.monotonic()
        terminal = self._file.isatty() and os.environ.get("TERM") != "dumb"
        self._live = Live(console=Console(file=self._file), refresh_per_second=4) if terminal else None

    def __enter__(self) -> "View":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, rows: Sequence[Row], running: Sequence[Running]) -> None:
        """Shows how things are."""
        for row in rows:
            if _is_finished(row) and row.number not in self._told:
                self._told.add(row.number)
                self.tell(self._outcome(row))
        if self._live is not None:
            group = Group(self._running(running), self._bar(rows))
            # Room for the ^C that a terminal writes: on a line of its own it would shift what is redrawn.
            self._live.update(Constrain(group, self._live.console.width - 2))

    def tell(self, line: str) -> None:
        """Prints a line, on a terminal above what is redrawn."""
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=self._file, flush=True)

    def _outcome(self, row: Row) -> str:
        counted = f"[{len(self._told)}/{self._sweep.trials}]"
        if row.state == "failed":
            found = f"failed: {row.reason}"
        else:
            found = self._score(row.score) + (f" ({row.reason})" if row.state == "pruned" else "")
        return f"{counted} trial {row.number}  {found}  {format_duration(row.seconds)}  {values(row.overrides)}"

    def _running(self, running: Sequence[Running]) -> Table:
        table = Table(box=None, pad_edge=False)
        for column in ("trial", "time", "evaluations", self._sweep.metric):
            table.add_column(column, no_wrap=True)
        table.add_column("values")  # which give way where the terminal is narrow
        for row, seconds, evaluation, score in running[:_SHOWN]:
            cells = str(row.number), format_duration(seconds), str(evaluation or "-"), self._score(score)
            table.add_row(*cells, Text(values(row.overrides), no_wrap=True, overflow="ellipsis"))
        if len(running) > _SHOWN:
            table.add_row(f"and {len(running) - _SHOWN} more")
        return table

    def _bar(self, rows: Sequence[Row]) -> Table:
        best = best_row(rows, minimize=self._sweep.minimize)
        best_line = f"best: {self._score(best.mean)}, trial {best.number}: {values(best.overrides)}" if best else ""
        left = self._time_left()
        table = Table.grid(expand=True, padding=(0, 1))
        table.add_row(
            ProgressBar(total=self._sweep.trials, completed=len(self._told)),
            Text(f"{len(self._told)}/{self._sweep.trials}" + (f"  {left} left" if left else ""), justify="right"),
        )
        whole = Table.grid(expand=True)
        whole.add_row(Text(best_line, no_wrap=True, overflow="ellipsis"))
        whole.add_row(table)
        return whole

    def _time_left(self) -> str | None:
        """From the speed of this sitting; None before its first outcome."""
        done, left = len(self._told) - self._before, self._sweep.trials - len(self._told)
        if not (done and left):
            return None
        return format_duration((time.monotonic() - self._started) / done * left)

    def _score(self, score: float | None) -> str:
        return "-" if score is None else format_score(self._sweep.metric, score)


def values(overrides: Mapping[str, Any]) -> str:
    """Overrides in a line.

    >>> values({"optimizer.learning_rate": 0.0123456, "optimizer.name": "sgd", "seed": 1})
    'learning_rate=0.01235  optimizer=sgd  seed=1'
    """
    names = short_names(overrides)
    return "  ".join(f"{names[key]}={format_value(value)}" for key, value in overrides.items())


def _is_finished(row: Row) -> bool:
    return row.state in ("complete", "pruned", "failed")
