"""Paths that a user names, atomic file writes, and the cache folder for files that can be recreated."""

import contextlib
import functools
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from cnn_jax.errors import UsageError
from cnn_jax.runtime.terminal import say


def user_path(path: str | os.PathLike[str]) -> Path:
    """Returns a path that a user named, with the home folder in place of ``~``.

    Shells leave the ``~`` of ``--workdir=~/run`` as it is.

    Raises:
      UsageError: The home folder is not known.

    >>> user_path("~/run") == Path.home() / "run"
    True
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{path}: the home folder is not known; set HOME, or write the path without ~") from error


def cache_folder(name: str, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Returns a folder in the user's cache, ``$XDG_CACHE_HOME/cnn_jax/<name>``, and makes it if necessary.

    ``XDG_CACHE_HOME`` is ``~/.cache`` by default. Some users in containers have no home folder, or one that they may
    not write. Caches are optional: for these users there is no folder, and one line that says so.

    Returns:
      The folder. None if it cannot be written.
    """
    try:
        folder = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnn_jax" / name
    except RuntimeError:  # no HOME, and no entry for the user's id in the system's list of users
        return _no_cache("there is no home folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _no_cache(f"{folder} cannot be made ({error.strerror})")
    return folder if is_writable(folder) else _no_cache(f"{folder} cannot be written")


def is_writable(folder: Path) -> bool:
    """Whether this process can make files in a folder."""
    return os.access(folder, os.W_OK | os.X_OK)


@functools.cache  # says it once
def _no_cache(reason: str) -> None:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would say the same about its own cache
    say(f"no cache: {reason}; this only costs time; to have one, set XDG_CACHE_HOME to a folder", stream=sys.stderr)


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
        file.write(content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")
