"""The file of scores of a continued run, and the handling of signals."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cnn_jax.runtime.interruption import StopRequest
from cnn_jax.runtime.signals import EndOnSignal, Watch
from cnn_jax.train import MetricsLog, read_last_record, read_records


def test_lines_after_the_checkpoint_are_dropped_and_written_again(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as records:
        records.write(step=10, epoch=1.0, split="train", scores={"loss": 0.5})
        length = records.length
        records.write(step=20, epoch=2.0, split="train", scores={"loss": 0.25})
    undisturbed = (tmp_path / "metrics.jsonl").read_bytes()
    assert len(undisturbed.splitlines()) == 2
    with MetricsLog(tmp_path, length=length, step=10) as records:
        assert (tmp_path / "metrics.jsonl").read_bytes() == undisturbed[:length]
        records.write(step=20, epoch=2.0, split="train", scores={"loss": 0.25})
    assert (tmp_path / "metrics.jsonl").read_bytes() == undisturbed


def test_rows_read_back_as_written(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as records:
        records.write(step=3, epoch=1 / 3, split="test", scores={"loss": 0.1, "accuracy": 1.0})
    assert read_records(tmp_path) == [{"step": 3, "epoch": 0.3333, "split": "test", "loss": 0.1, "accuracy": 1.0}]
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == read_records(tmp_path)[0]


def test_the_last_row_of_a_long_file(tmp_path: Path) -> None:
    rows = [{"step": step, "epoch": step / 10, "split": "train", "loss": 0.5} for step in range(2000)]
    lines = [json.dumps(row) + "\n" for row in rows]
    for count in (1, len(lines)):
        (tmp_path / "metrics.jsonl").write_text("".join(lines[:count]))
        assert read_last_record(tmp_path) == rows[count - 1]


def test_speed_is_kept_out_of_the_scores(tmp_path: Path) -> None:
    with MetricsLog(tmp_path) as records:
        records.write_speed(step=1, examples_per_second=1e4)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_a_signal_is_recorded_and_the_old_handler_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert stop.signal is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal is signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_was_not_handled_is_sent_again() -> None:
    with StopRequest() as around:
        with StopRequest():
            signal.raise_signal(signal.SIGTERM)
        assert around.signal is signal.SIGTERM
    with StopRequest() as around:
        with contextlib.suppress(KeyError), StopRequest():
            signal.raise_signal(signal.SIGTERM)
            raise KeyError  # ends the loop
        assert around.signal is None


def test_a_signal_is_reported_during_a_long_call() -> None:
    reported: list[float] = []
    with StopRequest(lambda _: reported.append(time.monotonic())) as stop:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        sent = time.monotonic() + 0.1
        hashlib.pbkdf2_hmac("sha256", b"", b"", 4_000_000)  # C code; Python runs no signal handlers during it
        ended = time.monotonic()
        assert stop.signal is signal.SIGTERM
    assert reported[0] < (sent + ended) / 2


def test_only_the_first_signal_is_recorded() -> None:
    around: list[int] = []

    def record(number: int) -> bool:
        around.append(number)
        return True

    with EndOnSignal(), Watch(record), StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # as from a launcher that also received the signal and sends it again
        time.sleep(0.3)
        assert stop.signal is signal.SIGINT
        assert around == []
        signal.raise_signal(signal.SIGTERM)
    assert around == [signal.SIGTERM, signal.SIGINT], "the second, and the first, which nothing handled"


LONG_CALL = """
import hashlib
from cnn_jax.runtime.interruption import StopRequest
from cnn_jax.runtime.signals import EndOnSignal
with EndOnSignal():
    {}
        print("begun", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)  # the call would take many minutes
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("block", "signals"), [("if True:", 1), ("with StopRequest(lambda _: print('saving', flush=True)):", 2)]
)
def test_a_process_ends_at_once_in_a_long_call(number: signal.Signals, block: str, signals: int) -> None:
    """By the first signal or, where the first is a request to save and stop, by the second."""
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_CALL.format(block)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    for _ in range(signals - 1):
        process.send_signal(number)
        assert process.stdout.readline() == "saving\n"
        time.sleep(0.3)  # signals in quick succession are one request
        assert process.poll() is None
    process.send_signal(number)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert printed == f"-c: ended by {number.name}\n"
