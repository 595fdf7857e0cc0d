"""The native kernels, which the other tests do without unless CNN_JAX_NATIVE says otherwise."""

import os
import shutil
from collections.abc import Iterator

import jax
import pytest

from cnn_jax import native
from cnn_jax.native import library


@pytest.fixture
def kernels() -> Iterator[None]:
    """Turns the kernels on. The programs of the test are not kept."""
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    before = library._State.wanted
    switch = os.environ[library.SWITCH]
    native.enable(environ={} if switch == "0" else {library.SWITCH: switch})
    assert native.is_enabled(), native.describe()
    jax.clear_caches()
    yield
    native.enable(before, environ={})
    jax.clear_caches()
