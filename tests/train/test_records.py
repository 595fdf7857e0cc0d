"""The file of scores of a continued run, and the handling of signals."""

import contextlib
import json
import signal
from pathlib import Path

from cnn_jax.train import MetricsLog, read_last_record, read_records
from cnn_jax.train.interruption import StopRequest


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


def test_a_signal_is_noted_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert stop.signal is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal is signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_is_not_heeded_is_handed_on() -> None:
    with StopRequest() as around:
        with StopRequest():
            signal.raise_signal(signal.SIGTERM)
        assert around.signal is signal.SIGTERM
    with StopRequest() as around:
        with contextlib.suppress(KeyError), StopRequest():
            signal.raise_signal(signal.SIGTERM)
            raise KeyError  # by which it is heeded
        assert around.signal is None
