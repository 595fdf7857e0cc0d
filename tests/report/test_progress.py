"""The progress display in a real process, once on a pseudo-terminal and once in a pipe."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time

import pytest

from cnn_jax.metrics import Metric
from cnn_jax.report.progress import Progress

PROGRAM = """
import sys, time
from cnn_jax.metrics import Metric
from cnn_jax.report.progress import Progress
assert "matplotlib" not in sys.modules and "jax" not in sys.modules, "a slow start for one line of text"
metrics = [Metric("loss", "lower"), Metric("accuracy", "higher", "%")]
with Progress(40, steps_per_epoch=10, metrics=metrics, start_step=10) as progress:
    progress.log("continuing from step 10 of 40 [bold]")
    for step in range(15, 41, 5):
        time.sleep(0.2)
        scores = {"accuracy": 1 - 1 / step, "loss": 1 / step, "validation/accuracy": 0.5, "validation/accuracy_1": 0.4}
        progress.update(step=step, scores=scores, examples_per_second=12345.6)
        if step == 20:
            print("other words")
"""
ENVIRONMENT = {**os.environ, "TERM": "xterm-256color"}
CONTROL = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")


@pytest.fixture(scope="module")
def on_terminal() -> str:
    """Everything that the program sends to a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    environment = {name: value for name, value in ENVIRONMENT.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    sent = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # raised on Linux when the other end is closed
            break
        if not piece:
            break
        sent += piece
    os.close(ours)
    assert process.wait(timeout=60) == 0, sent.decode()
    return sent.decode()


def screen(sent: str) -> list[str]:
    """The lines that a terminal shows in the end. Lines are erased before redrawing, so returns do not matter."""
    lines, row = [""], 0
    for token in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", sent):
        if token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif re.fullmatch(r"\x1b\[\d*A", token):
            row -= int(token[2:-1] or 1)
        elif re.fullmatch(r"\x1b\[2K", token):
            lines[row] = ""
        elif not token.startswith(("\x1b", "\r")):
            lines[row] += token
    return [line.rstrip() for line in lines]


def test_a_terminal_shows_one_bar_that_is_redrawn(on_terminal: str) -> None:
    shown = [line for line in screen(on_terminal) if line]
    assert shown[:2] == ["continuing from step 10 of 40 [bold]", "other words"]
    assert len(shown) == 4
    assert re.fullmatch(r"epoch 4/4 ━+ 12,346 images/s", shown[2])
    assert len(shown[2]) == 100
    assert shown[3] == "loss 0.025  accuracy 97.50%  validation/accuracy 50.00%"


def test_a_terminal_shows_what_comes(on_terminal: str) -> None:
    text = CONTROL.sub("", on_terminal)
    assert "epoch 1/4" in text
    assert "epoch 2.5/4" in text
    assert re.search(r"12,346 images/s  0:0[01] left", text)
    assert on_terminal.count("\x1b[?25l") == on_terminal.count("\x1b[?25h") == 1  # the cursor is shown again


@pytest.mark.parametrize("force", [{}, {"FORCE_COLOR": "1"}], ids=["plain", "FORCE_COLOR"])
def test_a_pipe_gets_one_plain_line_an_epoch(force: dict[str, str]) -> None:
    program = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(program, capture_output=True, text=True, env={**ENVIRONMENT, **force}, timeout=60, check=True)
    assert done.stderr == ""
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.stdout)
    assert done.stdout.isascii()
    lines = done.stdout.splitlines()
    rest = r"  validation/accuracy 50\.00%  12,346 images/s"
    patterns = [
        r"continuing from step 10 of 40 \[bold\]",
        r"epoch 2/4  loss 0\.05  accuracy 95\.00%" + rest + r"  0:0\d left",
        r"other words",
        r"epoch 3/4  loss 0\.0333  accuracy 96\.67%" + rest + r"  0:0\d left",
        r"epoch 4/4  loss 0\.025  accuracy 97\.50%" + rest,
    ]
    assert len(lines) == len(patterns)
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(patterns, lines, strict=True))


def test_a_line_is_in_the_pipe_before_the_next_step_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    with sys.stdout, Progress(20, steps_per_epoch=10, metrics=[Metric("loss", "lower")]) as progress:
        progress.update(step=10, scores={"loss": 1.0}, examples_per_second=5.0)
        assert os.read(reading, 4096) == b"epoch 1/2  loss 1  5 images/s\n"
        progress.log("saved")
        assert os.read(reading, 4096) == b"saved\n"
    os.close(reading)


def test_the_time_left_is_told_from_the_steps_after_the_first_call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([1000.0, 1030.0])  # the first call, including compilation, ends at 1000
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with Progress(100, steps_per_epoch=10, start_step=20) as progress:
        progress.update(step=30, scores={}, examples_per_second=1000.0)
        progress.update(step=40, scores={}, examples_per_second=1000.0)
    first, second = capsys.readouterr().out.splitlines()
    assert "left" not in first
    assert second.endswith("3:00 left")  # 60 steps at 3 s each


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    ours, theirs = pty.openpty()
    monkeypatch.setattr(sys, "stdout", os.fdopen(theirs, "w"))
    with sys.stdout, Progress(10, steps_per_epoch=10, metrics=[Metric("error", "lower", "%")]) as progress:
        progress.update(step=10, scores={"error": 0.5}, examples_per_second=1.0)
        assert os.read(ours, 4096) == b"epoch 1/1  error 50.00%  1 images/s\r\n"
    os.close(ours)


def test_a_run_of_less_than_an_epoch_counts_steps(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(1, steps_per_epoch=40) as progress:
        progress.update(step=1, scores={}, examples_per_second=10.0)
    assert capsys.readouterr().out.startswith("step 1/1 ")
