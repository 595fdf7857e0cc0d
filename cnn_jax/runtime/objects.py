"""Python objects by reference, so that a config, which contains strings, can name an object."""

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from cnn_jax.errors import UsageError, nearest
from cnn_jax.runtime.files import user_path


def is_reference(text: str) -> bool:
    """Whether a string has the form of a reference: ``'path/to/file.py:name'`` or ``'package.module:name'``.

    >>> is_reference("mine.py:Ink"), is_reference("classification")
    (True, False)
    """
    return ":" in text


def load_object(reference: str, *, what: str) -> Any:
    """Returns the object that a reference names; the file or module is imported once per process.

    Args:
      reference: ``'path/to/file.py:name'`` or ``'package.module:name'``.
      what: The origin of the reference, such as ``"experiment='mine.py:Ink'"``; error messages start with it.

    Raises:
      UsageError: The file or module does not exist or raises while it is imported, or has no such name.

    >>> load_object("math:pi", what="number")
    3.141592653589793
    """
    place, _, name = reference.rpartition(":")
    try:
        module = import_file(user_path(place).resolve()) if place.endswith(".py") else importlib.import_module(place)
    except Exception as error:
        if isinstance(error, FileNotFoundError):
            raise UsageError(f"{what}: there is no file {place}") from error
        raise UsageError(f"{what}: {place} cannot be imported: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        public = [known for known in vars(module) if not known.startswith("_")]
        raise UsageError(f"{what}: {place} has no {name!r}; {nearest(name, public)}")
    return getattr(module, name)


def add_folder(folder: Path) -> None:
    """Appends a folder to the import path, so that its modules can be imported."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@functools.cache
def import_file(path: Path) -> ModuleType:
    """Imports a Python file as a module, once per process. Like a script, it can import modules in its folder.

    Args:
      path: An absolute path.
    """
    add_folder(path.parent)
    name = f"cnn_jax_file_{path.stem}_{abs(hash(str(path)))}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look up modules by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
