"""Common settings of all tests: eight simulated devices, optional float64, quick compilation, and a cache of it."""

import gc
import os
import tempfile
from collections.abc import Iterator

import pytest

from tests import quick

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Of a flag that is given twice the last counts: the user's may be others.
_FLAGS = [quick.XLA_FLAGS, os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
os.environ["XLA_FLAGS"] = " ".join(filter(None, _FLAGS))
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("CNN_JAX_NATIVE", "0")  # tests/native turns the kernels on for itself; with 1 all tests use them
gc.set_threshold(100_000, 20, 50)  # tracing creates many objects: looking for garbage was a quarter of its time


def pytest_configure(config: pytest.Config) -> None:
    """Processes of one run of pytest share what they compile: its workers, and every ``launch.py`` that they start.

    With ``JAX_COMPILATION_CACHE_DIR`` several runs share it.
    """
    if os.environ["CNN_JAX_NATIVE"] == "1":
        from cnn_jax import native

        native.enable()
    if hasattr(config, "workerinput"):
        return
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="cnn_jax-compiled-")
        config.add_cleanup(folder.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name


@pytest.fixture(autouse=True, scope="module")
def no_programs_of_other_modules() -> Iterator[None]:
    """Forgets what a module has compiled: each program that JAX 0.10 keeps makes lowering of all later ones slower."""
    yield
    import jax

    jax.clear_caches()
