"""The outcome of a trial that runs alone, for all ways in which training can end."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from cnn_jax.errors import UsageError
from cnn_jax.sweep.alone import run_alone
from cnn_jax.sweep.trial import Outcome, Trial
from cnn_jax.train import NoWholeCheckpointError, StopRequest
from tests.sweep import trivial

METRIC = "validation/accuracy"


def run(directory: Path, train: Callable[..., None]) -> Outcome:
    trial = Trial(0, {}, trivial.default_config(), directory / "trials" / "0000")
    (outcome,) = run_alone([trial], train=train, report=lambda *_: False, metric=METRIC)
    return outcome


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no such\n  thing"), "ValueError: no such thing"),
        (UsageError("rate=7 is too much"), "rate=7 is too much"),
        (SystemExit(0), "SystemExit: 0"),
        (MemoryError(), "MemoryError"),
        (ValueError("a" * 1000), "ValueError: " + "a" * 485 + "..."),
    ],
)
def test_an_exception_is_the_outcome(error: BaseException, reason: str, tmp_path: Path) -> None:
    def train(config: ConfigDict, directory: Path, **_: Any) -> None:
        raise error

    outcome = run(tmp_path, train)
    assert (outcome.state, outcome.reason, outcome.score) == ("failed", reason, None)


def test_keyboard_interrupt_of_a_trial_is_an_outcome_and_the_users_is_not(tmp_path: Path) -> None:
    def train(config: ConfigDict, directory: Path, **_: Any) -> None:
        raise KeyboardInterrupt

    with StopRequest():  # as in a worker, where the user's Ctrl-C is a request
        assert run(tmp_path, train).reason == "KeyboardInterrupt"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a new Python process
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, train)
    finally:
        signal.signal(signal.SIGINT, before)


def test_run_without_an_intact_checkpoint_starts_again(tmp_path: Path) -> None:
    def train(config: ConfigDict, directory: Path, **options: Any) -> None:
        if (directory / "checkpoints").exists():
            raise NoWholeCheckpointError("all are damaged")
        trivial.train(config, directory, **options)

    (tmp_path / "trials/0000/checkpoints").mkdir(parents=True)
    outcome = run(tmp_path, train)
    assert (outcome.state, outcome.score) == ("complete", trivial.score(trivial.default_config()))
    assert "beginning again: all are damaged" in (tmp_path / "trials/0000/log.txt").read_text()


def test_finished_run_is_not_repeated_and_another_run_is_rejected(tmp_path: Path) -> None:
    assert run(tmp_path, trivial.train).state == "complete"

    def refuse(config: ConfigDict, directory: Path, **_: Any) -> None:
        raise UsageError("the folder is another run's")

    assert run(tmp_path, refuse).state == "complete"
    other = trivial.default_config()
    other.rate = 0.9
    trivial.train(other, tmp_path / "trials/0000", on_evaluation=lambda *_: None)
    assert run(tmp_path, refuse).reason == "the folder is another run's"
