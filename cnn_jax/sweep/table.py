"""The result of a sweep as a table, ``sweep.csv``, with one line per trial."""

import ast
import csv
import dataclasses
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric
from cnn_jax.runtime.files import write_atomically
from cnn_jax.sweep.trial import State
from cnn_jax.typed import typed

_FIELDS = ("number", "point", "state", "score", "mean", "std", "seconds", "reason")


@dataclasses.dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
      number: The number of the trial.
      point: The number of its point. The trials of a point differ only in their seed.
      state: The state of the trial.
      score: The value of the metric; None if there is none yet.
      mean: The mean score of the complete trials of its point or, if none is complete, of the last scores of the pruned
        ones; None if there are none.
      std: The standard deviation (n - 1) of these scores; 0 for one trial.
      seconds: The duration of the trial.
      reason: Why it was pruned or failed.
      overrides: Dotted key -> value, for the keys that differ from the sweep's config.
    """

    number: int
    point: int
    state: State
    score: float | None = None
    mean: float | None = None
    std: float | None = None
    seconds: float = 0.0
    reason: str = ""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def with_spreads(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Fills in the mean and standard deviation of each point.

    >>> trials = [TrialRow(0, 0, "complete", 0.5), TrialRow(1, 0, "complete", 0.7), TrialRow(2, 1, "running")]
    >>> rows = with_spreads(trials)
    >>> [round(rows[0].mean, 3), round(rows[0].std, 3), rows[2].mean]
    [0.6, 0.141, None]
    """
    found: dict[str, dict[int, list[float]]] = {"complete": {}, "pruned": {}}
    for row in rows:
        if row.state in found and row.score is not None:
            found[row.state].setdefault(row.point, []).append(row.score)
    scores = found["pruned"] | found["complete"]

    def filled(row: TrialRow) -> TrialRow:
        of_point = scores.get(row.point)
        if not of_point:
            return row
        deviation = statistics.stdev(of_point) if len(of_point) > 1 else 0.0
        return dataclasses.replace(row, mean=statistics.fmean(of_point), std=deviation)

    return [filled(row) for row in rows]


def ranked(rows: Sequence[TrialRow], metric: Metric) -> list[TrialRow]:
    """The complete trials, sorted by the mean of their point and then by their own score, the best first.

    Points with failed or pruned runs come last, because their mean is over fewer runs.

    >>> states = [("complete", 0, 0.8), ("complete", 1, 0.9), ("failed", 1, None), ("complete", 2, 0.7)]
    >>> rows = [TrialRow(number, point, state, score) for number, (state, point, score) in enumerate(states)]
    >>> [row.number for row in ranked(with_spreads(rows), Metric("accuracy", better="higher"))]
    [0, 3, 1]
    """
    cut_short = {row.point for row in rows if row.state != "complete"}

    def place(score: float | None) -> float:
        return math.inf if score is None or math.isnan(score) else -metric.utility(score)

    complete = [row for row in rows if row.state == "complete"]
    return sorted(complete, key=lambda row: (row.point in cut_short, place(row.mean), place(row.score), row.number))


def best_row(rows: Sequence[TrialRow], metric: Metric) -> TrialRow | None:
    """The first of the ranked trials, if any is complete."""
    return next(iter(ranked(rows, metric)), None)


def write_table(directory: Path, rows: Sequence[TrialRow]) -> None:
    """Writes ``sweep.csv``: the fields of :class:`TrialRow`, then a column for each key that is swept over."""
    keys = list(dict.fromkeys(key for row in rows for key in row.overrides))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_FIELDS, *keys])
    for row in rows:
        fields = ["" if (value := getattr(row, name)) is None else value for name in _FIELDS]
        writer.writerow([*fields, *(_cell(row.overrides[key]) if key in row.overrides else "" for key in keys)])
    write_atomically(directory / "sweep.csv", out.getvalue())


@typed
def read_table(directory: Path) -> list[TrialRow]:
    """The rows of a sweep's ``sweep.csv``, by number.

    Raises:
      UsageError: The folder contains no sweep.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> values = {"epochs": 3, "optimizer.name": "sgd"}
    >>> rows = with_spreads([TrialRow(0, 0, "complete", 0.5, seconds=2.5, overrides=values)])
    >>> write_table(folder, rows)
    >>> read_table(folder) == rows
    True
    """
    path = directory / "sweep.csv"
    if not path.is_file():
        raise UsageError(f"{directory} holds no table of a sweep ({path.name})")
    with path.open(newline="") as file:
        return [_row(cells) for cells in csv.DictReader(file)]


def _row(cells: Mapping[str, str]) -> TrialRow:
    def number(name: str) -> float | None:
        return float(cells[name]) if cells[name] else None

    return TrialRow(
        number=int(cells["number"]),
        point=int(cells["point"]),
        state=cells["state"],  # type: ignore[arg-type]
        score=number("score"),
        mean=number("mean"),
        std=number("std"),
        seconds=float(cells["seconds"]),
        reason=cells["reason"],
        overrides={key: _value(text) for key, text in cells.items() if key not in _FIELDS and text},
    )


def _cell(value: Any) -> str:
    """A value as text for :func:`_value`: a Python literal, but words without quotes."""
    return value if isinstance(value, str) and value and _value(value) == value else repr(value)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
