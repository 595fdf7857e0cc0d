"""The display of a sweep in the terminal: narrow terminals, and the output before a trial has ended."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


def on_terminal(directory: Path) -> tuple[live.View, Terminal]:
    """The display of the sweep, and the terminal that shows it."""
    with contextlib.redirect_stdout(Terminal()) as terminal:
        return live.View(SWEEP, directory), terminal


def shown(view: live.View, terminal: Terminal, rows: list[TrialRow], now: list[Running]) -> list[str]:
    """The lines that remain on the terminal after an update: the running trials, the best trial, and the bar."""
    with view:
        view.update(rows, now)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "")
    return [line.rstrip() for line in text[text.rindex("trial  ") :].splitlines() if line.strip()]


def left(lines: list[str]) -> str | None:
    """The remaining time at the end of the bar."""
    found = re.search(r"(\S+) left$", lines[-1])
    return found and found[1]


@pytest.mark.parametrize("width", [80, 140])
def test_only_values_are_shortened_to_fit(width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = shown(*on_terminal(tmp_path), [], [running(7, 3, 0.98), running(8)])
    header, first, second, *_ = lines
    assert header.split() == ["trial", "time", "evaluations", "validation/accuracy", "values"]
    assert first.split()[:4] == ["7", "2:05", "3", "98.00%"]
    assert second.split()[:4] == ["8", "2:05", "starting", "-"]
    assert ("model=lenet_5_modern" in first) == (width == 140)
    assert max(map(len, lines)) <= width


def test_best_trial_is_a_running_one_until_one_is_complete(tmp_path: Path) -> None:
    (view, terminal), now = on_terminal(tmp_path), [running(0, 1, 0.5), running(1, 1, 0.7), running(2)]
    assert shown(view, terminal, [], now)[-2].startswith("best so far: 70.00%, trial 1: learning_rate=0.1235")
    rows = with_spreads([TrialRow(3, 3, "complete", 0.6, overrides=VALUES)])
    assert shown(view, terminal, rows, now)[-2].startswith("best: 60.00%, trial 3: ")
    assert not any("best" in line for line in shown(view, terminal, [], []))


def test_time_left_before_the_first_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    (view, terminal), now = on_terminal(tmp_path), [running(0), running(1)]
    folder = trial_directory(tmp_path, 0)
    folder.mkdir(parents=True)

    def left_at(seconds: float, epoch: float) -> str | None:
        clock[0] = seconds
        (folder / "metrics.jsonl").write_text(json.dumps({"epoch": epoch, "split": "train"}) + "\n")
        return left(shown(view, terminal, [], now))

    assert left_at(100.0, 1) is None  # the state of an earlier session
    assert left_at(110.0, 2) == "3:00"  # two quarters of a trial in 10 s; two of ten trials are half done
    assert [line.split()[2] for line in shown(view, terminal, [], now)[1:3]] == ["-", "starting"]
    (folder / "metrics.jsonl").write_text('{"epoch": 3, "spl')
    assert left(shown(view, terminal, [], now)) is None


def test_time_left_once_trials_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: clock[0])
    view, terminal = on_terminal(tmp_path)
    rows = [TrialRow(n, n, "complete", 0.5, overrides={}) for n in range(3)]
    for number, seconds in enumerate((100.0, 102.0, 104.0), start=1):
        clock[0] = seconds
        view.update(rows[:number], [])
    assert left(shown(view, terminal, rows, [running(3), running(4)])) == "4:03"  # three in 104 s, seven to go
    # All trials left are about to end.
    assert left(shown(view, terminal, rows, [running(number) for number in range(3, 10)])) == "0:14"
