"""A sweep as jobs of submitit's local executor, which are the same as Slurm jobs. One job is killed."""

import os
import signal
from pathlib import Path

import pytest

from cnn_jax.errors import UsageError
from cnn_jax.sweep.cluster import SlurmWorkers
from cnn_jax.sweep.settings import SweepPlace
from tests.sweep.driving import begin, driver, evaluations, starts, until
from tests.sweep.test_kills import assert_complete, begun


def test_jobs_run_a_sweep_and_one_may_be_killed(tmp_path: Path) -> None:
    store = begin(tmp_path, points=9, config={"evaluations": 10, "pause": 0.2})
    with driver(tmp_path, 2, "slurm") as process:
        number = until(lambda: begun(tmp_path))
        (victim,) = starts(tmp_path, number)
        os.kill(victim, signal.SIGKILL)
        output = process.communicate()[0]
    assert process.returncode == 0, output
    assert_complete(tmp_path, store, count=9)
    assert len(starts(tmp_path, number)) == 2
    assert len(evaluations(tmp_path, number)) == 10


def test_no_slurm_here(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="slurm"):
        SlurmWorkers(SweepPlace(tmp_path), 1)
