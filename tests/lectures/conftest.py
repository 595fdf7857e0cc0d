"""Runs the lectures' examples in float64, so that correct results differ only by rounding."""

import jax
import pytest


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield
