"""The storage of trials: each is claimed once, finished once and never lost; pruning and stopping."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric
from cnn_jax.sweep import space
from cnn_jax.sweep.database import open_storage
from cnn_jax.sweep.leases import Leases, this_process
from cnn_jax.sweep.settings import Sweep, SweepPlace, read_sweep_file, write_sweep_file
from cnn_jax.sweep.store import LeaseLost, Store
from cnn_jax.sweep.trial import Outcome
from cnn_jax.sweep.worker import work
from tests.launch.process import started
from tests.sweep import trivial
from tests.sweep.driving import until

METRIC = "validation/accuracy"


@pytest.fixture
def place(tmp_path: Path) -> SweepPlace:
    return SweepPlace(tmp_path)


def described(**options: Any) -> Sweep:
    part = options.pop("space", space.uniform("rate", 0.0, 1.0))
    config = trivial.default_config()
    config.update(options.pop("config", {}))
    return Sweep(
        config,
        part,
        train="tests.sweep.trivial:train",
        metric=trivial.METRIC,
        **{"points": 4, **options},
    )


ELSEWHERE = "elsewhere/1:1"


def gone(number: int) -> str:
    """The name of a process of this machine that has ended; each number gives another process."""
    return f"{this_process().rpartition(':')[0]}:-{number}"


def study(place: SweepPlace) -> optuna.Study:
    """The sweep as Optuna sees it."""
    return optuna.load_study(study_name=place.study, storage=place.url)


def test_two_workers_never_have_the_same_trial(place: SweepPlace) -> None:
    first = Store(place, described(points=6))
    second = Store(place, owner=ELSEWHERE)
    claimed = [store.claim() for store in (first, second, first, second)]
    assert [trial.number for trials in claimed for trial in trials or ()] == [0, 1, 2, 3]
    assert [trial.number for trial in first.claim(most=5) or ()] == [4, 5]
    assert second.claim() == []


def test_a_file_is_not_shared_between_machines(place: SweepPlace) -> None:
    store = Store(place, described())
    study(place).set_user_attr("machine", {"name": "far.away", "boot": "another"})
    with pytest.raises(UsageError, match=r"run from far.away: without --storage .* --storage=postgresql://"):
        work(store)
    store.note_driver()
    assert work(store) == 4


def test_trial_is_an_ordinary_run_with_the_values_in_its_config(place: SweepPlace) -> None:
    store = Store(place, described(space=space.sweep("rate", [0.25]), sampler="grid", points=1, seeds=2))
    trials = store.claim(most=2)
    assert trials is not None
    assert [trial.config.seed for trial in trials] == [0, 1]
    assert [trial.overrides for trial in trials] == [{"rate": 0.25, "seed": 0}, {"rate": 0.25, "seed": 1}]
    assert [trial.workdir for trial in trials] == [place.directory / "trials/0000", place.directory / "trials/0001"]
    assert [trial.point for trial in trials] == [0, 0]


def test_only_the_owner_of_a_trial_reports_its_outcome_and_only_once(place: SweepPlace) -> None:
    store = Store(place, described())
    (trial,) = store.claim() or ()
    assert not Store(place, owner=ELSEWHERE).finish(Outcome(0, "complete", 0.1))
    assert store.finish(Outcome(0, "complete", 0.5, seconds=2.0))
    assert not store.finish(Outcome(0, "complete", 0.9))
    (row,) = store.rows()
    assert (row.state, row.score, row.mean, row.std, row.seconds) == ("complete", 0.5, 0.5, 0.0, 2.0)
    with pytest.raises(LeaseLost):
        store.report(trial, 1, {METRIC: 0.0})


def test_trial_of_a_process_that_was_killed_is_claimed_again(place: SweepPlace) -> None:
    sweep = described(config={"pause": 100.0})
    write_sweep_file(place, sweep)
    store = Store(place, sweep)
    with started("--mode=sweep-worker", f"--workdir={place.directory}"):
        until(lambda: [row.state for row in store.rows()] == ["running"])
        assert [trial.number for trial in store.claim() or ()] == [1]
    assert [row.state for row in store.rows()] == ["waiting", "running"]
    assert [trial.number for trial in store.claim() or ()] == [0]


def test_owner_on_another_machine_is_dead_after_missing_heartbeats(
    place: SweepPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(place, described())
    elsewhere = Store(place, owner=ELSEWHERE)
    assert [trial.number for trial in elsewhere.claim() or ()] == [0]
    now = 1000.0
    monkeypatch.setattr("cnn_jax.sweep.leases.time.monotonic", lambda: now)

    def state_after(*seconds: int) -> str:
        nonlocal now
        for passed in seconds:
            now += passed
            state = store.rows()[0].state
        return state

    assert state_after(0, 13, 13, 13) == "running"
    Leases(open_storage(place).engine, place.study, owner=ELSEWHERE).beat()
    assert state_after(13, 13, 13) == "running"
    assert state_after(13) == "running", "the last heartbeat was 39 seconds ago"
    assert state_after(100) == "running", "the database was down, so no heartbeat could be received"
    assert state_after(13, 13, 13) == "running"
    assert state_after(2) == "waiting"
    (trial,) = store.claim() or ()
    assert trial.number == 0
    with pytest.raises(LeaseLost):
        elsewhere.report(trial, 1, {METRIC: 0.5})
    assert not elsewhere.finish(Outcome(0, "complete", 0.5))


def test_deaths_under_an_earlier_driver_do_not_count(place: SweepPlace) -> None:
    """A whole sweep can be killed and continued any number of times without failing a trial."""
    for number in range(5):
        driver = Store(place, described(points=1), owner=gone(number))
        driver.note_driver()
        assert [trial.number for trial in driver.claim() or ()] == [0], f"after {number} kills"


def test_returned_trial_waits(place: SweepPlace) -> None:
    store = Store(place, described())
    (trial,) = store.claim() or ()
    store.give_back(trial)
    assert [row.state for row in store.rows()] == ["waiting"]
    assert [trial.number for trial in Store(place, owner=ELSEWHERE).claim() or ()] == [0]


def test_trial_that_repeatedly_kills_its_worker_fails(place: SweepPlace) -> None:
    store = Store(place, described(points=1))
    claims = [Store(place, owner=gone(death)).claim() for death in range(4)]
    assert [[trial.number for trial in claimed or ()] for claimed in claims] == [[0], [0], [0], []]
    assert store.claim() is None
    (row,) = store.rows()
    assert row.state == "failed"
    assert "3 times at the same place" in row.reason


@pytest.mark.parametrize("sampler", ["sobol", "grid", "tpe", "cmaes"])
def test_worker_runs_a_sweep_to_its_end(sampler: str, place: SweepPlace) -> None:
    part = space.product(space.integers("seed", 0, 2), space.sweep("kind", ["a", "b"]))
    store = Store(place, described(space=part, sampler=sampler, points=5))
    assert work(store) == 5
    rows = store.rows()
    assert [row.state for row in rows] == ["complete"] * 5
    assert store.claim() is None
    config = trivial.default_config()
    for row in rows:
        config.seed = row.overrides["seed"]
        assert row.score == trivial.score(config)


def test_points_have_the_mean_and_deviation_of_their_runs(place: SweepPlace) -> None:
    store = Store(place, described(points=2, seeds=3))
    assert work(store) == 6
    for row in store.rows():
        own = [other.score for other in store.rows() if other.point == row.point]
        assert row.mean == pytest.approx(sum(own) / 3)
        assert row.std == pytest.approx(0.001)  # of x, x + 0.001, x + 0.002


def test_point_with_missing_runs_is_completed(place: SweepPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    add = optuna.Study.add_trial
    calls = iter([add, add])
    monkeypatch.setattr(optuna.Study, "add_trial", lambda *arguments: next(calls, _die)(*arguments))
    with pytest.raises(KeyboardInterrupt):
        Store(place, described(points=2, seeds=3, sampler="tpe")).claim()
    monkeypatch.undo()
    again = Store(place)
    assert work(again) == 6
    rows = again.rows()
    assert [row.point for row in rows] == [0, 0, 0, 1, 1, 1]
    assert [row.overrides["seed"] for row in rows] == [0, 1, 2] * 2
    assert len({row.overrides["rate"] for row in rows[:3]}) == 1


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_successive_halving_prunes_the_worse_ones_and_all_runs_of_a_point(place: SweepPlace) -> None:
    grid = space.sweep("rate", [0.3, 0.35, 0.9, 0.32, 1.0, 0.95])  # the best is 0.3
    store = Store(
        place, described(space=grid, sampler="grid", points=6, seeds=2, pruner="halving", config={"evaluations": 5})
    )
    work(store)
    states = {row.overrides["rate"]: set() for row in store.rows()}
    for row in store.rows():
        states[row.overrides["rate"]].add(row.state)
    assert states == {
        0.3: {"complete"},
        0.35: {"pruned"},
        0.9: {"pruned"},
        0.32: {"pruned"},
        1.0: {"pruned"},
        0.95: {"pruned"},
    }
    assert not (place.directory / "trials/0002/result.json").exists()
    assert "pruned at evaluation 1" in store.rows()[2].reason


def test_hyperband_prunes_once_it_knows_how_long_runs_are(place: SweepPlace) -> None:
    store = Store(place, described(points=12, pruner="hyperband", config={"evaluations": 9}))
    work(store)
    rows = store.rows()
    assert rows[0].state == "complete"
    assert 0 < sum(row.state == "pruned" for row in rows) < 12
    best = max(rows, key=lambda row: -abs(row.overrides["rate"] - 0.3))
    assert best.state == "complete"


def test_three_equal_failures_at_the_start_end_the_sweep(place: SweepPlace) -> None:
    store = Store(place, described(points=50, config={"raises": "no such\ndata set"}))
    work(store)
    assert [(row.state, row.reason) for row in store.rows()] == [("failed", "ValueError: no such data set")] * 3
    assert store.failure() == "ValueError: no such data set"
    assert "raise ValueError" in (place.directory / "trials/0000/log.txt").read_text()


def test_a_later_failure_does_not_end_the_sweep(place: SweepPlace) -> None:
    part = space.sweep("raises", ["", "a", "b", "c", "c", "c", ""])
    store = Store(place, described(space=part, sampler="grid", points=7))
    work(store)
    assert [row.state for row in store.rows()] == ["complete", *["failed"] * 5, "complete"]
    assert store.failure() is None


def test_metric_that_the_run_does_not_have(place: SweepPlace) -> None:
    sweep = Sweep(**{**vars(described(points=3)), "metric": Metric("validation/acuracy", "higher")})
    store = Store(place, sweep)
    work(store)
    assert "validation/acuracy" in (store.failure() or "")


def test_sweep_can_be_read_by_optunas_own_tools(place: SweepPlace) -> None:
    work(Store(place, described(points=3)))
    assert place.study == "sweep"
    trials = study(place).trials
    assert [set(trial.params) for trial in trials] == [{"rate"}] * 3
    assert study(place).best_value == max(trial.value for trial in trials)


def test_sweep_file_keeps_everything_but_the_password(tmp_path: Path) -> None:
    sweep = described(
        space=space.product(space.sweep("rate", [0.1]), space.when("kind", "a", space.integers("seed", 0, 1)))
    )
    write_sweep_file(SweepPlace(tmp_path, "postgresql://me:secret@host/db"), sweep)
    assert "secret" not in (tmp_path / "sweep.json").read_text()
    with pytest.raises(UsageError, match="--storage=postgresql"):
        read_sweep_file(tmp_path)
    place, read = read_sweep_file(tmp_path, storage="postgresql://me:secret@host/db")
    assert place.url == "postgresql+psycopg://me:secret@host/db"
    assert read.to_json() == sweep.to_json()


def test_storage_that_cannot_be_opened(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/missing/sweep.db", "postgres", "nosuchdb://host/db"):
        with pytest.raises(UsageError) as found:
            Store(SweepPlace(tmp_path, url), described())
        assert "\n" not in str(found.value)
        assert url in str(found.value)


def test_worker_that_is_asked_to_stop_returns_its_trial(place: SweepPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(place, described(points=3))
    train: Callable[..., None] = trivial.train

    def stopped(*arguments: Any, **options: Any) -> None:
        train(*arguments, **options)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trivial, "train", stopped)
    with pytest.raises(Exception, match="SIGTERM"):
        work(store)
    assert [row.state for row in store.rows()] == ["complete"]
    monkeypatch.undo()
    assert work(store) == 2
