"""Imports follow one order: packages import only those below them, and there are no circular imports."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Lowest first. Packages in one line do not import each other.
LAYERS = [
    {"cnn_jax.errors"},
    {"cnn_jax.metrics", "cnn_jax.runtime", "cnn_jax.typed"},
    {"cnn_jax.schema"},
    {"cnn_jax.config", "cnn_jax.jaxprs", "cnn_jax.native"},
    {"cnn_jax.ops"},
    {"cnn_jax.geometry", "cnn_jax.filters"},
    {"cnn_jax.nn"},
    {"cnn_jax.models"},
    {"cnn_jax.data", "cnn_jax.report"},
    {"cnn_jax.train", "cnn_jax.weights", "cnn_jax.attribution"},
    {"cnn_jax.explorer"},
    {"cnn_jax.tasks"},
    {"cnn_jax.sweep", "cnn_jax.experiments"},
    {"cnn_jax.cli"},
    {"configs"},
    {"launch"},
]
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [*ROOT.glob("cnn_jax/**/*.py"), *ROOT.glob("configs/**/*.py"), ROOT / "launch.py"]
}


def layer_of(module: str) -> str | None:
    return next((name for name in HEIGHT if module == name or module.startswith(f"{name}.")), None)


def imported(module: str) -> set[str]:
    """The files of this project that a file imports, at its top or in a function, except for type checking."""
    tree, found = ast.parse(SOURCES[module].read_text()), set()
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: relative import"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in SOURCES else node.module)
    return found & SOURCES.keys()


@pytest.mark.parametrize("module", [module for module in SOURCES if module != "cnn_jax"])
def test_imports_point_down(module: str) -> None:
    own = layer_of(module)
    assert own is not None, f"{module} has no place in LAYERS"
    layers = {layer for other in imported(module) if (layer := layer_of(other)) is not None}
    upward = {other for other in layers if other != own and HEIGHT[other] >= HEIGHT[own]}
    assert not upward, f"{module} ({own}) imports {sorted(upward)}, which stand above or beside it"


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach each other (Tarjan's strongly connected components of more than one node)."""
    reach = {node: set(targets) for node, targets in graph.items()}
    for middle in graph:
        for node in graph:
            if middle in reach[node]:
                reach[node] |= reach[middle]
    groups = {frozenset(n for n in reach[node] if node in reach[n]) for node in graph if node in reach[node]}
    return [sorted(group) for group in groups]


def test_no_file_is_part_of_a_circle() -> None:
    """Imports in functions count, since they would only hide a circle. A package has the imports of ``__init__``."""
    graph = {module: imported(module) - {module} for module in SOURCES}
    assert circles(graph) == []


def test_circles_and_arrows_are_found_where_they_are() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == [["a", "b", "c"]]
    assert "cnn_jax.ops" in imported("cnn_jax.nn.linear")
    assert "cnn_jax.tasks.report" in imported("cnn_jax.tasks.run"), "within a function"


def test_the_wheel_has_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("cnn_jax/**/__init__.py")}
    assert set(listed) == packages | {"cnn_jax.configs", "cnn_jax.configs.sweeps"}


def public_names(tree: ast.Module) -> dict[str, type[ast.stmt]]:
    """The public classes and type aliases of a file, with the kind of statement that defines each."""
    found: dict[str, type[ast.stmt]] = {node.name: ast.ClassDef for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name[:1].isupper() and not name.isupper():
                found[name] = ast.Assign
    return {name: kind for name, kind in found.items() if not name.startswith("_")}


def ambiguous(names: dict[str, dict[str, type[ast.stmt]]]) -> dict[str, list[str]]:
    """Names that several files define, at least one of them as a class -> these files."""
    places: dict[str, list[str]] = {}
    for module, own in names.items():
        for name in own:
            places.setdefault(name, []).append(module)
    return {
        name: modules
        for name, modules in places.items()
        if len(modules) > 1 and any(names[module][name] is ast.ClassDef for module in modules)
    }


def test_each_class_name_means_one_thing() -> None:
    found = {module: public_names(ast.parse(path.read_text())) for module, path in SOURCES.items()}
    assert len(found["cnn_jax.train.plan"]) > 1
    assert ambiguous(found) == {}


def test_a_name_that_means_two_things_is_found() -> None:
    one, other = ast.parse("class Plan: ...\nKey = str"), ast.parse("Plan = tuple\nKey = int")
    assert ambiguous({"one": public_names(one), "other": public_names(other)}) == {"Plan": ["one", "other"]}
