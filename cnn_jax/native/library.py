"""Compiles the C++ kernels into the user's cache, and loads them.

This happens on first use: when a program with one of these kernels is compiled for a CPU, after :func:`enable`. It
takes some seconds, once. The file in the cache is named after everything that it depends on: the sources, jaxlib's
headers, the compiler and its options, and the processor, for which alone it is compiled. It is loaded into this
process, so its folder must belong to the user, and nobody else may write to it.

If it cannot be compiled or loaded, one line says why and what to do about it, and XLA computes everything.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import make_cache_folder
from cnn_jax.runtime.terminal import say

TARGETS = {
    "convolution": "cnn_jax_convolution",
    "batch_norm": "cnn_jax_batch_norm",
    "batch_norm_gradients": "cnn_jax_batch_norm_gradients",
    "window_maxima": "cnn_jax_window_maxima",
    "window_maxima_gradient": "cnn_jax_window_maxima_gradient",
    "window_sums": "cnn_jax_window_sums",
}
"""The names of the functions in the library, under which XLA knows them."""
SOURCES = Path(__file__).parent
SWITCH = "CNN_JAX_NATIVE"
# Not -ffast-math: the compiler could then ignore NaNs, and linking with it turns off denormals in the whole process.
OPTIONS = (
    *("-std=c++17", "-O3", "-march=native", "-mprefer-vector-width=512"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    *("-shared", "-fPIC", "-fvisibility=hidden", "-static-libstdc++", "-s"),
)
_INSTRUCTIONS = {16: "AVX-512", 8: "AVX", 4: "SSE"}  # by the lanes of a vector


class UnavailableError(Exception):
    """The library cannot be compiled or loaded. The message says why, and what to do."""


class _State:
    """Whether the kernels are to be used, and what came of it. They are compiled and loaded at most once."""

    wanted = False
    instructions: str | None = None  # of the loaded library; empty if it cannot be loaded, None if it was not tried
    reason = "cnn_jax.enable_native() turns them on"  # why they are not used
    lock = threading.RLock()


def enable(on: bool = True, *, environ: Mapping[str, str] = os.environ) -> None:
    """Uses the native CPU kernels, or stops using them, in programs that are compiled from now on.

    They are compiled at their first use, which takes some seconds, and kept in the user's cache folder. This needs a
    C++ compiler, Linux and an x86-64 processor. Otherwise one line says what is missing, and XLA computes everything.
    Programs that were compiled before stay as they are; ``jax.clear_caches()`` makes JAX compile them again. With the
    environment variable ``CNN_JAX_NATIVE=0`` the kernels stay off.

    Args:
      on: Whether to use them.
      environ: The environment with ``CNN_JAX_NATIVE``.

    Raises:
      UsageError: ``CNN_JAX_NATIVE`` is neither 0 nor 1.

    >>> import cnn_jax
    >>> cnn_jax.enable_native()
    """
    switch = environ.get(SWITCH) or "1"
    if switch not in ("0", "1"):
        raise UsageError(f"{SWITCH}={switch!r} must be 0, for no native CPU kernels, or 1")
    with _State.lock:
        _State.wanted = on and switch == "1"
        if _State.instructions != "":
            _State.reason = f"{SWITCH}=0" if switch == "0" else "cnn_jax.enable_native() turns them on"


def is_wanted() -> bool:
    """Whether the kernels are to be used where they can be, which is not known before a program is compiled."""
    return _State.wanted


def is_enabled() -> bool:
    """Whether the kernels can be called. Compiles and loads them if they are to be used and this was not tried yet."""
    with _State.lock:
        if _State.wanted and _State.instructions is None:
            try:
                _State.instructions = _load()
            except UnavailableError as error:
                _State.instructions, _State.reason = "", str(error)
                slower = f"XLA computes everything, more slowly; {SWITCH}=0 hides this line"
                say(f"native CPU kernels: off; {error}; {slower}", stream=sys.stderr)
        return _State.wanted and bool(_State.instructions)


def describe() -> str:
    """Whether the kernels are in use, and why not, for records of runs and benchmarks."""
    return f"on, {_State.instructions}" if is_enabled() else f"off; {_State.reason}"


def _load() -> str:
    """Loads the library, compiled if necessary, and registers its functions; returns the instructions that it uses."""
    import jax  # slow to import

    path = compiled_library()
    try:
        library = ctypes.CDLL(str(path))
        for name in TARGETS.values():
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    except (OSError, AttributeError) as error:
        raise UnavailableError(f"{path} cannot be loaded ({error}); remove it, so that it is compiled again") from error
    return _INSTRUCTIONS[library.cnn_jax_lanes()]


def compiled_library(environ: Mapping[str, str] = os.environ) -> Path:
    """The compiled library in the user's cache; compiles it if it is not there.

    Args:
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
    options = [*OPTIONS, *shlex.split(environ.get("CXXFLAGS", ""))]
    command = [*compiler, *options, "-isystem", _headers(), *map(str, sorted(SOURCES.glob("*.cc")))]
    path = folder / f"cnn_jax-{_fingerprint(command)}.so"
    if not path.exists():
        with _one_at_a_time(folder):
            if not path.exists():  # unless another process has made it meanwhile
                _compile(command, path)
    _check_safe(path)
    return path


def _compiler(environ: Mapping[str, str]) -> list[str]:
    """The command of the C++ compiler."""
    names = [environ["CXX"]] if environ.get("CXX") else ["c++", "g++", "clang++"]
    for name in names:
        found = shutil.which(name, path=environ.get("PATH"))
        if found:
            return [found]
    raise UnavailableError(f"there is no C++ compiler ({', '.join(names)}); install one, such as g++")


def _headers() -> str:
    import jax

    return jax.ffi.include_dir()


def _fingerprint(command: list[str]) -> str:
    """A name for everything that the compiled library depends on."""
    from importlib import metadata

    parts = [" ".join(command[1:]), metadata.version("jaxlib"), _processor(), _version(command[0])]
    parts += [path.name + path.read_text() for path in sorted(SOURCES.glob("*.[ch]*"))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _version(compiler: str) -> str:
    try:
        result = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(f"the compiler {compiler} cannot be run ({error}); set CXX to another") from error
    return f"{compiler} {result.stdout}"


def _processor() -> str:
    """The model and the instructions of the processor, which ``-march=native`` stands for."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(("model name", "flags"))))


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
    say("native CPU kernels: compiling them for this processor, once; some seconds", stream=sys.stderr)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        result = subprocess.run([*command, "-o", str(temporary)], capture_output=True, text=True, check=False)
        if result.returncode:
            lines = [line for line in result.stderr.splitlines() if "error" in line] or result.stderr.splitlines()
            reason = lines[0] if lines else f"exit code {result.returncode}"
            raise UnavailableError(f"{command[0]} failed ({reason}); set CXX to another compiler")
        temporary.chmod(0o700)
        temporary.replace(path)
    except OSError as error:
        reason = f"{path} cannot be written ({error.strerror})"
        raise UnavailableError(f"{reason}; set XDG_CACHE_HOME to a folder that you can write") from error
    finally:
        temporary.unlink(missing_ok=True)
