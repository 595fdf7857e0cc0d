"""Killed processes of a sweep: every trial is finished or continued, and is in the results once."""

import json
import os
import signal
from pathlib import Path

from cnn_jax.sweep import space
from cnn_jax.sweep.store import Store
from cnn_jax.sweep.table import read_table
from tests.sweep import trivial
from tests.sweep.driving import begin, driver, evaluations, starts, until


def assert_complete(directory: Path, store: Store, *, count: int) -> None:
    """Every trial is in the table once, with its own score, and each of its evaluations was done once."""
    rows = read_table(directory)
    assert [row.number for row in rows] == list(range(count))
    assert [row.state for row in rows] == ["complete"] * count
    config = trivial.default_config()
    for row in rows:
        config.rate = row.overrides["rate"]
        assert row.score == trivial.score(config)
        found = [json.loads(line)["step"] for line in evaluations(directory, row.number)]
        assert found == list(range(1, store.sweep.config.evaluations + 1))


def begun(directory: Path) -> int | None:
    """A trial that has done some of its evaluations; not the first trial, so that 0 is not confused with None."""
    return next((trial for trial in range(1, 9) if 0 < len(evaluations(directory, trial)) < 5), None)


def test_kill_a_worker_and_then_the_driver(tmp_path: Path) -> None:
    store = begin(tmp_path, points=9, config={"evaluations": 10, "pause": 0.1})
    with driver(tmp_path) as first:
        number = until(lambda: begun(tmp_path))
        (victim,) = starts(tmp_path, number)
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(starts(tmp_path, number)) == 2)  # the other worker, or its replacement, continues
        until(lambda: begun(tmp_path))
        workers = {pid for trial in range(9) for pid in starts(tmp_path, trial)} - {victim}
        first.kill()
    until(lambda: not any(_lives(pid) for pid in workers))  # workers end when their driver has ended
    until(lambda: "running" not in {row.state for row in store.rows()})  # nor does one that had only begun to start
    with driver(tmp_path) as second:
        output = second.communicate()[0]
    assert second.returncode == 0, output
    assert_complete(tmp_path, store, count=9)


def test_two_drivers_share_the_work(tmp_path: Path) -> None:
    store = begin(tmp_path, points=8, config={"evaluations": 4, "pause": 0.1})
    with driver(tmp_path, workers=1) as first, driver(tmp_path, workers=1) as second:
        outputs = [process.communicate()[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    assert_complete(tmp_path, store, count=8)
    begun = [starts(tmp_path, number) for number in range(8)]
    assert all(len(pids) == 1 for pids in begun)
    assert len({pids[0] for pids in begun}) == 2, "one of them did everything"
    assert outputs[0].count("trial ") == outputs[1].count("trial ") == 8  # both show all trials


def test_ctrl_c_saves_and_the_sweep_can_be_continued(tmp_path: Path) -> None:
    store = begin(tmp_path, points=4, config={"evaluations": 5, "pause": 0.1})
    with driver(tmp_path) as process:
        until(lambda: evaluations(tmp_path, 1))
        process.send_signal(signal.SIGINT)
        output = process.communicate()[0]
    assert process.returncode == 130, output
    assert f"to continue: python launch.py --mode=sweep --workdir={tmp_path}" in output
    assert (tmp_path / "sweep.csv").exists()
    assert {row.state for row in store.rows()} <= {"complete", "waiting"}
    with driver(tmp_path) as again:
        output = again.communicate()[0]
    assert again.returncode == 0, output
    assert_complete(tmp_path, store, count=4)


def test_trials_that_end_their_processes_fail_and_do_not_affect_the_others(tmp_path: Path) -> None:
    """They are the first trials, and each attempt ends a worker."""
    kinds = ["exits", "crashes", "a", "b"]
    store = begin(tmp_path, space=space.sweep("kind", kinds), sampler="grid", points=4)
    with driver(tmp_path) as process:
        output = process.communicate()[0]
    assert process.returncode == 0, output
    rows = store.rows()
    assert [row.overrides["kind"] for row in rows] == kinds
    assert [row.state for row in rows] == ["failed", "failed", "complete", "complete"]
    for number, row in enumerate(rows):
        failed = row.state == "failed"
        assert len(starts(tmp_path, number)) == (3 if failed else 1)
        assert ("ended 3 times at the same place" in row.reason) == failed


def test_workers_that_fail_at_once_are_not_restarted_forever(tmp_path: Path) -> None:
    begin(tmp_path, points=4, train="no.such.module:train")
    with driver(tmp_path, workers=1) as process:
        output = process.communicate()[0]
    assert process.returncode == 2
    assert "No module named 'no'" in output


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
