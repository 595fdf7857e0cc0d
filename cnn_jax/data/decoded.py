"""Decoded data sets, kept in the user's cache folder: a set is decoded once, not at every start.

Decoding the 60,000 digits of MNIST takes 5 s, reading them decoded a twentieth of a second.
"""

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from cnn_jax.data.dataset import Arrays
from cnn_jax.runtime.files import cache_folder, open_atomically

WORTH_KEEPING = 1000  # examples; fewer are decoded in no time
MOST_OF_A_SET = 1 << 30  # bytes
MOST_OF_ALL = 4 << 30

PREFIX = "field_"  # of the names in a file: numpy.savez has arguments that fields may be called as


def decoded_once(identity: str, count: int, num_bytes: int, decode: Callable[[], Arrays]) -> Arrays:
    """Arrays: as they were kept, or decoded now, and kept if they are many but not too large.

    A kept file that is damaged, or a folder that cannot be written, costs only the time of decoding. The sets that
    were not used for longest make room for new ones.

    Args:
      identity: A text that changes when the data, or what is made of them, change.
      count: The number of examples.
      num_bytes: Of the arrays.
      decode: Reads and decodes them.
    """
    if count < WORTH_KEEPING or num_bytes > MOST_OF_A_SET:
        return decode()
    key = hashlib.sha256(f"{identity} Pillow {PIL.__version__}".encode()).hexdigest()[:32]
    folder = cache_folder("decoded")
    if folder is None:
        return decode()
    path = folder / f"{key}.npz"
    damages = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
    with contextlib.suppress(*damages), open(path, "rb") as opened, np.load(opened) as kept:
        os.utime(path)
        return {name.removeprefix(PREFIX): kept[name] for name in kept.files}
    arrays = decode()
    with contextlib.suppress(OSError):  # a full or read-only disk: nothing is kept
        _make_room(folder, num_bytes)
        with open_atomically(path) as file:
            named: dict[str, Any] = {f"{PREFIX}{name}": array for name, array in arrays.items()}
            np.savez(file, **named)
    return arrays


def _make_room(folder: Path, num_bytes: int) -> None:
    """Removes the sets that were not used for longest, until one more fits."""
    kept = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob("*.npz"))
    room = MOST_OF_ALL - num_bytes - sum(size for _, size, _ in kept)
    for _, size, path in kept:
        if room >= 0:
            break
        path.unlink(missing_ok=True)
        room += size
