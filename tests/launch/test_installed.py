"""After ``pip install``, in an empty folder: the command, configs by name, and the user's own config."""

import csv
import json
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from cnn_jax.native import build
from tests.launch.process import ROOT, environment


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the installed wheel; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    source, venv = folder / "source", folder / "venv"
    for name in ("cnn_jax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    one = {**os.environ, "CNN_JAX_NATIVE": build.possible_here()[0]}  # the library that tests/native uses, too
    subprocess.run([*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", folder, source], env=one, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (packages,) = venv.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "--python", venv / "bin/python", "install", "--no-deps", "--no-index", wheel], check=True)
    shutil.rmtree(source)
    assert wheel.name.endswith(f"-py3-none-{sysconfig.get_platform().replace('-', '_')}.whl")
    return venv / "bin"


def run(program: Path, *arguments: str, folder: Path, **variables: str) -> str:
    variables = {name: value for name, value in environment().items() if name != "PYTHONPATH"} | variables
    done = subprocess.run(
        [program, *arguments], cwd=folder, env=variables, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_config_by_its_name_trains_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    """With the native kernels of the wheel: there is no compiler that could make others."""
    command = ["--config=lenet5_digits:smoke", "--workdir=run"]
    switches = {"CNN_JAX_NATIVE": "1", "CXX": "nowhere"}
    printed = run(installed / "cnn-jax", *command, folder=tmp_path, **switches)
    assert "test accuracy" in printed
    used = json.loads((tmp_path / "run/environment.json").read_text())["native_kernels"]
    assert used == f"on, {build.possible_here()[0]}"
    assert (tmp_path / "run/report.html").exists()
    assert os.listdir(tmp_path) == ["run"]
    assert "cnn-jax --config" in run(installed / "cnn-jax", "--help", folder=tmp_path)


def test_from_a_folder_of_images_to_predictions(installed: Path, tmp_path: Path) -> None:
    """The steps of docs/your_own_data.md, but with less training."""
    text = (ROOT / "docs/your_own_data.md").read_text().partition("\n## 4.")[0]
    files = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.S))
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert len([line for line in files["my_own.py"].splitlines() if line.strip()]) == 5
    run(installed / "python", "make_images.py", folder=tmp_path)
    commands = [line.split()[1:] for line in text.splitlines() if line.startswith("cnn-jax --")]
    assert len(commands) == 3
    run(installed / "cnn-jax", *commands[0], "--config.duration=20 steps", folder=tmp_path)
    run(installed / "cnn-jax", *commands[1], folder=tmp_path)
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    scores = json.loads((tmp_path / "run/result.json").read_text())["scores"]
    assert [int(row["index"]) for row in rows] == list(range(len(rows)))
    assert np.mean([row["label"] == row["class"] for row in rows]) == pytest.approx(scores["test/accuracy"])
    assert all(float(row[row["class"]]) == max(float(row[f"digit {k}"]) for k in range(10)) for row in rows)
    shutil.copy(next(tmp_path.glob("images/digit 3/*.png")), tmp_path / "new.png")
    shutil.copytree(tmp_path / "images/digit 5", tmp_path / "more")
    run(installed / "cnn-jax", *commands[2], folder=tmp_path)
    assert len((tmp_path / "new.csv").read_text().splitlines()) == 2 + len(list((tmp_path / "more").iterdir()))


def test_the_package_is_the_installed_one_and_typed(installed: Path, tmp_path: Path) -> None:
    where = Path(run(installed / "python", "-c", "import cnn_jax; print(cnn_jax.__path__[0])", folder=tmp_path).strip())
    assert where.is_relative_to(installed.parent)
    assert (where / "py.typed").exists()
    assert (where / "report/page.html").exists()
    names = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.py")}
    assert {path.relative_to(where / "configs") for path in (where / "configs").rglob("*.py")} == names
