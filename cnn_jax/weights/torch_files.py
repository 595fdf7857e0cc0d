"""Files of PyTorch, read with ``weights_only=True``: tensors only, and no code that a file names is imported or run."""

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

# Modules of Python's whose plain data classes are in the settings beside a state dict. What a file names of the others,
# such as builtins.eval, is there to run.
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
_LEGACY_PICKLES = 4  # a magic number, the version, the machine, and what was saved; lengths of tensors follow


class NotImported:
    """Stands for an object of any class that is no tensor: takes whatever the pickle gives it, and holds nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def import_torch(purpose: str) -> Any:
    """PyTorch, or the line that says how to have it."""
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"weights: {purpose} needs PyTorch: pip install torch, or use .safetensors, which does not"
        ) from error
    return torch


def read(path: Path) -> tuple[Any, tuple[str, ...]]:
    """What ``torch.save`` wrote, without objects of other classes than tensors and Python's containers.

    Returns:
      The content, and the names of the classes whose objects were left out (``argparse.Namespace`` in ``args``, say).

    Raises:
      UsageError: A damaged file, one that names functions to run, or PyTorch is not installed.
    """
    torch = import_torch(f"reading {path.name}")
    try:
        named = sorted(_named_in_pickle(path))
    except Exception as error:  # what only looks like a pickle raises whatever its bytes happen to mean
        raise UsageError(f"weights: {path} is damaged, or no file of PyTorch's; fetch or copy it again") from error
    for name in named:
        module = name.partition(".")[0]
        if module in sys.stdlib_module_names - _DATA_MODULES and name not in _DATA_TYPES:
            raise UsageError(
                f"weights: {path} holds more than tensors: it names {name}, which would mean to run code from it; "
                f"save its state_dict alone: torch.save(model.state_dict(), path)"
            )
    ignored = tuple(name for name in named if not name.startswith(_PYTORCHS_OWN))
    try:
        # Where PyTorch knows a name itself, that goes first. All others stand for an object that holds nothing.
        with torch.serialization.safe_globals([(NotImported, name) for name in named]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated types of storage
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        more = f" ({', '.join(ignored)})" if ignored else ""
        raise UsageError(
            f"weights: {path} is damaged, or holds more than tensors{more}, which would mean to run code from it; "
            f"save its state_dict alone: torch.save(model.state_dict(), path)"
        ) from error
    if isinstance(content, NotImported):
        raise UsageError(
            f"weights: {path} holds a whole object ({', '.join(ignored[:3])}), and not its state dict; where its code "
            f"is installed and trusted: torch.save(model.state_dict(), path)"
        )
    return content, ignored


def to_numpy(tensor: Any, what: str) -> np.ndarray:
    """The numbers of a tensor of PyTorch.

    Args:
      tensor: Of any type that NumPy or JAX has.
      what: It is, for the message.

    Raises:
      UsageError: A sparse or quantised tensor, one without numbers, or of a type of PyTorch's alone.
    """
    name = str(tensor.dtype).removeprefix("torch.")
    try:
        tensor = tensor.detach().cpu()
        if hasattr(np, name):
            return tensor.numpy()
        # NumPy has no bfloat16 and no float8: the bytes go over.
        return tensor.reshape(-1).view(import_torch(what).uint8).numpy().view(getattr(jnp, name)).reshape(tensor.shape)
    except (AttributeError, TypeError, RuntimeError, NotImplementedError) as error:
        layout = str(tensor.layout).removeprefix("torch.")
        raise UsageError(
            f"weights: {what} cannot be read ({name}, {layout}, on {tensor.device}); save it dense and not quantised, "
            f"as float32"
        ) from error


def _named_in_pickle(path: Path) -> Iterator[str]:
    """The classes and functions that a file names, found without loading it."""
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
            # Pickles of this protocol have Python 2's names for its own modules.
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
            yield f"{module}.{name}"
