"""A run that is interrupted and continued, for tests that it ends with the same bits as one that is not."""

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from cnn_jax.tasks import run as runs


class _Interrupted(Exception):
    """Ends a run in the middle."""


def _interrupt(*_: object) -> None:
    raise _Interrupted


def train_interrupted(config: ConfigDict, workdir: Path) -> None:
    """Trains up to the first evaluation, and then from the checkpoint to the end."""
    with pytest.raises(_Interrupted):
        runs.train(config, workdir, report=False, on_evaluation=_interrupt)
    runs.train(config, workdir, report=False)
