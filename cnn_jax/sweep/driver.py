"""Drives a sweep: starts workers, shows progress, and writes the results."""

import pprint
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from cnn_jax.errors import Interrupted, UsageError
from cnn_jax.report.formatting import format_duration, format_value, short_names
from cnn_jax.report.trials import best_first
from cnn_jax.runtime.command import command
from cnn_jax.runtime.files import write_atomically
from cnn_jax.runtime.terminal import Console, say
from cnn_jax.sweep.commands import continue_sweep
from cnn_jax.sweep.live import View, values
from cnn_jax.sweep.local import Workers
from cnn_jax.sweep.settings import Sweep
from cnn_jax.sweep.store import Store
from cnn_jax.sweep.table import TrialRow, best_row, write_table
from cnn_jax.train import StopRequest

_LOOK_SECONDS = 0.25
_WRITE_SECONDS = 10.0  # the time between updates of the table files
_SHOWN = 10  # the number of rows of the table in the terminal
FINISHED = ("complete", "pruned", "failed")


def drive(store: Store, workers: Workers) -> list[TrialRow]:
    """Starts workers that run a sweep to its end, shows progress, and writes the results.

    Raises:
      Interrupted: The process received SIGTERM or Ctrl-C; running trials are saved, and the sweep can be continued.
      UsageError: The first trials failed for the same reason, or the workers cannot run.
    """
    directory = store.place.directory
    store.note_driver()
    rows = store.rows()
    written = time.monotonic()
    try:
        with StopRequest() as stop, View(store.sweep, directory, rows) as view, workers:
            while True:
                rows = store.rows()
                view.update(rows, store.running())
                finished = sum(row.state in FINISHED for row in rows)
                failure = store.failure()
                if failure or finished >= store.sweep.trials:  # more if another driver has extended the sweep
                    break
                if stop.signal:
                    view.print("stopping: running trials are saved")
                    line = f"stopped by {stop.signal.name} after {finished} of {store.sweep.trials} trials, all saved"
                    raise Interrupted(stop.signal, f"{line}; to continue: {continue_sweep(directory)}")
                workers.tend(store.begun)
                if time.monotonic() - written > _WRITE_SECONDS:
                    write_table(directory, rows)
                    written = time.monotonic()
                time.sleep(_LOOK_SECONDS)
    finally:
        write_results(store.sweep, directory, store.rows())
    if failure:
        raise UsageError(
            f"the first trials all failed for one reason: {failure}; "
            f"fix it, and begin again in another --workdir (their logs are in {directory / 'trials'})"
        )
    return rows


def write_results(sweep: Sweep, directory: Path, rows: Sequence[TrialRow]) -> None:
    """Writes ``sweep.csv``, ``sweep.html`` and, if a trial is complete, ``best.py``."""
    from cnn_jax.sweep.page import write_page  # imports matplotlib, which is slow

    write_table(directory, rows)
    best = best_row(rows, sweep.metric)
    if best is not None:
        write_atomically(directory / "best.py", _config_file(sweep, directory, best, rows))
    write_page(sweep, directory, rows)


def show(sweep: Sweep, directory: Path, rows: Sequence[TrialRow]) -> None:
    """Prints the best points and the paths of the results.

    Raises:
      UsageError: All trials failed.
    """
    best = best_row(rows, sweep.metric)
    counts = {state: sum(row.state == state for row in rows) for state in FINISHED}
    counted = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    if counts["failed"] == len(rows) > 0:
        raise UsageError(f"all trials failed, the first one: {rows[0].reason}; {directory / 'sweep.csv'} has them all")
    if best is None:
        say(f"no trial is complete ({counted or 'none has run'}); {directory / 'sweep.csv'} says why")
        return
    best_config = f"--config={directory / 'best.py'}"
    console, title = Console(), f"{directory}: {counted}"
    table = _table(sweep, rows, title, columns=True)
    fits = console.measure(table, options=console.options.update(max_width=1000)).maximum <= console.width
    console.print(table if fits else _table(sweep, rows, title, columns=False))
    say(f"the best is trial {best.number}; its config: {command(best_config)}")
    say(f"the sweep is in {directory}; all trials: {directory / 'sweep.csv'}; open {directory / 'sweep.html'}")


def _table(sweep: Sweep, rows: Sequence[TrialRow], title: str, *, columns: bool) -> Table:
    """The table of the best points, one line per point. Values are in one column each, or all in one column."""
    several = sweep.seeds > 1
    names = short_names(key for row in rows for key in row.overrides if not (several and key == "seed"))
    table = Table(title=title, title_justify="left")
    scores = f"{sweep.metric.name} ({sweep.seeds} seeds)" if several else sweep.metric.name
    runs_of: dict[int, list[TrialRow]] = {}
    for row in rows:
        runs_of.setdefault(row.point, []).append(row)
    firsts: dict[int, TrialRow] = {}
    for row in best_first(rows, sweep.metric):
        if row.state in ("complete", "pruned") and row.score is not None:
            firsts.setdefault(row.point, row)
    shown = list(firsts.values())[:_SHOWN]
    some_pruned = any(run.state != "complete" for row in shown for run in runs_of[row.point])
    for column in ("trials" if several else "trial", scores, *(["state"] if some_pruned else []), "time"):
        table.add_column(column, no_wrap=True)
    for column in names.values() if columns else ("values",):
        table.add_column(column)
    for row in shown:
        runs = runs_of[row.point]
        numbers = f"{runs[0].number}-{runs[-1].number}" if several else str(row.number)
        own = {key: row.overrides[key] for key in names if key in row.overrides}
        cells = [format_value(own.get(key, "")) for key in names] if columns else [values(own)]
        states = [_states(runs)] if some_pruned else []
        table.add_row(numbers, _score(sweep, row), *states, format_duration(sum(run.seconds for run in runs)), *cells)
    return table


def _states(runs: Sequence[TrialRow]) -> str:
    """The state of a point's run, or the number of its runs in each state."""
    counts = Counter(run.state for run in runs)
    return runs[0].state if len(runs) == 1 else ", ".join(f"{count} {state}" for state, count in counts.items())


def _score(sweep: Sweep, row: TrialRow) -> str:
    if sweep.seeds > 1:
        return sweep.metric.format_spread(row.mean or 0.0, row.std or 0.0)
    return sweep.metric.format(row.score or 0.0)


def _config_file(sweep: Sweep, directory: Path, best: TrialRow, rows: Sequence[TrialRow]) -> str:
    """The best trial's config as a file for ``--config``."""
    from cnn_jax import schema

    complete, score = sum(row.state == "complete" for row in rows), f"{sweep.metric.name} {_score(sweep, best)}"
    config = schema.override(sweep.config, best.overrides)
    changed = "\n".join(f"  {key} = {value!r}" for key, value in best.overrides.items())
    again = command(f"--config={directory / 'best.py'}")
    body = pprint.pformat(config.to_dict(), width=112, sort_dicts=False)
    return f'''"""Trial {best.number} of {len(rows)}, the best of the {complete} complete ones: {score}.

The keys that differ from the sweep's config:
{_in_docstring(changed)}

Command:  {_in_docstring(again)}
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The trial's config."""
    return ConfigDict(
        {body.replace(chr(10), chr(10) + " " * 8)}
    )
'''


def _in_docstring(text: str) -> str:
    """A text as it is written in a docstring; it may contain backslashes and quotes."""
    return text.replace("\\", "\\\\").replace('"', '\\"')
