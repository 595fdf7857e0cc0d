"""The display of a sweep in the terminal: narrow terminals, and the output before a trial has ended."""

import io
import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict
from rich.console import Console

from cnn_jax.sweep import live, space
from cnn_jax.sweep.settings import Sweep
from cnn_jax.sweep.store import Running
from cnn_jax.sweep.table import TrialRow, with_spreads
from cnn_jax.sweep.trial import trial_directory
from tests.sweep import trivial

VALUES = {"optimizer.learning_rate": 0.123456, "optimizer.name": "nesterov", "model.name": "lenet_5_modern"}
SWEEP = Sweep(
    ConfigDict({"epochs": 4}),
    space.sweep("seed", [0]),
    train="",
    metric=trivial.METRIC,
    points=10,
)


def running(number: int, evaluation: int = 0, score: float | None = None) -> Running:
    return Running(TrialRow(number, number, "running", overrides=VALUES), 125.0, evaluation, score)


@pytest.mark.parametrize("width", [80, 140])
def test_values_give_way_and_nothing_else(width: int, tmp_path: Path) -> None:
    view, console = live.View(SWEEP, tmp_path), Console(width=width, file=io.StringIO())
    console.print(view._running([running(7, 3, 0.98), running(8)]))
    header, first, second = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert header.split() == ["trial", "time", "evaluations", "validation/accuracy", "values"]
    assert first.split()[:4] == ["7", "2:05", "3", "98.00%"]
    assert second.split()[:4] == ["8", "2:05", "-", "-"]
    assert ("model=lenet_5_modern" in first) == (width == 140)
    assert max(map(len, (header, first, second))) <= width


def test_best_is_that_of_a_running_trial_until_one_is_complete(tmp_path: Path) -> None:
    view, now = live.View(SWEEP, tmp_path), [running(0, 1, 0.5), running(1, 1, 0.7), running(2)]
    assert view._best([], now).startswith("best so far: 70.00%, trial 1: learning_rate=0.1235")
    rows = with_spreads([TrialRow(3, 3, "complete", 0.6, overrides=VALUES)])
    assert view._best(rows, now).startswith("best: 60.00%, trial 3: ")
    assert view._best([], []) == ""


def test_time_left_before_the_first_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    view, now = live.View(SWEEP, tmp_path), [running(0), running(1)]
    folder = trial_directory(tmp_path, 0)
    folder.mkdir(parents=True)

    def left_at(seconds: float, epoch: float) -> str | None:
        clock[0] = seconds
        (folder / "metrics.jsonl").write_text(json.dumps({"epoch": epoch, "split": "train"}) + "\n")
        return view._time_left(now)

    assert left_at(100.0, 1) is None  # as an earlier sitting has left it
    assert left_at(110.0, 2) == "3:00"  # two quarters of a trial in 10 s; of ten trials two are half done
    (folder / "metrics.jsonl").write_text('{"epoch": 3, "spl')
    assert view._time_left(now) is None


def test_time_left_once_trials_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    view, rows = live.View(SWEEP, tmp_path), [TrialRow(n, n, "complete", 0.5, overrides={}) for n in range(3)]
    for number, seconds in enumerate((100.0, 102.0, 104.0), start=1):
        clock[0] = seconds
        view.update(rows[:number], [])
    assert view._time_left([running(3), running(4)]) == "4:03"  # three in 104 s, seven to go
    assert view._time_left([running(number) for number in range(3, 10)]) == "0:14"  # which are all at their ends
