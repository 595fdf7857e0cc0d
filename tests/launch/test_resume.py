"""Runs that are killed, stopped and repeated end with the same bits."""

import json
import re
import signal
import time
from pathlib import Path

import pytest

from benchmarks.kill import is_saving, outcome
from tests.launch.process import start, train

# Long enough to be killed, and with much to lose: two moments a parameter, averaged weights, a count of bad epochs.
LONGER = (
    "--config.epochs=12",
    "--config.optimizer.name=adamw",
    "--config.optimizer.learning_rate=0.002",
    "--config.ema_decay=0.99",
    "--config.early_stopping=11 epochs",
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    train(workdir, *LONGER)
    return workdir


def wait_for_lines(workdir: Path, count: int) -> None:
    """Waits until the run has written so many lines of scores."""
    deadline = time.monotonic() + 120
    path = workdir / "metrics.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, "the run writes no scores"
        time.sleep(0.002)


def test_the_same_command_gives_the_same_bits(undisturbed: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", *LONGER)
    assert outcome(tmp_path / "run") == outcome(undisturbed)


def test_another_seed_gives_other_bits(undisturbed: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", *LONGER, "--config.seed=1")
    assert outcome(tmp_path / "run") != outcome(undisturbed)


def test_killed_runs_continue_to_the_same_bits(undisturbed: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    for lines in (2, 12, 25):
        process = start("--config=configs/lenet5_digits.py:smoke", f"--workdir={workdir}", *LONGER)
        wait_for_lines(workdir, lines)
        while lines == 12 and not is_saving(workdir):
            assert process.poll() is None, "it had ended before it was seen saving"
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (workdir / "result.json").exists(), "it had ended before it could be killed"
    train(workdir, *LONGER)
    assert outcome(workdir) == outcome(undisturbed)
    left = [path.name for path in (workdir / "checkpoints").iterdir()]
    assert all(name.isdigit() for name in left), f"remains of a killed save: {left}"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_runs_save_and_continue_to_the_same_bits(
    number: signal.Signals, code: int, undisturbed: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    process = start("--config=configs/lenet5_digits.py:smoke", f"--workdir={workdir}", *LONGER)
    wait_for_lines(workdir, 4)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == code, printed
    assert "Traceback" not in printed
    (command,) = re.findall(r"to continue: (python launch.py .*)", printed)
    assert f"--workdir={workdir}" in command
    step = int(re.findall(r"at step (\d+)", printed)[0])
    assert (workdir / "checkpoints" / str(step)).is_dir()
    done = start(*command.split()[2:])
    printed, _ = done.communicate(timeout=300)
    assert done.returncode == 0, printed
    assert f"continuing from step {step}" in printed
    assert outcome(workdir) == outcome(undisturbed)


def test_a_second_process_in_the_workdir_is_refused(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    first = start("--config=configs/lenet5_digits.py:smoke", f"--workdir={workdir}", "--config.epochs=500")
    try:
        wait_for_lines(workdir, 1)
        second = start("--config=configs/lenet5_digits.py:smoke", f"--workdir={workdir}", "--config.epochs=500")
        printed, _ = second.communicate(timeout=60)
        assert second.returncode == 2
        assert f"in use by another process (pid {first.pid})" in printed
    finally:
        first.kill()
        first.communicate()


def test_metrics_lines_are_whole(undisturbed: Path) -> None:
    rows = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "test"] == sorted({row["step"] for row in rows})
