"""``launch.py`` started several times, as one run."""

import json
import socket
from pathlib import Path

import pytest

from tests.launch.process import start

PROCESSES = 2


def together(workdir: Path, *arguments: str) -> list[tuple[int, str]]:
    """Exit code and output of each process."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    flags = [f"--workdir={workdir}", f"--coordinator_address={address}", f"--num_processes={PROCESSES}", *arguments]
    running = [
        start("--config=configs/lenet5_digits.py:smoke", *flags, f"--process_id={number}")
        for number in range(PROCESSES)
    ]
    try:
        printed = [process.communicate(timeout=300)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, text) for process, text in zip(running, printed, strict=True)]


def test_two_processes_score_what_one_does_and_write_once(trained: Path, tmp_path: Path) -> None:
    (first, printed), (second, silent) = together(tmp_path / "run")
    assert (first, second) == (0, 0), printed + silent
    assert "test accuracy" in printed
    assert "accuracy" not in silent
    one, two = (json.loads((run / "result.json").read_text()) for run in (trained, tmp_path / "run"))
    assert two["scores"] == pytest.approx(one["scores"], rel=1e-3)
    lines = [len((run / "metrics.jsonl").read_text().splitlines()) for run in (trained, tmp_path / "run")]
    assert lines[0] == lines[1]


def test_a_mistake_ends_all_of_them(trained: Path) -> None:
    before = (trained / "config.json").read_bytes()
    (first, printed), (second, other) = together(trained, "--config.seed=3")
    assert (first, second) == (2, 2), printed + other
    assert "seed: 0 -> 3" in printed
    assert "process 0 could not open" in other
    assert (trained / "config.json").read_bytes() == before
