"""Files that are written whole or not at all, and the folder of those that can be made again."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any


def cache_folder(name: str, environ: Mapping[str, str] = os.environ) -> Path:
    """A folder of the user's cache: ``$XDG_CACHE_HOME/cnn_jax/<name>``, by default in ``~/.cache``. Need not exist."""
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnn_jax" / name


@contextlib.contextmanager
def replaced_when_written(path: Path) -> Iterator[IO[bytes]]:
    """A file to write beside its place, which is renamed into it at the end: nobody ever sees a half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes | str) -> None:
    """Writes a file whole or not at all.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "note.txt"
    >>> write_whole(path, "all of it")
    >>> path.read_text()
    'all of it'
    """
    with replaced_when_written(path) as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file whole or not at all."""
    write_whole(path, json.dumps(value, indent=2) + "\n")
