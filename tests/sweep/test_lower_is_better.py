"""A metric for which lower is better, with any name: the best checkpoint, early stopping, a sweep and its page."""

import ast
import shlex
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import optax
import pytest
from ml_collections import ConfigDict

from cnn_jax import train as training
from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric, metric_of
from cnn_jax.runtime.files import write_json
from cnn_jax.sweep import space
from cnn_jax.sweep.driver import write_results
from cnn_jax.sweep.settings import Sweep, SweepPlace
from cnn_jax.sweep.store import Store
from cnn_jax.sweep.table import best_row
from cnn_jax.sweep.worker import work
from tests.train.test_step import loss, problem

RMSE = Metric("rmse", better="lower", unit="px")


def program(evaluate: Any, *, rate: float = 0.05, **ends: Any) -> training.Program:
    """Linear regression with five steps per epoch."""
    optimizer = optax.sgd(rate)
    task = training.Problem(
        init=lambda key: training.create_state(key, {"w": jnp.zeros(3)}, {"seen": jnp.int32(0)}, optimizer),
        step=training.make_step(loss, optimizer),
        evaluate=evaluate,
        train_examples=problem(),
        eval_examples={"test": problem()},
        metrics=[RMSE],
        monitor="test/rmse",
    )
    return training.Program(
        task, training.Plan(batch_size=4, num_examples=23, evaluate_every=5, **{"total_steps": 30, **ends})
    )


def valley(state: training.TrainState, batch: training.Batch) -> training.Metrics:
    """11 px at the start, decreasing until step 10, and then increasing."""
    return {"rmse": (jnp.abs(state.step.astype(jnp.float32) - 10) + 1, jnp.ones(()))}


def distance(state: training.TrainState, batch: training.Batch) -> training.Metrics:
    """The distance of the weights from those that generated the examples."""
    return {"rmse": (jnp.linalg.norm(state.params["w"] - jnp.array([1.0, -2.0, 0.5])), jnp.ones(()))}


def test_best_checkpoint_is_the_lowest(tmp_path: Path) -> None:
    training.train(program(valley), seed=0, directory=tmp_path)
    with training.Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.best_step() == 10
        assert checkpoints.steps() == [10, 25, 30]


def test_patience_counts_evaluations_that_are_not_lower(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = training.train(program(valley, patience=10), seed=0, directory=tmp_path)
    assert int(trained.state.step) == 20
    printed = capsys.readouterr().out
    assert "test/rmse 1 px" in printed
    assert "stopped at step 20: test/rmse has not improved since step 10" in printed


def test_target_is_reached_from_above(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = training.train(program(valley, target=3.0), seed=0, directory=tmp_path)
    assert int(trained.state.step) == 10
    assert "test/rmse has reached the target, 1 px" in capsys.readouterr().out


def train(config: ConfigDict, directory: Path, *, report: bool, on_evaluation: Any) -> None:
    """Trains one trial."""
    directory.mkdir(parents=True, exist_ok=True)
    one = program(distance, rate=config.rate, total_steps=15)
    trained = training.train(one, seed=0, directory=directory, on_evaluation=on_evaluation)
    write_json(directory / "result.json", {"scores": trained.scores})


def test_sweep_prunes_high_values_and_finds_the_lowest(tmp_path: Path) -> None:
    rates = [0.001, 0.02, 0.01, 0.1, 0.005, 0.05]
    part, metric = space.sweep("rate", rates), RMSE.of("test")
    sweep = Sweep(
        ConfigDict({"rate": 0.1}), part, f"{__name__}:train", metric, 6, sampler="grid", pruner="halving", reports=False
    )
    folder = tmp_path / 'of "rates"? %20 \\c'
    folder.mkdir()
    store = Store(SweepPlace(folder), sweep)
    work(store)
    rows = store.rows()
    first = []
    for row in rows:
        curve = training.read_records(folder / "trials" / f"{row.number:04d}")
        first.append(next(line["rmse"] for line in curve if line["split"] == "test"))
    # With fewer than eight trials, successive halving continues a trial that is better than all before it.
    expected = ["complete" if value <= min(first[: k + 1]) else "pruned" for k, value in enumerate(first)]
    assert [row.state for row in rows] == expected
    assert len(set(expected)) == 2
    complete = {row.number: row.score for row in rows if row.state == "complete"}
    best = best_row(rows, metric)
    assert best is not None
    assert best.score == min(complete.values()) < max(complete.values())
    write_results(sweep, folder, rows)
    page = (folder / "sweep.html").read_text()
    assert "test/rmse, lower is better" in page
    assert f"{best.score:.3g} px" in page
    said = ast.get_docstring(ast.parse((folder / "best.py").read_text())) or ""
    assert f"rate = {best.overrides['rate']!r}" in said
    assert shlex.split(said.rpartition("Command:")[2])[-1] == f"--config={folder / 'best.py'}"


def test_a_sweep_of_an_earlier_version_keeps_its_direction_and_its_sampler(tmp_path: Path) -> None:
    fields = Sweep(ConfigDict({"rate": 0.1}), space.sweep("rate", [0.1]), "", RMSE, 1).to_json()
    names = {"test/loss": ("lower", ""), "test/error": ("lower", "%"), "test/accuracy": ("higher", "%")}
    for name, (better, unit) in names.items():
        assert Sweep.from_json({**fields, "metric": name}).metric == Metric(name, better, unit)
    assert Sweep.from_json(fields).metric == RMSE
    del fields["sampler"]
    fields["engine"] = "tpe"
    assert Sweep.from_json(fields).sampler == "tpe"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Metric("rmse", better="low"), "better='low' is unknown"),
        (lambda: metric_of("rmse", [RMSE]), "must be split/metric, such as 'validation/rmse'"),
        (lambda: metric_of("test/rsme", [RMSE]), "'test/rmse'"),
        (lambda: metric_of("tst/rmse", [RMSE], splits=["test"]), "'test'"),
    ],
)
def test_mistakes(call: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_comparisons_with_nan() -> None:
    nan = float("nan")
    assert not RMSE.is_better(nan, than=None)
    assert not RMSE.is_better(nan, than=1.0)
    assert RMSE.is_better(1.0, than=None)
    assert RMSE.is_better(1.0, than=nan)
    assert not RMSE.is_better(1.0, than=1.0)
    assert not RMSE.reaches(nan, 1.0)
    assert not RMSE.reaches(None, 1.0)
    assert RMSE.reaches(1.0, 1.0)
