"""The lectures' examples are checked in float64, so that a right answer differs by rounding only."""

import jax
import pytest


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield
