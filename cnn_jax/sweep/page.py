"""The page of a sweep, from its table and its trials' folders."""

import json
from collections.abc import Sequence
from pathlib import Path

from cnn_jax.report.sweep import Curve, write_sweep
from cnn_jax.runtime.command import command
from cnn_jax.sweep.commands import continue_sweep
from cnn_jax.sweep.settings import Sweep
from cnn_jax.sweep.table import TrialRow, best_row
from cnn_jax.sweep.trial import trial_directory
from cnn_jax.train import read_records


def write_page(sweep: Sweep, directory: Path, rows: Sequence[TrialRow]) -> Path:
    """Writes ``sweep.html`` of a finished or running sweep.

    Args:
      sweep: The sweep.
      directory: The sweep's folder.
      rows: The trials of the sweep.

    Returns:
      The path of the page.
    """
    best = best_row(rows, sweep.metric)
    data = sweep.config.get("data")
    of_data = f" on {data.name}" if data is not None and "name" in data else ""
    model = sweep.config.get("model")
    what = f"{model.name}{of_data}" if model is not None and "name" in model else directory.name
    return write_sweep(
        directory,
        rows,
        title=f"Sweep: {what}",
        metric=sweep.metric,
        best=best.number if best else None,
        seeds=sweep.seeds,
        best_commands=_commands(directory, best.number) if best else "",
        how_to_continue=continue_sweep(directory),
        curve=lambda number: curve_of(trial_directory(directory, number), sweep.metric.name),
    )


def _commands(directory: Path, number: int) -> str:
    """The commands that train the best trial again and write its report."""
    folder = trial_directory(directory, number)
    remark = "" if (folder / "report.html").is_file() else "  # writes its report"
    again = [command(f"--config={directory / 'best.py'}")] if (directory / "best.py").is_file() else []
    return "\n".join([*again, command(f"--workdir={folder}") + remark])


def curve_of(directory: Path, metric: str) -> Curve:
    """The epochs and scores of a run; empty if it has written none yet.

    >>> curve_of(Path("/nowhere"), "validation/accuracy")
    []
    """
    split, _, name = metric.partition("/")
    try:
        rows = read_records(directory)
    except json.JSONDecodeError:
        return []
    return [(row["epoch"], row[name]) for row in rows if row["split"] == split and name in row]
