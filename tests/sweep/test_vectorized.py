"""Trials that are trained together against the same trials trained alone."""

import contextlib
import json
import signal
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import config as configs
from cnn_jax import nn, ops
from cnn_jax import train as training
from cnn_jax.errors import Interrupted
from cnn_jax.metrics import Metric
from cnn_jax.sweep import space, vectorized
from cnn_jax.sweep.settings import Sweep, SweepPlace, write_sweep_file
from cnn_jax.sweep.store import Store
from cnn_jax.sweep.trial import Outcome, Trial, trial_directory
from cnn_jax.sweep.worker import work
from cnn_jax.tasks import default_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks.saved import load_run
from cnn_jax.train import groups
from tests.launch.process import started
from tests.sweep.driving import until

LOSS = Metric("validation/loss", better="lower")
VALUES: list[dict[str, Any]] = [
    {"optimizer.learning_rate": 0.1, "optimizer.momentum": 0.9, "seed": 0, "label_smoothing": 0.1},
    {"optimizer.learning_rate": 0.02, "optimizer.momentum": 0.5, "seed": 1, "label_smoothing": 0.2},
    {"optimizer.learning_rate": 0.3, "optimizer.momentum": 0.3, "seed": 1, "label_smoothing": 0.1},
    {"optimizer.learning_rate": 0.1, "optimizer.weight_decay": 0.01, "seed": 2, "label_smoothing": 0.1},
    {"optimizer.learning_rate": 1e30, "seed": 3, "label_smoothing": 0.1},
    {"batch_size": 80, "label_smoothing": 0.1},
]
DIVERGING, ODD = 4, 5


def make_trials(
    folder: Path, values: list[dict[str, Any]], *, model: str = "logistic_regression", epochs: int = 3
) -> list[Trial]:
    config = default_config()
    config.model.name = model
    config.data.train, config.data.validation, config.data.test = "train[:320]", "validation[:50]", "test[:50]"
    config.batch_size, config.epochs = 32, epochs
    config.optimizer.weight_decay, config.ema_decay = 1e-3, 0.9
    trials = []
    for number, row in enumerate(values):
        own = config.copy_and_resolve_references()
        own.update_from_flattened_dict(row)
        trials.append(Trial(number, row, own, trial_directory(folder, number)))
    return trials


def never(trial: Trial, evaluation: int, scores: Mapping[str, float]) -> bool:
    return False


def outcomes_of(trials: list[Trial], report: Any = never) -> Iterator[Outcome]:
    options = {"train": runs.train, "metric": "validation/loss", "reports": False}
    return vectorized.run_vectorized(trials, report=report, **options)


def run(trials: list[Trial], report: Any = never) -> dict[int, Outcome]:
    return {outcome.number: outcome for outcome in outcomes_of(trials, report)}


def assert_same_run(one: Path, other: Path) -> None:
    """Compares the records, the scores and the parameters of two runs."""
    rows, others = (training.read_records(folder) for folder in (one, other))
    assert len(rows) == len(others) > 0
    for row, wanted in zip(rows, others, strict=True):
        assert row.pop("split") == wanted.pop("split")
        assert row == pytest.approx(wanted, rel=1e-4)
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, other)]
    assert results[0]["scores"] == pytest.approx(results[1]["scores"], rel=1e-4)
    for checkpoint in ("latest", "best"):
        states = [
            load_run(configs.read_run_config(folder), folder, checkpoint=checkpoint)[1] for folder in (one, other)
        ]
        assert int(states[0].step) == int(states[1].step)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), states[0].params, states[1].params
        )


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Trial], dict[int, Outcome]]:
    trials = make_trials(tmp_path_factory.mktemp("sweep"), VALUES)
    return trials, run(trials)


@pytest.fixture(scope="module")
def trained_alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Trial], list[int]]:
    """The first trials, each trained alone, and the number of programs compiled for each."""
    trials = make_trials(tmp_path_factory.mktemp("alone"), VALUES[:3])
    events: list[str] = []

    def listen(event: str, seconds: float, **_: Any) -> None:
        events.append(event)

    jax.clear_caches()  # programs of other tests in this process
    jax.monitoring.register_event_duration_secs_listener(listen)
    counts = []
    for trial in trials:
        events.clear()
        runs.train(trial.config, trial.workdir, report=False)
        counts.append(events.count("/jax/core/compile/backend_compile_duration"))
    jax.monitoring.unregister_event_duration_listener(listen)
    return trials, counts


