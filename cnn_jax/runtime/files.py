"""Paths that a user names, atomic file writes, and the cache folder for files that can be recreated."""

import contextlib
import errno
import functools
import json
import logging
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from cnn_jax.errors import UsageError
from cnn_jax.runtime.terminal import say

_NAMED = 50  # characters of a file's name in the name of its temporary file, which must not become too long


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
    """Returns a folder in the user's cache, and creates it if necessary; see :func:`make_cache_folder`.

    In containers some users have no home folder, or cannot write to it. Caches are optional: such users get no folder,
    and one line on stderr says so.

    Returns:
      The folder. None if it cannot be written.
    """
    try:
        return make_cache_folder(name, environ)
    except OSError as error:
        return _no_cache(str(error.strerror))


def make_cache_folder(name: str, environ: Mapping[str, str] = os.environ, *, mode: int = 0o777) -> Path:
    """Returns the folder ``$XDG_CACHE_HOME/cnn_jax/<name>``, and makes it if necessary.

    ``XDG_CACHE_HOME`` is ``~/.cache`` by default.

    Args:
      name: The name of the folder.
      environ: The environment.
      mode: The permissions of a new folder.

    Raises:
      OSError: It cannot be made or written. Its ``strerror`` says which folder.
    """
    try:
        folder = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnn_jax" / name
    except RuntimeError:  # no HOME, and no entry for the user's id in the system's list of users
        raise FileNotFoundError(errno.ENOENT, "there is no home folder") from None
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"{folder} cannot be made ({error.strerror})") from error
    if reason := why_not_writable(folder):
        raise PermissionError(errno.EACCES, f"{folder} cannot be written ({reason})")
    return folder


def why_not_writable(path: Path) -> str | None:
    """Why a file, or a folder for files, cannot be written; None if it can.

    It writes a temporary file, because permissions do not tell whether a file system is full, is read-only, or accepts
    no files, such as ``/proc``. Root has all permissions.

    Args:
      path: A file or a folder. If it does not exist, the innermost of its parents that does must accept files.

    >>> why_not_writable(Path("/dev/null/x.csv"))
    '/dev/null is a file'
    """
    for place in (path, *path.absolute().parents):
        try:
            is_folder = stat.S_ISDIR(os.stat(place).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return f"{place}: {error.strerror}"
        if is_folder:
            break
        if place != path:
            return f"{place} is a file"
    try:
        with tempfile.TemporaryFile(dir=place, buffering=0) as file:
            file.write(b"x")
    except FileNotFoundError:  # /proc
        return f"{place} takes no files"
    except OSError as error:
        return f"{place}: {error.strerror}"
    return None


@functools.cache  # says it once
def _no_cache(reason: str) -> None:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would say the same about its own cache
    say(f"no cache: {reason}; this only costs time; to have one, set XDG_CACHE_HOME to a folder", stream=sys.stderr)


def check_output(path: str | Path, extensions: Sequence[str], *, what: str = "output") -> None:
    """Checks that a file can be written, before the work for it is done.

    Args:
      path: The file.
      extensions: Its possible endings.
      what: The origin of the path, for the error message.

    Raises:
      UsageError: The file has another ending, or its folder does not exist or cannot be written.

    >>> check_output("table.xlsx", [".csv", ".md"], what="--output")
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: --output=table.xlsx must end in .csv or .md
    """
    path = Path(path)
    if path.suffix.lower() not in extensions:
        *others, last = extensions
        raise UsageError(f"{what}={path} must end in {', '.join(others)}{' or ' * bool(others)}{last}")
    if os.path.isdir(path):  # unlike Path.is_dir, False where the path cannot be examined
        raise UsageError(f"{what}={path} is a folder; give the name of a file")
    if not os.path.isdir(path.parent):
        raise UsageError(f"{what}={path}: there is no folder {str(path.parent)!r}; create it first")
    if reason := why_not_writable(path):
        raise UsageError(f"{what}={path} cannot be written ({reason}); choose another")


def check_output_folder(path: str | Path, *, what: str = "output") -> None:
    """Checks that a folder can be made and written, before the work for it is done.

    Args:
      path: The folder.
      what: The origin of the path, for the error message.

    Raises:
      UsageError: It is a file or is called like one, or it cannot be made or written.

    >>> check_output_folder("table.csv", what="--output")
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: --output=table.csv is a file; give the name of a folder
    """
    path = Path(path)
    if path.suffix.lower() in (".csv", ".html") or (os.path.exists(path) and not os.path.isdir(path)):
        raise UsageError(f"{what}={path} is a file; give the name of a folder")
    if reason := why_not_writable(path):
        raise UsageError(f"{what}={path} cannot be written ({reason}); choose another")


@contextlib.contextmanager
def open_atomically(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file that replaces ``path`` when the block ends, so that no reader sees a partial file.

    Raises:
      OSError: ``path`` cannot be written. The error names it.
    """
    temporary = path.with_name(f".{path.name[:_NAMED]}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
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
