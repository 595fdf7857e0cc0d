"""The plan's arithmetic, and the loop with a task that is not a network."""

import gzip
import json
import shutil
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import train
from cnn_jax.errors import Interrupted, UsageError
from cnn_jax.train.pace import Pace
from tests.train.test_step import evaluate, loss, problem

OPTIMIZER = optax.sgd(0.05)


def task(monitor: str = "test/loss", optimizer=OPTIMIZER, loss=loss, **options) -> train.Problem:
    return train.Problem(
        init=lambda key: train.create_state(key, {"w": jnp.zeros(3)}, {"seen": jnp.int32(0)}, optimizer),
        step=train.make_step(loss, optimizer, **options),
        evaluate=evaluate,
        train_examples=problem(),
        eval_examples={"test": problem()},
        metrics=[train.Metric("loss", better="lower")],
        monitor=monitor,
    )


def run(
    directory: Path, *, epochs: int, every: int = 1, profile: int = 0, patience: int = 0, target=None, **options
) -> train.Trained:
    """Trains for some epochs of 5 steps, and evaluates every so many epochs."""
    ends = {"patience": patience, "target": target}
    steps = {"total_steps": 5 * epochs, "evaluate_every": 5 * every, "steps_per_call": 2}
    plan = train.Plan(batch_size=4, num_examples=23, **steps, **ends)
    return train.train(train.Program(task(**options), plan), seed=0, directory=directory, profile=profile)


