"""Optional packages: importing them, and how to install those that are missing."""

import importlib
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any

from cnn_jax.errors import UsageError

_ROOT = Path(__file__).parents[2]


def require(module: str, extra: str, purpose: str = "this") -> Any:
    """Imports a module of an optional package.

    Args:
      module: The module.
      extra: The extra of this project with the package.
      purpose: What needs the module, for the error message.

    Raises:
      UsageError: The package is not installed. The message contains the command that installs it.

    >>> require("math", "sweep").pi
    3.141592653589793
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(f"{purpose} needs {module}: {install_command(extra)}") from error


def install_command(extra: str, *, root: Path = _ROOT) -> str:
    """The command that installs the packages of an extra.

    In a checkout this is the checkout with the extra. An installed ``cnn_jax`` names the packages themselves, because
    its name with an extra would only be found on a package index that has it.

    Args:
      extra: The name of the extra, such as ``'sweep'``.
      root: The folder with ``cnn_jax``.

    >>> install_command("sweep", root=Path("nowhere"))
    "pip install 'cnn_jax[sweep]'"
    """
    if (root / "pyproject.toml").is_file():
        here = "." if root == Path.cwd() else str(root)
        return f"pip install -e {shlex.quote(f'{here}[{extra}]')}"
    packages = _packages(extra)
    return f"pip install {' '.join(map(shlex.quote, packages or [f'cnn_jax[{extra}]']))}"


def _packages(extra: str) -> list[str]:
    """The requirements of an extra of the installed package."""
    try:
        requirements = metadata.requires("cnn_jax") or []
    except metadata.PackageNotFoundError:
        return []
    parts = (requirement.partition(";") for requirement in requirements)
    return [package.strip() for package, _, marker in parts if _is_extra(marker, extra)]


def _is_extra(marker: str, extra: str) -> bool:
    return marker.replace("'", '"').replace(" ", "").endswith(f'extra=="{extra}"')
