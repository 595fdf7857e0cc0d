"""Files of tensors: safetensors by themselves, PyTorch's with PyTorch, and never a pickle that could run code."""

import dataclasses
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import write_atomically
from cnn_jax.weights import hub
from cnn_jax.weights.about import About

SAFETENSORS = (".safetensors",)
TORCH = (".pth", ".pt", ".bin")


@dataclasses.dataclass(frozen=True)
class Tensors:
    """Named tensors that are read one at a time.

    Attributes:
      source: where they are from, for messages.
      shapes: of each, by name.
      read: a tensor from its name.
      about: what the source says of them.
    """

    source: str
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    about: About


def open_tensors(source: str | Path | Mapping[str, Any]) -> Tensors:
    """The tensors of a file, of a name on the hub, or of a mapping from names to arrays.

    Raises:
      UsageError: no such file, a damaged one, or one that holds more than tensors.

    >>> open_tensors({"fc.weight": np.ones((2, 3))}).shapes
    {'fc.weight': (2, 3)}
    """
    if isinstance(source, Mapping):
        return _from_mapping(source, "the state dict", About())
    if not isinstance(source, str | Path):
        raise UsageError(f"weights: {source!r} is no path, no name on the hub ('owner/name'), and no state dict")
    path = Path(source)
    if not path.exists():
        if path.suffix in (*SAFETENSORS, *TORCH) or not hub.is_name(str(source)):
            raise UsageError(f"weights: there is no file {str(source)!r}, and it is no name on the hub ('owner/name')")
        path = hub.fetch(str(source))
    if path.is_dir():
        path = path / hub.FILE
        if not path.is_file():
            raise UsageError(f"weights: the folder {path.parent} holds no {path.name}; give the path of a file")
    if path.suffix in SAFETENSORS:
        return _open_safetensors(path)
    if path.suffix in TORCH:
        return _from_mapping(_load_torch(path), str(path), _about_beside(path))
    raise UsageError(f"weights: {path} must end in one of {', '.join((*SAFETENSORS, *TORCH))}")


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file, whole or not at all."""
    write_atomically(path, safetensors.numpy.save(dict(tensors), metadata=dict(metadata)))


def write_torch(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes what ``torch.load(path, weights_only=True)`` reads, whole or not at all."""
    torch = import_torch(f"writing {path.name}")
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, buffer)
    write_atomically(path, buffer.getvalue())


def import_torch(purpose: str) -> Any:
    """PyTorch, or the line that says how to have it."""
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"weights: {purpose} needs PyTorch: pip install 'cnn_jax[parity]', or use .safetensors, which does not"
        ) from error
    return torch


def _open_safetensors(path: Path) -> Tensors:
    try:
        file = safetensors.safe_open(path, framework="numpy")
    except (OSError, safetensors.SafetensorError) as error:
        raise UsageError(f"weights: {path} is no whole safetensors file ({error}); fetch or copy it again") from error
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    about = About.from_metadata(file.metadata() or {})
    return Tensors(str(path), shapes, file.get_tensor, about if about != About() else _about_beside(path))


def _about_beside(path: Path) -> About:
    """What timm's ``config.json`` in the folder of a file says."""
    config = path.with_name("config.json")
    if not config.is_file():
        return About()
    try:
        return About.from_timm(json.loads(config.read_text()))
    except UsageError as error:
        raise UsageError(f"weights: {config} beside the weights: {error}; remove it if it is not theirs") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError(
            f"weights: {config} beside the weights is not as timm writes it ({error}); remove it"
        ) from error


def _load_torch(path: Path) -> Mapping[str, Any]:
    torch = import_torch(f"reading {path.name}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that only looks like a pickle raises whatever its bytes happen to mean
        raise UsageError(
            f"weights: {path} is damaged, or holds more than tensors, which would mean to run code from it; "
            f"save its state_dict alone: torch.save(model.state_dict(), path)"
        ) from error
    for key in ("state_dict", "model"):  # as training scripts wrap it
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise UsageError(f"weights: {path} holds a {type(content).__name__}; it must hold a state dict")
    return content


def _from_mapping(mapping: Mapping[str, Any], source: str, about: About) -> Tensors:
    others = [name for name, value in mapping.items() if not isinstance(name, str) or not _holds_numbers(value)]
    if others:
        raise UsageError(f"weights: {source} must map names to tensors, but {others[0]!r} is none")
    prefix = "module." if mapping and all(name.startswith("module.") for name in mapping) else ""  # DataParallel's
    named = {name.removeprefix(prefix): value for name, value in mapping.items()}
    shapes = {name: tuple(value.shape) for name, value in named.items()}
    return Tensors(source, shapes, lambda name: _numpy(named[name]), about)


def _holds_numbers(value: Any) -> bool:
    kind = getattr(getattr(value, "dtype", None), "kind", "f")  # PyTorch's types have none
    return hasattr(value, "shape") and kind not in "OSUMm"  # objects, texts, times


def _numpy(value: Any) -> np.ndarray:
    if not hasattr(value, "detach"):
        return np.asarray(value)
    tensor = value.detach().cpu()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()  # NumPy has no bfloat16
