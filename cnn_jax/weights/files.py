"""Reads and writes files of tensors: safetensors, and PyTorch files, without running code from them."""

import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import user_path, write_atomically
from cnn_jax.weights import formats, hub, torch_files
from cnn_jax.weights.about import About

SAFETENSORS = (".safetensors",)
TORCH = (".pth", ".pt", ".bin")
_OTHERS = (".ckpt", ".tar", ".zip", ".pkl", ".npz", ".h5", ".onnx")  # these are file names, never names on the hub
_IN_A_FOLDER = (hub.FILE, "pytorch_model.bin")
_FLOAT8 = {  # by their names in safetensors, whose NumPy interface cannot read them
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E4M3FNUZ": jnp.float8_e4m3fnuz,
    "F8_E5M2": jnp.float8_e5m2,
    "F8_E5M2FNUZ": jnp.float8_e5m2fnuz,
    "F8_E8M0": jnp.float8_e8m0fnu,
}


@dataclasses.dataclass(frozen=True)
class Tensors:
    """Named tensors that are read one at a time.

    Attributes:
      source: The file or other source, for messages.
      shapes: The shape of each tensor, by name. A tensor in a nested mapping has a name such as
        ``'state_dict/conv1.weight'``.
      read: Returns a tensor, given its name.
      about: The metadata in the source.
      notes: Remarks about the source, for a log message.
    """

    source: str
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    about: About
    notes: tuple[str, ...] = ()


def open_tensors(source: str | Path | Mapping[str, Any]) -> Tensors:
    """Opens the tensors of a file, of a repository on the Hugging Face hub, or of a mapping from names to arrays.

    The format of a file is determined from its content, so PyTorch files may also end in ``.pth.tar``, ``.ckpt`` or
    ``.PTH``.

    Args:
      source: A path, a name on the hub (``'owner/name'``), or a mapping, which may be nested.

    Raises:
      UsageError: The file does not exist, is damaged, has no tensors, or could only be read by running code from it.

    >>> open_tensors({"epoch": 3, "state_dict": {"fc.weight": np.ones((2, 3))}}).shapes
    {'state_dict/fc.weight': (2, 3)}
    """
    if isinstance(source, Mapping):
        return _from_mapping(source, "the state dict", About())
    if not isinstance(source, str | Path):
        kind = type(source).__name__
        raise UsageError(
            f"weights: a {kind} cannot be loaded; give a path, a name on the hub ('owner/name') or a state dict"
        )
    path = user_path(source)
    if not path.exists():
        if path.suffix.lower() in (*SAFETENSORS, *TORCH, *_OTHERS) or not hub.is_name(str(source)):
            raise UsageError(
                f"weights: there is no file {str(source)!r}, and it is not a name on the hub ('owner/name')"
            )
        path = hub.fetch(str(source))
    if path.is_dir():
        path = _in_folder(path)
    try:
        format = formats.format_of(path)
    except OSError as error:
        raise UsageError(f"weights: {path} cannot be read ({error.strerror})") from error
    if format == "safetensors":
        return _open_safetensors(path)
    content, ignored = torch_files.read(path)
    notes = (f"ignored, because only tensors are read: {', '.join(ignored)}",) if ignored else ()
    return dataclasses.replace(_from_mapping(content, str(path), _about_in_folder(path)), notes=notes)


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file atomically."""
    # safetensors 0.8 ignores strides: it writes the numbers of a transposed array in the order of memory.
    dense = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    write_atomically(path, safetensors.numpy.save(dense, metadata=dict(metadata)))


def write_torch(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Atomically writes a file that ``torch.load(path, weights_only=True)`` reads."""
    torch = torch_files.import_torch(f"writing {path.name}")
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, buffer)
    write_atomically(path, buffer.getvalue())


def _in_folder(folder: Path) -> Path:
    """The path of the weights in a folder with the layout of a repository on the hub."""
    for name in _IN_A_FOLDER:
        if (folder / name).is_file():
            return folder / name
    if (folder / "data.pkl").is_file():
        raise UsageError(
            f"weights: the folder {folder} is an unpacked PyTorch file; give the original file, which is a zip archive"
        )
    raise UsageError(f"weights: the folder {folder} has no {' or '.join(_IN_A_FOLDER)}; give the path of a file")


def _open_safetensors(path: Path) -> Tensors:
    try:
        file = safetensors.safe_open(path, framework="numpy")
    except (OSError, safetensors.SafetensorError) as error:
        raise UsageError(
            f"weights: {path} is not a complete safetensors file ({error}); download or copy it again"
        ) from error
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    about = About.from_metadata(file.metadata() or {})

    def read(name: str) -> np.ndarray:
        dtype = file.get_slice(name).get_dtype()
        if dtype in _FLOAT8:
            return _read_bytes(path, name).view(_FLOAT8[dtype]).reshape(shapes[name])
        try:
            return file.get_tensor(name)
        except (AttributeError, TypeError, safetensors.SafetensorError) as error:
            raise UsageError(
                f"weights: {path}: tensor {name!r} has type {dtype}, which NumPy does not support; save it as float32"
            ) from error

    return Tensors(str(path), shapes, read, about if about != About() else _about_in_folder(path))


def _read_bytes(path: Path, name: str) -> np.ndarray:
    """The bytes of a tensor in a safetensors file, located by the file's header."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        begin, end = json.loads(file.read(length))[name]["data_offsets"]
        return np.fromfile(file, np.uint8, count=end - begin, offset=begin)


def _about_in_folder(path: Path) -> About:
    """Reads timm's ``config.json`` in the folder of a file, if there is one."""
    config = path.with_name("config.json")
    if not config.is_file():
        return About()
    try:
        return About.from_timm(json.loads(config.read_text()))
    except UsageError as error:
        raise UsageError(
            f"weights: {config} beside the weights: {error}; remove it if it belongs to other weights"
        ) from error
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError(
            f"weights: {config} beside the weights is not in timm's format ({error}); remove it"
        ) from error


def _from_mapping(mapping: Any, source: str, about: About) -> Tensors:
    named = dict(_flat(mapping))
    if not named:
        if not isinstance(mapping, Mapping):
            raise UsageError(f"weights: {source} contains a {type(mapping).__name__}; it must contain a state dict")
        others = ", ".join(f"{name!r} ({type(value).__name__})" for name, value in list(mapping.items())[:5])
        raise UsageError(f"weights: {source} must map names to tensors, but contains only {others or 'nothing'}")
    shapes = {name: tuple(value.shape) for name, value in named.items()}
    return Tensors(source, shapes, lambda name: _numpy(named[name], f"{source}: tensor {name!r}"), about)


def _flat(value: Any, name: str = "", around: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The tensors in nested mappings, each with the keys on its path joined by slashes."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if isinstance(key, str) and not any(entry is outer for outer in (*around, value)):
                yield from _flat(entry, f"{name}/{key}" if name else key, (*around, value))
    elif name and _holds_numbers(value):
        yield name, value


def _holds_numbers(value: Any) -> bool:
    kind = getattr(getattr(value, "dtype", None), "kind", "f")  # PyTorch's types have no attribute kind
    return hasattr(value, "shape") and kind not in "OSUMm"  # objects, strings, times


def _numpy(value: Any, what: str) -> np.ndarray:
    return torch_files.to_numpy(value, what) if hasattr(value, "detach") else np.asarray(value)