@pytest.fixture(scope="module")
def alone(trained_alone: tuple[list[Trial], list[int]]) -> list[Trial]:
    return trained_alone[0]


def test_runs_that_differ_only_in_traced_numbers_share_programs(trained_alone: tuple[list[Trial], list[int]]) -> None:
    first, *others = trained_alone[1]
    assert first > 3
    assert others == [0, 0]


def test_a_trial_ends_as_its_run_alone(swept: tuple[list[Trial], dict[int, Outcome]], alone: list[Trial]) -> None:
    trials, outcomes = swept
    for trial, wanted in zip(trials, alone, strict=False):
        assert outcomes[trial.number].state == "complete"
        score = json.loads((wanted.workdir / "result.json").read_text())["scores"]["validation/loss"]
        assert outcomes[trial.number].score == pytest.approx(score, rel=1e-4)
        assert_same_run(trial.workdir, wanted.workdir)


def test_lenet_5_is_trained_together_as_alone(tmp_path: Path) -> None:
    rate = "model.options.dropout_rate"
    values = [{"seed": 3, "optimizer.learning_rate": 0.05, rate: 0.2}, {"seed": 4, rate: 0.4}]
    together, (alone, _) = (
        make_trials(tmp_path / name, values, model="lenet_5_modern", epochs=1) for name in ("a", "b")
    )
    assert [outcome.state for outcome in run(together).values()] == ["complete"] * 2
    runs.train(alone.config, alone.workdir, report=False)
    assert_same_run(together[0].workdir, alone.workdir)


def test_diverging_trial_fails_with_its_reason_and_does_not_affect_the_others(
    swept: tuple[list[Trial], dict[int, Outcome]],
) -> None:
    outcome = swept[1][DIVERGING]
    assert (outcome.state, outcome.score) == ("failed", None)
    assert outcome.reason.startswith("the loss is nan at step")
    assert "\n" not in outcome.reason
    assert swept[1][3].state == "complete"


def test_trial_of_another_shape_is_trained_alone_and_logged(swept: tuple[list[Trial], dict[int, Outcome]]) -> None:
    trials, outcomes = swept
    assert outcomes[ODD].state == "complete"
    assert "trained alone: no other trial differs from it" in (trials[ODD].workdir / "log.txt").read_text()
    assert "5 trials in one program" in (trials[0].workdir / "log.txt").read_text()


def test_finished_trials_are_not_trained_again(swept: tuple[list[Trial], dict[int, Outcome]]) -> None:
    trials, outcomes = swept
    again = run(trials[:3])
    assert {number: outcome.score for number, outcome in again.items()} == {
        number: pytest.approx(outcomes[number].score) for number in again
    }


def test_an_interrupted_group_continues_where_it_stopped(tmp_path: Path, alone: list[Trial]) -> None:
    trials, seen = make_trials(tmp_path, VALUES[:3]), []

    def interrupt(trial: Trial, evaluation: int, scores: Mapping[str, float]) -> bool:
        seen.append((trial.number, evaluation))
        if (trial.number, evaluation) == (0, 2):
            signal.raise_signal(signal.SIGTERM)
        return False

    with pytest.raises(Interrupted, match="at step 20, saved"):
        run(trials, interrupt)
    seen.clear()
    while_they_end = outcomes_of(trials, interrupt)
    assert next(while_they_end).state == "complete"
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="at step 30, saved"):
        next(while_they_end)
    outcomes = run(trials, interrupt)
    assert seen == [(0, 3), (1, 3), (2, 3)]  # after the first interruption only the third evaluation is left
    assert {outcome.state for outcome in outcomes.values()} == {"complete"}
    for trial, wanted in zip(trials, alone, strict=True):
        assert_same_run(trial.workdir, wanted.workdir)


def test_killed_trials_of_one_program_are_finished_by_another_worker(tmp_path: Path, alone: list[Trial]) -> None:
    part, place = space.sweep(VALUES[:3]), SweepPlace(tmp_path)
    base = make_trials(tmp_path, [{}])[0].config
    sweep = Sweep(
        base,
        part,
        "cnn_jax.tasks.run:train",
        LOSS,
        3,
        sampler="grid",
        reports=False,
    )
    write_sweep_file(place, sweep)
    store = Store(place, sweep)
    trials = [tmp_path / "trials" / f"{number:04d}" for number in range(3)]
    worker = started("--mode=sweep-worker", f"--workdir={tmp_path}", "--runner=vectorized")
    with worker as process, contextlib.closing(sqlite3.connect(tmp_path / "sweep.db")) as other:
        until(lambda: all((trial / "config.json").exists() for trial in trials))
        other.execute("BEGIN IMMEDIATE")  # so that it waits when it reports its first evaluation
        until(lambda: all((trial / "metrics.jsonl").exists() and training.read_records(trial) for trial in trials))
        process.kill()
        process.communicate()
        other.rollback()
    assert [row.state for row in store.rows()] == ["waiting"] * 3
    assert work(store, kind="vectorized", batch=3) == 3
    assert [row.state for row in store.rows()] == ["complete"] * 3
    for trial, wanted in zip(trials, alone, strict=True):
        assert "3 trials in one program" in (trial / "log.txt").read_text()
        assert_same_run(trial, wanted.workdir)


