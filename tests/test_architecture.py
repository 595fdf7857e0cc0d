"""Imports point one way: a layer knows the ones below it and nothing above."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Lowest first; those on one line do not know each other.
LAYERS = [
    {"cnn_jax.errors", "cnn_jax.runtime"},
    {"cnn_jax.metrics"},
    {"cnn_jax.config"},
    {"cnn_jax.ops"},
    {"cnn_jax.geometry", "cnn_jax.filters"},
    {"cnn_jax.nn"},
    {"cnn_jax.models"},
    {"cnn_jax.data", "cnn_jax.report"},
    {"cnn_jax.train", "cnn_jax.weights"},
    {"cnn_jax.sweep"},
    {"cnn_jax.cli"},
    {"experiments"},
    {"configs"},
    {"launch"},
]
# The experiment that a config names is looked up by name, so launch.py and configs may name what is beside them.
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}


def layer_of(module: str) -> str | None:
    return next((name for name in HEIGHT if module == name or module.startswith(f"{name}.")), None)


def imported(path: Path) -> set[str]:
    """The modules of this project that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {layer for layer in map(layer_of, found) if layer}


def sources() -> list[tuple[str, Path]]:
    files = [*ROOT.glob("cnn_jax/**/*.py"), *ROOT.glob("experiments/*.py"), *ROOT.glob("configs/**/*.py")]
    files.append(ROOT / "launch.py")
    return [(".".join(path.relative_to(ROOT).with_suffix("").parts), path) for path in files]


@pytest.mark.parametrize(("module", "path"), [case for case in sources() if case[0] != "cnn_jax.__init__"])
def test_imports_point_down(module: str, path: Path) -> None:
    own = layer_of(module)
    assert own is not None, f"{module} has no place in LAYERS"
    upward = {other for other in imported(path) if other != own and HEIGHT[other] >= HEIGHT[own]}
    assert not upward, f"{module} ({own}) imports {sorted(upward)}, which stand above or beside it"


def test_the_walk_sees_the_arrows_that_are_known_to_be_there() -> None:
    assert "cnn_jax.ops" in imported(ROOT / "cnn_jax/nn/linear.py")
    assert "experiments" in imported(ROOT / "configs/lenet5_digits.py")


@pytest.mark.parametrize("path", [path for _, path in sources()], ids=str)
def test_modules_stay_readable(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500
