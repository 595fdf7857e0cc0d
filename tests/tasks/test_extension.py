"""A run continued with more epochs ends like one that had them from the start, if the learning rates are the same."""

import json
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from benchmarks.kill import outcome
from cnn_jax import schema
from cnn_jax.config import load_config
from cnn_jax.errors import UsageError
from cnn_jax.tasks import run
from cnn_jax.train import Workdir


def config(epochs: int, **changes: Any) -> ConfigDict:
    small = {
        "model.name": "mlp_two_neurons",
        "input_shape": (8, 8, 1),
        "data.train": "train[:64]",
        "data.validation": "",
        "data.test": "test[:16]",
        "batch_size": 16,
        "optimizer.schedule": "constant",
        "optimizer.warmup": "0 steps",
        "epochs": epochs,
    }
    return schema.override(load_config("lenet5_digits:smoke"), {**small, **changes})


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch, continued to three."""
    folder = tmp_path_factory.mktemp("extended") / "run"
    for epochs in (1, 3):
        run.train(config(epochs), folder, report=False)
    return folder


def test_extended_run_has_the_bits_of_one_that_was_as_long_from_the_start(extended: Path, tmp_path: Path) -> None:
    run.train(config(3), tmp_path / "run", report=False)
    assert outcome(extended) == outcome(tmp_path / "run")
    assert json.loads((extended / "result.json").read_text())["step"] == 3 * 64 // 16


def test_another_seed_gives_other_bits(extended: Path, tmp_path: Path) -> None:
    run.train(config(3, seed=1), tmp_path / "run", report=False)
    assert outcome(extended) != outcome(tmp_path / "run")


def test_changes_are_recorded(extended: Path) -> None:
    environment = json.loads((extended / "environment.json").read_text())
    assert environment["changed"] == [{"step": 4, "config": ["epochs: 1 -> 3"]}]
    assert environment["packages"].keys() >= {"jax", "flax"}
    assert json.loads((extended / "config.json").read_text())["epochs"] == 3


def test_finished_run_prints_a_message_and_does_not_change(extended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = outcome(extended)
    run.train(config(3), extended, report=False)
    printed = capsys.readouterr().out
    assert "the run is finished at step 12 of 12; to train longer: " in printed
    assert f"--workdir={extended} --config.epochs=<more>" in printed
    assert outcome(extended) == before


@pytest.mark.parametrize(
    ("epochs", "changes", "expected"),
    [
        (4, {"seed": 1}, r"another config \(seed: 0 -> 1\).* only epochs, duration, .* may change"),
        (3, {"optimizer.learning_rate": 0.5}, r"\(optimizer.learning_rate: .* -> 0.5\)"),
        (2, {}, r"has done 12 steps, more than the 8 of this config \(epochs: 3 -> 2\)"),
    ],
)
def test_keys_that_may_not_change(epochs: int, changes: dict[str, Any], expected: str, extended: Path) -> None:
    before = {path: path.read_bytes() for path in extended.glob("*.json")}
    with pytest.raises(UsageError, match=expected):
        run.train(config(epochs, **changes), extended, report=False)
    assert {path: path.read_bytes() for path in extended.glob("*.json")} == before


def test_run_of_a_series_or_a_caller_of_its_own_allows_no_changes(tmp_path: Path) -> None:
    with Workdir(tmp_path, config(1)) as opened:
        assert opened.changes == []
    with pytest.raises(UsageError, match="epochs: 1 -> 2"):
        Workdir(tmp_path, config(2))
