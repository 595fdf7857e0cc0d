"""The command that installs an extra: from a checkout, and from the installed package."""

from importlib import metadata
from pathlib import Path

import pytest

from cnn_jax.errors import UsageError
from cnn_jax.runtime.extras import install_command, require

ROOT = Path(__file__).parents[2]
REQUIRES = [
    "jax>=0.10",
    'optuna>=4.5; extra == "sweep"',
    "cmaes>=0.11; extra == 'sweep'",
    'torch>=2.6 ; extra == "torch"',
]


def test_in_a_checkout_it_is_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert install_command("sweep") == "pip install -e '.[sweep]'"
    monkeypatch.chdir(tmp_path)
    assert install_command("sweep") == f"pip install -e '{ROOT}[sweep]'"


def test_installed_it_names_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
    assert install_command("sweep", root=tmp_path) == "pip install 'optuna>=4.5' 'cmaes>=0.11'"
    assert install_command("torch", root=tmp_path) == "pip install 'torch>=2.6'"


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    monkeypatch.chdir(ROOT)
    with pytest.raises(UsageError, match=r"^a sweep needs optuna: pip install -e '.\[sweep\]'$"):
        require("optuna", "sweep", "a sweep")