def test_records_cover_every_epoch_exactly() -> None:
    for examples, batch, most in [(23, 4, 2), (100, 10, 100), (467, 1, 100), (1000, 10, 30), (60, 5, 7)]:
        steps = examples // batch
        plan = train.Plan(
            batch_size=batch,
            num_examples=examples,
            total_steps=3 * steps,
            evaluate_every=2 * steps,
            steps_per_call=most,
        )
        step, ends = 0, []
        while step < plan.total_steps:
            length = plan.next_record(step) - step
            assert 1 <= length <= plan.longest_call <= most
            assert plan.next_record(step + length // 2) == plan.next_record(step + length - 1) == step + length
            step += length
            ends.append(step)
        assert step == 3 * (examples // batch)
        if steps >= most / 4:
            assert {steps, 2 * steps, 3 * steps} <= set(ends), "a record crosses the end of an epoch"
        else:
            assert ends == [2 * steps, 3 * steps], "there are more records than needed"
        assert len({b - a for a, b in zip([0, *ends], ends, strict=False)}) <= 2, "records at uneven distances"


def test_evaluates_at_intervals_and_at_the_end() -> None:
    plan = train.Plan(batch_size=10, num_examples=50, total_steps=35, evaluate_every=15)
    assert [step for step in range(36) if plan.evaluates_at(step)] == [15, 30, 35]


def test_records_are_at_evaluations_within_an_epoch() -> None:
    plan = train.Plan(batch_size=1, num_examples=12, total_steps=20, evaluate_every=5, steps_per_call=6)
    step, ends = 0, []
    while step < 20:
        step = plan.next_record(step)
        ends.append(step)
    assert ends == [5, 10, 12, 15, 20]


@pytest.mark.parametrize("name", ["batch_size", "total_steps", "evaluate_every", "steps_per_call"])
def test_plan_rejects_values_below_one(name: str) -> None:
    good = {"batch_size": 1, "total_steps": 1, "evaluate_every": 1, "steps_per_call": 1}
    with pytest.raises(UsageError, match=f"{name}=0"):
        train.Plan(num_examples=10, **{**good, name: 0})


def test_learns_least_squares(tmp_path: Path) -> None:
    trained = run(tmp_path, epochs=60, every=30)
    np.testing.assert_allclose(trained.state.params["w"], [1.0, -2.0, 0.5], atol=1e-3)
    assert trained.scores["test/loss"] < 1e-5


def test_best_checkpoint_of_a_loss_is_the_lowest(tmp_path: Path) -> None:
    run(tmp_path, epochs=5)
    rows = [row for row in train.read_records(tmp_path) if row["split"] == "test"]
    best = min(rows, key=lambda row: row["loss"])
    with train.Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.best_step() == best["step"]
        assert checkpoints.steps()[-1] == rows[-1]["step"] == 25


def test_checkpoint_restores_every_bit_and_the_key(tmp_path: Path) -> None:
    trained = run(tmp_path, epochs=2)
    with train.Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore(jax.eval_shape(task().init, jax.random.key(0)))
    assert restored is not None
    assert train.digest(restored.state) == train.digest(trained.state)
    assert restored.state.key == jax.random.key(0)


def test_unknown_monitor_names_the_real_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'test'"):
        run(tmp_path, epochs=1, monitor="tset/loss")
    with pytest.raises(UsageError, match="did you mean 'test/loss'"):
        run(tmp_path, epochs=1, monitor="test/los")


def test_stops_when_patience_ends_and_so_does_a_continued_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate of 0 leaves every evaluation as good as the first, at step 5."""
    options = {"epochs": 9, "patience": 10, "optimizer": optax.sgd(0.0)}
    trained = run(tmp_path, **options)
    assert int(trained.state.step) == 15
    assert "test/loss has not improved since step 5" in capsys.readouterr().out
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    assert int(run(tmp_path, **options).state.step) == 15, "a finished run is left as it is"
    shutil.rmtree(tmp_path / "checkpoints" / "15")
    again = run(tmp_path, **options)
    assert "continuing from step 10" in capsys.readouterr().out
    assert int(again.state.step) == 15
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole


def test_stops_at_the_first_evaluation_that_reaches_the_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = run(tmp_path, epochs=60, target=0.01).state
    assert "test/loss has reached the target" in capsys.readouterr().out
    losses = [row["loss"] for row in train.read_records(tmp_path) if row["split"] == "test"]
    assert losses[-1] <= 0.01 < losses[-2]
    assert int(state.step) == 5 * len(losses) < 300
    assert int(run(tmp_path, epochs=60, target=0.01).state.step) == int(state.step), "a finished run is left as it is"


def test_run_ends_after_too_many_skipped_steps(tmp_path: Path) -> None:
    def broken(params, model_state, batch, key):
        value, (metrics, model_state) = loss(params, model_state, batch, key)
        return jnp.inf * value, (metrics, model_state)

    with pytest.raises(UsageError, match=r"^1 of the first 1 steps .* max_skipped=0; no checkpoint"):
        run(tmp_path, epochs=2, loss=broken, on_nonfinite="skip")


def test_weights_made_invalid_by_the_last_step_of_an_epoch_are_not_saved(tmp_path: Path) -> None:
    """The loss of each step is finite: it is computed with the weights before the step."""
    optimizer = optax.sgd(lambda step: jnp.where(step == 9, jnp.inf, 0.05))
    with pytest.raises(
        UsageError, match=r"^the test/loss is (nan|inf) after step 10; the checkpoint of step 5 is kept"
    ):
        run(tmp_path, epochs=4, optimizer=optimizer)
    with train.Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [5]


def test_profile_writes_a_trace_and_does_not_change_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = run(tmp_path / "plain", epochs=1)
    traced = run(tmp_path / "traced", epochs=1, profile=20)
    assert train.digest(traced.state) == train.digest(plain.state)
    (trace,) = (tmp_path / "traced" / "profile").rglob("perfetto_trace.json.gz")
    assert f"traced 5 steps: open {trace}" in capsys.readouterr().out, "there are no more"
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert any("fusion" in event.get("name", "") for event in events), "what the compiled steps are made of"
    (for_tensorboard,) = (tmp_path / "traced" / "profile" / "plugins" / "profile").glob("*/*.xplane.pb")
    assert b"fusion" in for_tensorboard.read_bytes()
    run(tmp_path / "traced", epochs=1, profile=2)
    assert "nothing is left to trace" in capsys.readouterr().out


@pytest.fixture(scope="module")
def program() -> train.Program:
    """A program with two records per epoch of five steps, and evaluations of six batches."""
    plan = train.Plan(batch_size=4, num_examples=23, total_steps=10, evaluate_every=5, steps_per_call=3)
    return train.Program(task(), plan)


@pytest.fixture(scope="module")
def undisturbed(program: train.Program, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    directory = tmp_path_factory.mktemp("undisturbed")
    return train.digest(train.train(program, seed=0, directory=directory).state), metrics_of(directory)


def metrics_of(directory: Path) -> bytes:
    return (directory / "metrics.jsonl").read_bytes()


# Compiled calls of one step or one batch each: 5 steps, 6 batches, 5 steps, 6 batches.
@pytest.mark.parametrize("call", [2, 5, 6, 9, 11, 21])
def test_a_run_stopped_before_any_call_continues_to_the_same_bits(
    call: int,
    program: train.Program,
    undisturbed: tuple[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0

    def next_call(self: Pace, left: int) -> int:
        nonlocal calls
        calls += 1
        if calls == call:
            signal.raise_signal(signal.SIGTERM)
        return 1

    with monkeypatch.context() as patched:
        patched.setattr(Pace, "next", next_call)
        with pytest.raises(Interrupted, match="stopped by SIGTERM at step"):
            train.train(program, seed=0, directory=tmp_path)
    assert calls == call, "what was under way is the last"
    trained = train.train(program, seed=0, directory=tmp_path)
    assert (train.digest(trained.state), metrics_of(tmp_path)) == undisturbed
    with train.Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps()[-2:] == [5, 10]
        best = min((row for row in train.read_records(tmp_path) if row["split"] == "test"), key=lambda row: row["loss"])
        assert checkpoints.best_step() == best["step"]
    assert all(path.name.isdigit() for path in (tmp_path / "checkpoints").iterdir())
