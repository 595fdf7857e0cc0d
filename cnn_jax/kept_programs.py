"""The folder in which JAX keeps compiled programs, so that the second start of a config compiles nothing.

JAX writes a program straight to its place. A process that is killed, or finds the disk full, while it does leaves a
part of one, which JAX notices, warns of, and compiles anew at every start from then on: it writes no entry twice.
:func:`keep_compiled_programs` takes such parts away before JAX looks.

This module must not import jax.
"""

import contextlib
import os
import zlib
from collections.abc import MutableMapping
from pathlib import Path

from cnn_jax.files import cache_folder

_LOOKED = ".looked-through"  # its time: when the folder was last looked through


def keep_compiled_programs(environ: MutableMapping[str, str] = os.environ) -> None:
    """Lets JAX keep compiled programs in the user's cache folder, or where the environment says; removes broken ones.

    Must run before JAX is imported.
    """
    environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder("compiled", environ)))
    environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    remove_broken(Path(environ["JAX_COMPILATION_CACHE_DIR"]))


def remove_broken(folder: Path) -> None:
    """Removes the programs of which only a part was written, among those written since it was last called.

    An entry that another process is just writing may be taken for one of them; that process has its program, and the
    next that needs it compiles it again.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> whole = zlib.compress(b"a program")
    >>> _ = (folder / "whole-cache").write_bytes(whole), (folder / "part-cache").write_bytes(whole[:9])
    >>> remove_broken(folder)
    >>> [file.name for file in folder.glob("*-cache")]
    ['whole-cache']
    """
    last, this = folder / _LOOKED, folder / f"{_LOOKED}-{os.getpid()}"
    with contextlib.suppress(OSError):  # no such folder yet, or one that may only be read: JAX deals with it
        since = last.stat().st_mtime_ns if last.exists() else 0
        this.touch()  # before the look, by the clock of the folder
        with os.scandir(folder) as files:
            new = [Path(file) for file in files if file.name.endswith("-cache") and file.stat().st_mtime_ns >= since]
        for file in new:
            if not _is_whole(file.read_bytes()):
                file.unlink()
        this.replace(last)


def _is_whole(entry: bytes) -> bool:
    """Whether all of an entry is there; of one that is compressed by another method (Zstandard, where it is installed)
    only whether there is anything."""
    if entry[:1] != b"x":
        return entry.strip(b"\0") != b""
    decompressor = zlib.decompressobj()
    try:
        decompressor.decompress(entry)
    except zlib.error:
        return False
    return decompressor.eof
