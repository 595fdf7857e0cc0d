"""Compiles the C++ kernels: on their first use into the user's cache, and into a wheel.

A library is compiled for one of three sets of instructions, :data:`INSTRUCTIONS`. Its name contains the set and a
digest of everything that it depends on: the sources, the compiler's options, and the version of XLA's interface for
foreign functions (FFI) in the headers of jaxlib. A library that was made from other sources or for another version of
the interface therefore has another name, and is not found. In the cache the name depends on the compiler, too.

This module and what it imports must not import jax, because setup.py runs it before jax is installed.
"""

import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from cnn_jax.runtime.files import make_cache_folder
from cnn_jax.runtime.terminal import say

INSTRUCTIONS = {
    "avx512": ("avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"),
    "avx2": ("avx2", "fma"),
    "sse2": (),
}
"""What a library can be compiled for, the fastest first. The values are flags of the processor in Linux's
``/proc/cpuinfo``, and with ``-m`` before them options of the compiler. Every x86-64 processor has SSE2."""
SOURCES = Path(__file__).parent
# Not -ffast-math: the compiler could then ignore NaNs, and linking with it turns off denormals in the whole process.
_OPTIONS = (
    *("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-mprefer-vector-width=512"),
    *("-shared", "-fPIC", "-fvisibility=hidden", "-static-libstdc++", "-s"),
)


class UnavailableError(Exception):
    """The library cannot be compiled or loaded. The message says why, and what to do."""


def possible_here() -> list[str]:
    """The sets of instructions that this processor has, the fastest first."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return [name for name, needed in INSTRUCTIONS.items() if set(needed) <= set(flags)]


def packaged(instructions: str) -> Path:
    """Where the library is if it was compiled into the installed package for this version of XLA's interface."""
    return SOURCES / _name(instructions)


def add_to_package(folder: Path, instructions: Sequence[str], environ: Mapping[str, str] = os.environ) -> None:
    """Compiles libraries into the package whose sources are in ``folder``, from where :func:`packaged` finds them.

    Args:
      folder: The folder ``cnn_jax/native`` of the package.
      instructions: The sets of instructions.
      environ: See :func:`compiled`.

    Raises:
      UnavailableError: One cannot be compiled here. None is added then.
    """
    libraries = {name: compiled(name, environ) for name in instructions}
    for old in folder.glob("*.so"):
        old.unlink()
    for name, library in libraries.items():
        shutil.copyfile(library, folder / _name(name))


def compiled(instructions: str, environ: Mapping[str, str] = os.environ) -> Path:
    """The library in the user's cache; compiles it if it is not there.

    Args:
      instructions: A key of :data:`INSTRUCTIONS`.
      environ: The environment: the cache folder, ``PATH``, ``CXX`` for another compiler, ``CXXFLAGS`` for more options.

    Raises:
      UnavailableError: It cannot be compiled here, or its folder is not safe.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise UnavailableError(f"they are for Linux on x86-64, not {sys.platform} on {platform.machine()}")
    compiler = _compiler(environ)
    try:
        folder = make_cache_folder("native", environ, mode=0o700)
    except OSError as error:
        raise UnavailableError(f"{error.strerror}; set XDG_CACHE_HOME to a folder that you can write") from error
    _check_safe(folder)
    more = shlex.split(environ.get("CXXFLAGS", ""))
    path = folder / _name(instructions, *more, _version(compiler))
    if not path.exists():
        with _one_at_a_time(folder):
            if not path.exists():  # unless another process has made it meanwhile
                say(f"native CPU kernels: compiling them for {instructions}, once; some seconds", stream=sys.stderr)
                _compile([compiler, *_options(instructions), *more, "-isystem", str(_headers())], path)
    _check_safe(path)
    return path


def _options(instructions: str) -> list[str]:
    return [*_OPTIONS, *(f"-m{flag}" for flag in INSTRUCTIONS[instructions])]


def _name(instructions: str, *more: str) -> str:
    """The file name of a library, after what it depends on."""
    parts = [*_options(instructions), _interface(), *more]
    parts += [path.name + path.read_text() for path in sorted(SOURCES.glob("*.[ch]*"))]
    return f"{instructions}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.so"


def _headers() -> Path:
    """The folder that ``jax.ffi.include_dir()`` returns."""
    found = importlib.util.find_spec("jaxlib")
    if found is None or not found.submodule_search_locations:
        raise UnavailableError("jaxlib, whose headers they need, is not installed")
    return Path(found.submodule_search_locations[0]) / "include"


def _interface() -> str:
    """The version of XLA's interface in jaxlib's headers, such as 0.3."""
    header = _headers() / "xla/ffi/api/c_api.h"
    try:
        text = header.read_text()
    except OSError as error:
        raise UnavailableError(f"{header} of jaxlib cannot be read ({error.strerror}); install jaxlib again") from error
    numbers = dict(re.findall(r"^#define XLA_FFI_API_(MAJOR|MINOR) (\d+)", text, re.M))
    return ".".join(numbers.values())


def _compiler(environ: Mapping[str, str]) -> str:
    names = [environ["CXX"]] if environ.get("CXX") else ["c++", "g++", "clang++"]
    for name in names:
        found = shutil.which(name, path=environ.get("PATH"))
        if found:
            return found
    raise UnavailableError(f"there is no C++ compiler ({', '.join(names)}); install one, such as g++")


def _version(compiler: str) -> str:
    try:
        result = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(f"the compiler {compiler} cannot be run ({error}); set CXX to another") from error
    return f"{compiler} {result.stdout}"


def _check_safe(path: Path) -> None:
    """Refuses a file or folder that another user could have written."""
    status = path.stat()
    if status.st_uid != os.getuid():
        raise UnavailableError(f"{path} belongs to another user; set XDG_CACHE_HOME to a folder of your own")
    if status.st_mode & 0o022:
        raise UnavailableError(f"other users can write {path}; remove it, it is made again with safe permissions")


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Lets one process compile while others wait for it, on file systems that have locks."""
    import fcntl  # which only Unix has; the operations of this project are imported everywhere

    with open(folder / ".lock", "w") as file:
        with suppress(OSError):  # no locks here: both compile, and the last one's file stays
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(command: list[str], path: Path) -> None:
    """Compiles all sources side by side, and links them."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent) as folder:
            library, sources = Path(folder, path.name), sorted(SOURCES.glob("*.cc"))
            objects = [str(Path(folder, source.stem + ".o")) for source in sources]
            each = [[*command, "-c", str(source), "-o", to] for source, to in zip(sources, objects, strict=True)]
            with ThreadPoolExecutor(len(each)) as threads:
                list(threads.map(_run, each))
            _run([*command, *objects, "-o", str(library)])
            library.chmod(0o700)
            library.replace(path)
    except OSError as error:
        reason = f"{path} cannot be written ({error.strerror})"
        raise UnavailableError(f"{reason}; set XDG_CACHE_HOME to a folder that you can write") from error


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if "error" in line] or result.stderr.splitlines()
        reason = lines[0] if lines else f"exit code {result.returncode}"
        raise UnavailableError(f"{command[0]} failed ({reason}); set CXX to another compiler")
