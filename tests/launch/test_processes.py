"""Several processes of ``launch.py`` in one distributed run."""

import contextlib
import json
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.launch.process import started

PROCESSES = 2


def free_port(ports: range = range(1)) -> int:
    """A free port in a range; by default any free port."""
    for port in ports:
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("localhost", port))
            return free.getsockname()[1]
    raise OSError("all ports are in use")


def together(*arguments: str, each: Callable[[int], Sequence[str]]) -> list[tuple[int, str]]:
    """Exit code and output of each process; ``each`` returns its own flags."""
    with contextlib.ExitStack() as running:
        processes = [
            running.enter_context(started("--config=configs/lenet5_digits.py:smoke", *arguments, *each(number)))
            for number in range(PROCESSES)
        ]
        printed = [process.communicate(timeout=300)[0] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, printed, strict=True)]


def test_two_processes_that_stream_score_what_one_does_and_write_once(trained: Path, tmp_path: Path) -> None:
    """Each process reads its half of every batch."""
    address = f"--coordinator_address=localhost:{free_port()}"
    (first, printed), (second, silent) = together(
        f"--workdir={tmp_path / 'run'}",
        "--config.data.loading=stream",
        "--config.data.workers=0",
        each=lambda number: [address, f"--num_processes={PROCESSES}", f"--process_id={number}"],
    )
    assert (first, second) == (0, 0), printed + silent
    assert "test accuracy" in printed
    assert "accuracy" not in silent
    one, two = (json.loads((run / "result.json").read_text()) for run in (trained, tmp_path / "run"))
    assert two["scores"] == pytest.approx(one["scores"], rel=1e-3)
    lines = [len((run / "metrics.jsonl").read_text().splitlines()) for run in (trained, tmp_path / "run")]
    assert lines[0] == lines[1]


def test_an_error_ends_all_processes_that_the_scheduler_started(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (trained / "config.json").read_bytes()
    monkeypatch.setenv("SLURM_JOB_ID", str(free_port(range(61440, 65536)) - 61440))  # JAX computes the port from it
    monkeypatch.setenv("SLURM_STEP_NODELIST", "localhost")
    monkeypatch.setenv("SLURM_NTASKS", str(PROCESSES))

    def each(number: int) -> list[str]:
        for name in ("SLURM_PROCID", "SLURM_LOCALID"):
            monkeypatch.setenv(name, str(number))
        return ["--distributed"]

    (first, printed), (second, other) = together(f"--workdir={trained}", "--config.seed=3", each=each)
    assert (first, second) == (2, 2), printed + other
    assert "seed: 0 -> 3" in printed
    assert "seed: 0 -> 3" in other
    assert (trained / "config.json").read_bytes() == before
