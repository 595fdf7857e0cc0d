"""Data that some tests need and that is not part of the project."""

import os

import pytest

from cnn_jax.data.tfds import tfds_builder

PREPARED_SETS_ARE_REQUIRED = os.environ.get("CNN_JAX_REQUIRE_DATA") == "1"


def require_data(name: str) -> None:
    """Skips the test if TFDS has not prepared the data set; with CNN_JAX_REQUIRE_DATA=1 the test fails instead."""
    if tfds_builder(name).info.splits:
        return
    reason = f"{name} is not prepared: python -m cnn_jax.data.prepare {name}"
    if PREPARED_SETS_ARE_REQUIRED:
        pytest.fail(reason + " (CNN_JAX_REQUIRE_DATA=1)")
    pytest.skip(reason)
