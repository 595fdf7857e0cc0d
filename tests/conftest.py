"""Common settings of all tests: eight simulated devices, optional float64, fast compilation and a compilation cache."""

import gc
import os
import tempfile
from collections.abc import Iterator

import pytest

from tests import quick
from tests.report.browser import Tab, tab

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# If a flag is given twice, the last one counts, so the user's flags override these.
_FLAGS = [quick.XLA_FLAGS, os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
os.environ["XLA_FLAGS"] = " ".join(filter(None, _FLAGS))
os.environ.setdefault("MPLBACKEND", "Agg")
# tests/native turns the kernels on for itself; with 1, or avx2, all tests use them.
os.environ.setdefault("CNN_JAX_NATIVE", "0")
gc.set_threshold(100_000, 20, 50)  # garbage collection took a quarter of the time of tracing


def pytest_configure(config: pytest.Config) -> None:
    """All processes of a run of pytest share a compilation cache, and one process of which ``launch.py`` is forked.

    They are the workers and every process that these start. With ``JAX_COMPILATION_CACHE_DIR`` several runs share it.
    """
    if os.environ["CNN_JAX_NATIVE"] != "0":
        from cnn_jax import native

        native.enable()
    if hasattr(config, "workerinput"):
        return
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    folder = tempfile.TemporaryDirectory(prefix="cnn_jax-tests-")
    config.add_cleanup(folder.cleanup)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{folder.name}/compiled")
    os.environ["CNN_JAX_WARM"] = f"{folder.name}/warm"  # for tests/launch/process.py


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """One browser for all tests of pages."""
    with tab(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(autouse=True, scope="module")
def no_programs_of_other_modules() -> Iterator[None]:
    """Clears JAX's caches after a module: each program that JAX 0.10 keeps makes lowering of later programs slower."""
    yield
    import jax

    jax.clear_caches()
