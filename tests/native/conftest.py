"""The native kernels, which the other tests do without unless CNN_JAX_NATIVE says otherwise."""

import os
import shutil
from collections.abc import Iterator

import jax
import pytest

from cnn_jax import native
from cnn_jax.native import library


def enable() -> None:
    """Turns the kernels on, for the instructions that CNN_JAX_NATIVE asks for."""
    switch = os.environ.get(library.SWITCH, "0")
    native.enable(environ={} if switch == "0" else {library.SWITCH: switch})
    assert native.is_enabled(), native.describe()
    assert switch in ("0", "1") or native.describe() == f"on, {switch}"


@pytest.fixture
def kernels() -> Iterator[None]:
    """Turns the kernels on. The programs of the test are not kept."""
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    before = library._State.wanted
    enable()
    jax.clear_caches()
    yield
    native.enable(before, environ={})
    jax.clear_caches()
