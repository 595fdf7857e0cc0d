"""How much memory is available to a process, and how to give back what it does not use."""

import contextlib
import ctypes
import os
from pathlib import Path


def available_memory(machine: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns the bytes that are free or used only as file cache, within the memory limit of a container.

    Args:
      machine: Linux's file about the memory of the machine. If it is missing, only free memory counts (macOS: all).
      group: Linux's folder for the control group of a container or job. If it is missing, there is no limit.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "meminfo").write_text("MemFree: 1 kB\\nMemAvailable: 3 kB\\n")
    >>> available_memory(folder / "meminfo", folder)
    3072
    >>> for name, text in [("max", "2000"), ("current", "1500"), ("stat", "anon 500\\ninactive_file 1000\\n")]:
    ...     _ = (folder / f"memory.{name}").write_text(text)
    >>> available_memory(folder / "meminfo", folder)
    1500
    """
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    available = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, LookupError):
        available = 1024 * int(_fields(machine)["MemAvailable:"])
    with contextlib.suppress(OSError, LookupError, ValueError):  # "max": there is no limit
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        given_up = int(_fields(group / "memory.stat")["inactive_file"])
        available = min(available, max(limit - used + given_up, 0))
    return available


def _fields(path: Path) -> dict[str, str]:
    return {name: value for name, value, *_ in map(str.split, path.read_text().splitlines())}


def release_freed_memory() -> None:
    """Gives memory that was freed, such as a compiler's, back to the system; without glibc does nothing.

    glibc keeps it for the next small allocations, but the arrays of a training step are large ones, which come from
    elsewhere. So the two would add up: to 1,473 MiB instead of 1,011 for GoogLeNet.

    >>> release_freed_memory()
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # TypeError: there is no CDLL(None) on Windows
        ctypes.CDLL(None).malloc_trim(0)
