"""JAX's persistent compilation cache, so that the second start of a config compiles nothing.

JAX does not write cache entries atomically. A process that is killed while writing, or finds the disk full, leaves an
incomplete entry. JAX then warns and compiles again at every start, because it never overwrites an entry.
:func:`enable_compilation_cache` removes incomplete entries before JAX reads them.

This module must not import jax before it is used.
"""

import contextlib
import os
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path

from cnn_jax.runtime.files import cache_folder, why_not_writable

_FOLDER = "JAX_COMPILATION_CACHE_DIR"
_LEAST_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"  # programs that compile faster are not written
_FOREVER = "1e9"
_CHECKED = ".looked-through"  # the modification time of this file is the time of the last check


def enable_compilation_cache(environ: MutableMapping[str, str] = os.environ) -> None:
    """Sets JAX's compilation cache folder, unless the environment does, and removes incomplete entries from it.

    Must run before JAX is imported. Without a folder that can be written there is no cache. One that the environment
    names is then only read, because JAX would warn about each program that it cannot write.
    """
    if _FOLDER not in environ:
        own = cache_folder("compiled", environ)
        if own is None:
            return
        environ[_FOLDER] = str(own)
    folder = Path(environ[_FOLDER])
    if folder.is_dir() and why_not_writable(folder):
        environ[_LEAST_SECONDS] = _FOREVER
    environ.setdefault(_LEAST_SECONDS, "0")
    if environ[_FOLDER]:  # empty: the user wants no cache
        remove_incomplete_entries(folder)


def remove_incomplete_entries(folder: Path) -> None:
    """Removes incomplete entries among those written since the last call.

    An entry that another process is writing at this moment may be removed as well. That process keeps its program; the
    next process that needs it compiles it again.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> whole = zlib.compress(b"a program")
    >>> _ = (folder / "whole-cache").write_bytes(whole), (folder / "part-cache").write_bytes(whole[:9])
    >>> remove_incomplete_entries(folder)
    >>> [file.name for file in folder.glob("*-cache")]
    ['whole-cache']
    """
    last, this = folder / _CHECKED, folder / f"{_CHECKED}-{os.getpid()}"
    with contextlib.suppress(OSError):  # no such folder yet, or a read-only one: JAX handles both
        since = last.stat().st_mtime_ns if last.exists() else 0
        this.touch()  # before the check, by the file system's clock
        with os.scandir(folder) as files:
            new = [Path(file) for file in files if file.name.endswith("-cache") and file.stat().st_mtime_ns >= since]
        for file in new:
            if not _is_complete(file.read_bytes()):
                file.unlink()
        this.replace(last)


@contextlib.contextmanager
def watch_cache() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether all programs compiled within the block came from the cache.

    Programs compiled in other threads do not count.
    """
    from jax import monitoring  # jax is slow to import

    thread, events = threading.get_ident(), Counter[str]()

    def count(event: str, **_: object) -> None:
        if threading.get_ident() == thread:
            events[event] += 1

    monitoring.register_event_listener(count)
    try:
        yield (
            lambda: (
                0
                < events["/jax/compilation_cache/compile_requests_use_cache"]
                == events["/jax/compilation_cache/cache_hits"]
            )
        )
    finally:
        monitoring.unregister_event_listener(count)


def _is_complete(entry: bytes) -> bool:
    """Whether an entry is complete.

    JAX compresses with Zstandard if it is installed. Such an entry is only checked for being non-empty.
    """
    if entry[:1] != b"x":
        return entry.strip(b"\0") != b""
    decompressor = zlib.decompressobj()
    try:
        decompressor.decompress(entry)
    except zlib.error:
        return False
    return decompressor.eof
