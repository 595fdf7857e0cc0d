"""The page of a sweep, from its table and its trials' folders."""

import json
from collections.abc import Sequence
from pathlib import Path

from cnn_jax.report.sweep import Curve, write_sweep
from cnn_jax.sweep.settings import Sweep
from cnn_jax.sweep.table import TrialRow, best_row
from cnn_jax.sweep.trial import trial_directory
from cnn_jax.train import read_records


def write_page(sweep: Sweep, directory: Path, rows: Sequence[TrialRow]) -> Path:
    """Writes ``sweep.html`` of a sweep, finished or not.

    Args:
      sweep: what is tried.
      directory: the sweep's folder.
      rows: its trials.

    Returns:
      The page's path.
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
        curve=lambda number: curve_of(trial_directory(directory, number), sweep.metric.name),
    )


def curve_of(directory: Path, metric: str) -> Curve:
    """A run's scores over its epochs; none where it has written none, or is writing.

    >>> curve_of(Path("/nowhere"), "validation/accuracy")
    []
    """
    split, _, name = metric.partition("/")
    try:
        rows = read_records(directory)
    except json.JSONDecodeError:
        return []
    return [(row["epoch"], row[name]) for row in rows if row["split"] == split and name in row]
