"""Recognises the format of a file by its first bytes, with an error message for files that are not weights."""

import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from cnn_jax.errors import UsageError

_PICKLE = b"\x80"
_ZIP = b"PK\x03\x04"
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "RAR",
}
_OTHERS = {
    b"\x89HDF": "HDF5 (Keras writes it)",
    b"\x93NUMPY": "a NumPy array",
    b"{": "JSON text and not tensors",
    b"\x08": "perhaps ONNX",
}
_CONVERT = "convert it to a PyTorch state dict or to .safetensors"


def format_of(path: Path) -> str:
    """The format of a file of weights, regardless of its file name.

    Args:
      path: The file.

    Returns:
      ``'safetensors'`` or ``'torch'``.

    Raises:
      UsageError: The file has another format. The message says which one and what to do.
      OSError: The file cannot be opened.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "resnet50.pth"
    >>> _ = path.write_text("version https://git-lfs.github.com/spec/v1")
    >>> format_of(path)
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: weights: ...resnet50.pth is a Git LFS pointer and not the weights; run 'git lfs pull'
    """
    with open(path, "rb") as file:
        head = file.read(1024)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40:
        return "safetensors"
    if head.startswith(_PICKLE):
        return "torch"  # probably the format of PyTorch before 1.6
    if head.startswith(_ZIP):
        return _format_of_zip(path)
    raise UsageError(f"weights: {path} {_fault(path, head)}")


def _format_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as file:
            members = file.namelist()
    except zipfile.BadZipFile as error:
        raise UsageError(f"weights: {path} is damaged or incomplete; download or copy it again") from error
    names = {member.rpartition("/")[2] for member in members}
    if "data.pkl" not in names:
        if members and all(member.endswith(".npy") for member in members):
            raise UsageError(f"weights: {path} is a NumPy npz file; give its arrays: load(model, dict(np.load(path)))")
        raise UsageError(f"weights: {path} is {_archive('zip', members)}")
    if "constants.pkl" in names:
        raise UsageError(
            f"weights: {path} is a TorchScript program and not a state dict; save its state dict: "
            f"torch.save(torch.jit.load(path).state_dict(), 'weights.pth')"
        )
    return "torch"


def _fault(path: Path, head: bytes) -> str:
    """Describes a file that is neither in safetensors format nor in PyTorch's."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "is empty; download or copy it again"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer and not the weights; run 'git lfs pull'"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page and not the weights, perhaps the error page of a download; download the file itself"
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            return f"is compressed with {name}; unpack it and give the file in it"
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as file:
            members = file.getnames()
        if members:  # tarfile also accepts a file of zeros, as an archive without members
            return f"is {_archive('tar', members)}"
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            return f"is {name}; {_CONVERT}"
    if path.suffix.lower() == ".safetensors":
        return "is not a complete safetensors file; download or copy it again"
    return f"is damaged, or not a safetensors or PyTorch file; download it again, or {_CONVERT}"


def _archive(kind: str, members: Iterable[str]) -> str:
    files = [member for member in members if not member.endswith("/")]
    shown = ", ".join(map(repr, files[:3])) + (", ..." if len(files) > 3 else "")
    return f"a {kind} archive that contains {shown or 'nothing'}; unpack it and give the file of weights"
