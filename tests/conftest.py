"""Common settings of all tests: eight simulated devices, optional float64, and a shared compilation cache."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8").strip()
os.environ.setdefault("MPLBACKEND", "Agg")
import tempfile

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Processes of one run of pytest share what they compile: its workers, and every ``launch.py`` that they start."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="cnn_jax-compiled-")
        config.add_cleanup(folder.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
