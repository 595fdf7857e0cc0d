"""Atomic file writes, and the cache folder for files that can be recreated."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any


def cache_folder(name: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Returns a folder in the user's cache, ``$XDG_CACHE_HOME/cnn_jax/<name>``; it may not exist yet.

    ``XDG_CACHE_HOME`` is ``~/.cache`` by default.
    """
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnn_jax" / name


@contextlib.contextmanager
def open_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file that replaces ``path`` when the block ends, so that no reader sees a partial file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes | str) -> None:
    """Writes a file completely. If that fails, the old file stays unchanged.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "note.txt"
    >>> write_atomically(path, "all of it")
    >>> path.read_text()
    'all of it'
    """
    with open_atomically(path) as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")
