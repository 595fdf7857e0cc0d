from pathlib import Path

import pytest

from tests.launch.process import train


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the digits' smoke variant. Tests that change it use a copy."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    train(workdir)
    return workdir