def test_what_cannot_be_trained_together_is_known_before_anything_starts() -> None:
    def reason(part: space.Part, **changes: Any) -> str:
        base = default_config()
        base.update(changes.pop("config", {}))
        fields = {
            "train": "cnn_jax.tasks.run:train",
            "metric": LOSS,
            "points": 4,
        } | changes
        return vectorized.reason_against(Sweep(base, part, **fields))

    sizes, rates = space.sweep("batch_size", [16, 32]), space.sweep("optimizer.learning_rate", [0.1, 0.2])
    no_groups = "no two of its trials differ in numbers alone"
    assert reason(sizes, sampler="grid") == no_groups
    assert reason(sizes, sampler="grid", seeds=2) == ""
    assert reason(space.product(sizes, rates), sampler="grid") == ""
    assert reason(space.zipit(sizes, rates), sampler="grid") == no_groups
    assert reason(space.uniform("optimizer.momentum", 0.1, 0.9)) == ""
    assert reason(space.integers("batch_size", 16, 32)) == no_groups
    assert reason(rates, sampler="grid", config={"parallel": "pmap"}) == "parallel='pmap' is for one run"
    assert "has no function prepare" in reason(rates, train="tests.sweep.trivial:train")


def test_the_other_trials_continue_without_a_pruned_one(tmp_path: Path, alone: list[Trial]) -> None:
    trials = make_trials(tmp_path, VALUES[:4])
    outcomes = run(trials, lambda trial, evaluation, scores: trial.number in (0, 3) and evaluation == 1)
    assert [outcomes[number].state for number in range(4)] == ["pruned", "complete", "complete", "pruned"]
    assert outcomes[0].reason == "pruned at evaluation 1"
    assert outcomes[0].score is not None
    assert_same_run(trials[2].workdir, alone[2].workdir)


def test_a_value_out_of_range_fails_with_the_line_of_a_run_alone(tmp_path: Path) -> None:
    values = [{"optimizer.momentum": 0.5}, {"optimizer.momentum": 0.6}, {"optimizer.momentum": 1.5}]
    outcomes = run(make_trials(tmp_path, values))
    assert [outcomes[number].state for number in range(3)] == ["complete", "complete", "failed"]
    assert outcomes[2].reason == "optimizer.momentum=1.5 must be at least 0 and below 1"


def test_groups_too_large_for_the_memory_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = make_trials(tmp_path, VALUES[:3])
    preparation = runs.prepare(trials[0].config, tmp_path)
    program = training.VectorizedProgram(preparation.program(trials[0].config, training.ONE_DEVICE))
    monkeypatch.setattr(groups, "lanes", lambda: jax.local_devices()[:1])
    (device,) = groups.lanes()
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.program.template))

    def needed(size: int) -> int:
        found = program.steps(size, device).memory_analysis()
        all_in = found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes
        return all_in - found.alias_size_in_bytes + size * state  # the states of the best evaluations

    one, two, three = map(needed, (1, 2, 3))
    for room, fits in (
        (three + 6 * state, (3, 6)),  # a second stack is held while the first one is advanced
        (three + 5 * state, (3, 3)),
        (two, (2, 2)),
        (one - 1, (0, 0)),
    ):
        monkeypatch.setattr(groups, "free_bytes", lambda device, room=room: (room + 0.5) / groups.MEMORY_FRACTION)
        assert program.fitting(3) == fits


def test_dropout_with_several_rates_under_vmap() -> None:
    x, key, rates = jnp.ones((4, 50)), jax.random.key(0), jnp.array([0.0, 0.25, 0.5])
    many = jax.vmap(lambda rate: nn.Dropout(rate)(x, train=True, rngs=key))(rates)
    for rate, one in zip(rates.tolist(), many, strict=True):
        np.testing.assert_allclose(one, ops.dropout(x, rate, key=key), rtol=1e-6)
