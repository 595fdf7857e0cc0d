"""Runs that are killed, stopped or repeated give bit-identical results, with data in memory and streamed."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from benchmarks.kill import is_saving, outcome, write_digits
from cnn_jax import train as training
from cnn_jax.config import load_config
from tests.launch.process import launch, started, train

# Long enough to be killed, with all kinds of state: augmentation, dropout, moments, averaged weights, patience.
TORTURED = "benchmarks/kill.py"
SHORT = ("--config.epochs=6", "--config.early_stopping=5 epochs")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    train(workdir, *SHORT, config=TORTURED)
    return workdir


def wait_for_lines(workdir: Path, count: int) -> None:
    """Waits until the run has written ``count`` lines of scores."""
    deadline = time.monotonic() + 120
    path = workdir / "metrics.jsonl"
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, "the run writes no scores"
        time.sleep(0.002)


def has_saved(workdir: Path) -> bool:
    """Whether the run has a complete checkpoint: one whose folder has its final name."""
    return any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*"))


def killed(workdir: Path, *arguments: str, config: str, lines: int, saving: bool = False, saved: bool = False) -> None:
    """Starts or continues the run, and kills it after so many lines, during the next save, or after a save."""
    with started(f"--config={config}", f"--workdir={workdir}", *arguments, fresh=saving) as process:
        wait_for_lines(workdir, lines)
        while saving and not is_saving(workdir):
            assert process.poll() is None, "it had ended before it was seen saving"
        while saved and not has_saved(workdir):
            assert process.poll() is None, "it had ended before it was seen to have saved"
        process.kill()
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (workdir / "result.json").exists(), "it had ended before it could be killed"


def stopped(workdir: Path, arguments: list[str], number: signal.Signals, *, lines: int) -> tuple[list[str], int]:
    """Stops the run by a signal after so many lines. Returns the arguments of the printed command, and the step."""
    with started(*arguments) as process:
        wait_for_lines(workdir, lines)
        process.send_signal(number)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[number], printed
    assert "Traceback" not in printed
    (command,) = re.findall(r"to continue: python launch.py (.*)", printed)
    assert f"--workdir={workdir}" in command
    step = int(re.findall(r"at step (\d+)", printed)[0])
    assert (workdir / "checkpoints" / str(step)).is_dir()
    return command.split(), step


def test_killed_and_stopped_runs_continue_to_the_same_bits(undisturbed: Path, tmp_path: Path) -> None:
    """One run that is killed, stopped by SIGTERM, killed while it saves, stopped by Ctrl-C, and continued."""
    workdir = tmp_path / "run"
    killed(workdir, *SHORT, config=TORTURED, lines=2)
    arguments = [f"--config={TORTURED}", f"--workdir={workdir}", *SHORT]
    arguments, _ = stopped(workdir, arguments, signal.SIGTERM, lines=4)
    killed(workdir, *SHORT, config=TORTURED, lines=7, saving=True)
    arguments, step = stopped(workdir, arguments, signal.SIGINT, lines=10)
    done = launch(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"continuing from step {step}" in done.stdout
    assert outcome(workdir) == outcome(undisturbed)
    left = [path.name for path in (workdir / "checkpoints").iterdir()]
    assert all(name.isdigit() for name in left), f"remains of a killed save: {left}"


def test_killed_streams_of_images_continue_to_the_same_bits_but_not_with_another_image(tmp_path: Path) -> None:
    folder, workdir = write_digits(tmp_path / "images", 330), tmp_path / "run"
    config = f"{TORTURED}:{folder}"
    train(tmp_path / "undisturbed", *SHORT, config=config)
    for lines in (2, 10):
        killed(workdir, *SHORT, config=config, lines=lines, saving=lines == 10)
    new = folder / "3" / "new.png"
    new.write_bytes(next(folder.glob("3/*.png")).read_bytes())
    refused = launch(f"--workdir={workdir}")
    assert refused.returncode == 2
    assert re.search(r"begun with other data \((train|validation|test): (\d+) -> (\d+) images", refused.stderr)
    new.unlink()
    train(workdir, *SHORT, config=config)
    assert outcome(workdir) == outcome(tmp_path / "undisturbed")


def test_a_second_process_in_the_workdir_is_refused(tmp_path: Path) -> None:
    workdir, config = tmp_path / "run", load_config("lenet5_digits:smoke")
    with training.open_workdir(workdir, config, may_change=training.MAY_CHANGE, total_steps=1):
        second = launch("--config=configs/lenet5_digits.py:smoke", f"--workdir={workdir}")
    assert second.returncode == 2
    assert f"in use by another process (pid {os.getpid()})" in second.stderr


def test_every_step_with_scores_has_test_scores(undisturbed: Path) -> None:
    rows = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "test"] == sorted({row["step"] for row in rows})
