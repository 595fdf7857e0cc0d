"""After ``pip install``, from an empty folder: the command, the configs by name, a config of one's own."""

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.process import ROOT, environment


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the wheel in it; what it depends on is that of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    source, venv = folder / "source", folder / "venv"
    for name in ("cnn_jax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", folder, source], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "--python", venv / "bin/python", "install", "--no-deps", "--no-index", wheel], check=True)
    shutil.rmtree(source)
    return venv / "bin"


def run(program: Path, *arguments: str, folder: Path) -> str:
    variables = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [program, *arguments], cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_config_by_its_name_trains_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    printed = run(installed / "cnn-jax", "--config=lenet5_digits:smoke", "--workdir=run", folder=tmp_path)
    assert "test accuracy" in printed
    assert (tmp_path / "run/report.html").exists()
    assert os.listdir(tmp_path) == ["run"]
    assert "cnn-jax --config" in run(installed / "cnn-jax", "--help", folder=tmp_path)


def test_a_config_of_ones_own_may_begin_from_another_one(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "my_own.py").write_text(
        "from cnn_jax.config import load_config\n"
        "def get_config():\n"
        "    config = load_config('lenet5_fashion_mnist')\n"
        "    config.data.name = 'digits'\n"
        "    return config\n"
    )
    printed = run(installed / "cnn-jax", "--config=my_own.py", "--mode=summary", folder=tmp_path)
    assert "lenet_5_modern, input 32x32x1, 10 outputs" in printed


def test_the_package_is_the_installed_one_and_typed(installed: Path, tmp_path: Path) -> None:
    where = Path(run(installed / "python", "-c", "import cnn_jax; print(cnn_jax.__path__[0])", folder=tmp_path).strip())
    assert where.is_relative_to(installed.parent)
    assert (where / "py.typed").exists()
    assert (where / "report/page.html").exists()
    names = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.py")}
    assert {path.relative_to(where / "configs") for path in (where / "configs").rglob("*.py")} == names
