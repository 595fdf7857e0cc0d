"""Huge pages for large arrays: on a Linux CPU training steps take a fifth to two fifths less time.

The C library takes a large array from the system anew each time, which hands it out, cleared, in pages of 4 KiB: a
training step of VGG-A spends a third of its time on that. glibc 2.35 and later asks for pages of 2 MiB instead where
``GLIBC_TUNABLES`` says ``glibc.malloc.hugetlb=1``, and reads that when a process starts, not later. So ``launch.py``
starts itself again with it; ``import cnn_jax`` never does. In your own program set it in the shell::

    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python train.py

Where the system gives huge pages to everybody or to nobody (``/sys/kernel/mm/transparent_hugepage/enabled``), or the
C library is another, nothing is set. This module must not import jax.
"""

import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

_TUNABLE = "glibc.malloc.hugetlb"
_SYSTEM = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def recommended_glibc_tunables() -> str:
    """What this machine should be given as ``GLIBC_TUNABLES``; empty where it would change nothing."""
    return f"{_TUNABLE}=1" if _on_request(_SYSTEM) and _glibc() >= (2, 35) else ""


def _on_request(system: Path) -> bool:
    """Whether the system gives huge pages to those who ask for them."""
    try:
        return "[madvise]" in system.read_text()
    except OSError:
        return False


def _glibc() -> tuple[int, int]:
    """The version of glibc, (0, 0) of another C library."""
    try:
        version = (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ")
        major, minor = version.split(".")[:2]
        return int(major), int(minor)
    except (ValueError, OSError, AttributeError):
        return 0, 0


def apply_recommended_tunables(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Adds the recommended tunable to ``GLIBC_TUNABLES``, unless the user has set that tunable.

    Returns:
      Whether it was added; it takes effect in the processes started with this environment.

    >>> environment = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    >>> apply_recommended_tunables(environment), environment["GLIBC_TUNABLES"]
    (False, 'glibc.malloc.hugetlb=0')
    """
    present = [part for part in environ.get("GLIBC_TUNABLES", "").split(":") if part]
    recommended = recommended_glibc_tunables()
    if not recommended or any(part.split("=")[0] == _TUNABLE for part in present):
        return False
    environ["GLIBC_TUNABLES"] = ":".join([*present, recommended])
    return True


def in_words(environ: Mapping[str, str] = os.environ) -> str:
    """How this process gets its memory, for the log.

    >>> in_words({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}), in_words({})
    ('memory: glibc.malloc.hugetlb=1', 'memory: as the system gives it')
    """
    return f"memory: {environ.get('GLIBC_TUNABLES') or 'as the system gives it'}"


def start_again_with_huge_pages() -> None:
    """Replaces this process by itself, started with the recommended tunable; returns where it has it or has no use."""
    if apply_recommended_tunables(os.environ):
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
