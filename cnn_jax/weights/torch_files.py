"""Reads PyTorch files with ``weights_only=True``: only tensors, without importing or running code named in a file."""

import pickletools
import sys
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from cnn_jax.errors import UsageError
from cnn_jax.runtime.extras import install_command

# Modules of the standard library with plain data classes, which training scripts store next to a state dict. A file
# names objects of other standard modules, such as builtins.eval, only to call them.
_DATA_MODULES = {"_codecs", "argparse", "collections", "datetime", "decimal", "enum", "fractions", "pathlib", "types"}
_DATA_TYPES = {
    "builtins.bytearray",
    "builtins.bytes",
    "builtins.complex",
    "builtins.frozenset",
    "builtins.range",
    "builtins.set",
    "builtins.slice",
}
_PYTORCHS_OWN = ("torch.", *_DATA_TYPES, "collections.OrderedDict", "_codecs.encode")
_LEGACY_PICKLES = 4  # a magic number, the version, the system, and the saved object


class NotImported:
    """An empty placeholder for objects that are not tensors. It accepts any arguments and any state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Ignores the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Ignores the state in the file."""


def import_torch(purpose: str) -> Any:
    """Imports PyTorch, or raises a ``UsageError`` that says how to install it."""
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"weights: {purpose} needs PyTorch: {install_command('torch')}; or use .safetensors, which does not need it"
        ) from error
    return torch


def read(path: Path) -> tuple[Any, tuple[str, ...]]:
    """Reads a file of ``torch.save``, restricted to tensors and Python's containers.

    Args:
      path: The file.

    Returns:
      The content, and the names of the classes whose objects were replaced by :class:`NotImported`, for example
      ``argparse.Namespace``.

    Raises:
      UsageError: The file is damaged or names functions to call, or PyTorch is not installed.
    """
    torch = import_torch(f"reading {path.name}")
    try:
        named = sorted(_named_in_pickle(path))
    except Exception as error:  # a file that is not a pickle can raise any exception
        raise UsageError(f"weights: {path} is damaged, or not a PyTorch file; download or copy it again") from error
    for name in named:
        module = name.partition(".")[0]
        if module in sys.stdlib_module_names - _DATA_MODULES and name not in _DATA_TYPES:
            raise UsageError(
                f"weights: {path} contains more than tensors: it names {name}, so reading it would run code; "
                f"save only the state_dict: torch.save(model.state_dict(), path)"
            )
    ignored = tuple(name for name in named if not name.startswith(_PYTORCHS_OWN))
    try:
        # PyTorch handles the names that it knows itself. All other names are replaced by the placeholder.
        with torch.serialization.safe_globals([(NotImported, name) for name in named]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about deprecated storage types
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        more = f" ({', '.join(ignored)})" if ignored else ""
        raise UsageError(
            f"weights: {path} is damaged, or contains more than tensors{more}, so reading it would run code; "
            f"save only the state_dict: torch.save(model.state_dict(), path)"
        ) from error
    if isinstance(content, NotImported):
        raise UsageError(
            f"weights: {path} contains a whole object ({', '.join(ignored[:3])}) and not a state dict; load it where "
            f"its code is installed and trusted, and save torch.save(model.state_dict(), path)"
        )
    return content, ignored


def to_numpy(tensor: Any, what: str) -> np.ndarray:
    """Converts a PyTorch tensor to a NumPy array.

    Args:
      tensor: A dense tensor of any type that NumPy or JAX supports.
      what: A description of the tensor for error messages.

    Raises:
      UsageError: The tensor is sparse, quantised or without data, or its type is not supported.
    """
    name = str(tensor.dtype).removeprefix("torch.")
    try:
        tensor = tensor.detach().cpu()
        if hasattr(np, name):
            return tensor.numpy()
        # NumPy itself has no bfloat16 and no float8, so the bytes are reinterpreted.
        return tensor.reshape(-1).view(import_torch(what).uint8).numpy().view(getattr(jnp, name)).reshape(tensor.shape)
    except (AttributeError, TypeError, RuntimeError, NotImplementedError) as error:
        layout = str(tensor.layout).removeprefix("torch.")
        raise UsageError(
            f"weights: {what} cannot be read ({name}, {layout}, on {tensor.device}); save it as a dense float32 tensor"
        ) from error


def _named_in_pickle(path: Path) -> Iterator[str]:
    """The names of the classes and functions in a file, found without loading it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            member = next(name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
            with archive.open(member) as file:
                yield from _globals(file)
    else:
        with open(path, "rb") as file:
            for _ in range(_LEGACY_PICKLES):
                yield from _globals(file)


def _globals(file: Any) -> Iterator[str]:
    for operation, argument, _ in pickletools.genops(file):
        if operation.name == "GLOBAL":
            module, name = str(argument).split(" ")
            # Pickles of this protocol use Python 2's names of standard modules.
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
            yield f"{module}.{name}"
