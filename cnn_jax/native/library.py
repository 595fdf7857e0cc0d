"""Loads the compiled kernels into this process, and says whether they are used.

This happens on first use: when a program with one of these kernels is compiled for a CPU, after :func:`enable`. The
library is the one in the installed package, if it was compiled with it, or else that in the user's cache, where it is
compiled if necessary. It is the one for the fastest instructions that this processor has.

If it cannot be compiled or loaded, one line says why and what to do about it, and XLA computes everything.
"""

import ctypes
import os
import sys
import threading
from collections.abc import Mapping

from cnn_jax.errors import UsageError
from cnn_jax.native import build
from cnn_jax.native.build import INSTRUCTIONS, UnavailableError
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
SWITCH = "CNN_JAX_NATIVE"


class _State:
    """Whether the kernels are to be used, and what came of it. They are compiled and loaded at most once."""

    wanted = False
    choice = ""  # the instructions to load it for
    instructions: str | None = None  # of the loaded library; empty if it cannot be loaded, None if it was not tried
    reason = "cnn_jax.enable_native() turns them on"  # why they are not used
    lock = threading.RLock()


def enable(on: bool = True, *, environ: Mapping[str, str] = os.environ) -> None:
    """Uses the native CPU kernels, or stops using them, in programs that are compiled from now on.

    A package that was installed where there is a C++ compiler has them. Otherwise they are compiled at their first use,
    which takes some seconds, and kept in the user's cache folder. They are for Linux on x86-64 processors. If something
    is missing, one line says so, and XLA computes everything. Programs that were compiled before stay as they are;
    ``jax.clear_caches()`` makes JAX compile them again. With the environment variable ``CNN_JAX_NATIVE=0`` the kernels
    stay off; with ``avx512``, ``avx2`` or ``sse2`` those for these instructions are used.

    Args:
      on: Whether to use them.
      environ: The environment with ``CNN_JAX_NATIVE``.

    Raises:
      UsageError: ``CNN_JAX_NATIVE`` has another value, or this processor does not have these instructions.

    >>> import cnn_jax
    >>> cnn_jax.enable_native()
    """
    switch = environ.get(SWITCH) or "1"
    if switch not in ("0", "1", *INSTRUCTIONS):
        raise UsageError(f"{SWITCH}={switch!r} must be 0, for no native CPU kernels, 1, or {', '.join(INSTRUCTIONS)}")
    here = build.possible_here()
    if switch in INSTRUCTIONS and switch not in here:
        raise UsageError(f"{SWITCH}={switch}: this processor does not have them, but {', '.join(here)}; or use 1")
    with _State.lock:
        _State.wanted = on and switch != "0"
        _State.choice = switch if switch in INSTRUCTIONS else here[0]
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
                _State.instructions = _load(_State.choice)
            except UnavailableError as error:
                _State.instructions, _State.reason = "", str(error)
                slower = f"XLA computes everything, more slowly; {SWITCH}=0 hides this line"
                say(f"native CPU kernels: off; {error}; {slower}", stream=sys.stderr)
        return _State.wanted and bool(_State.instructions)


def describe() -> str:
    """Whether the kernels are in use, and why not, for records of runs and benchmarks."""
    return f"on, {_State.instructions}" if is_enabled() else f"off; {_State.reason}"


def _load(instructions: str) -> str:
    """Loads the library for some instructions, and registers its functions; returns the instructions."""
    import jax  # slow to import

    path = build.packaged(instructions)  # as trustworthy as the rest of the package
    if not path.exists():
        path = build.compiled(instructions)
    try:
        library = ctypes.CDLL(str(path))
        for name in TARGETS.values():
            jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    except (OSError, AttributeError, RuntimeError) as error:  # RuntimeError: XLA does not accept the function
        raise UnavailableError(f"{path} cannot be loaded ({error}); remove it, so that it is compiled again") from error
    return instructions
