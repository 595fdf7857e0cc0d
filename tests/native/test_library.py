"""Compiling, finding and loading the native kernels; what happens where that is not possible."""

import os
import stat
import threading
import tomllib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import native, ops
from cnn_jax.errors import UsageError
from cnn_jax.native import library
from cnn_jax.native.library import UnavailableError, compiled_library


@pytest.fixture
def untried(monkeypatch):
    """As in a process that has not tried to load the kernels."""
    for name, value in {
        "wanted": False,
        "instructions": None,
        "reason": "cnn_jax.enable_native() turns them on",
    }.items():
        monkeypatch.setattr(library._State, name, value)


@pytest.fixture
def place(tmp_path):
    """An environment with an empty cache and a compiler that takes its time, writes nonsense and keeps a log."""
    compiler = tmp_path / "compiler"
    compiler.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo 1.0 && exit\nsleep 0.2\necho run >> {tmp_path}/log\n'
        'while [ "$1" != -o ]; do shift; done\necho nonsense > "$2"\n'
    )
    compiler.chmod(0o755)
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "CXX": str(compiler), "PATH": os.environ["PATH"]}


def runs(tmp_path):
    log = tmp_path / "log"
    return len(log.read_text().split()) if log.exists() else 0


def test_it_is_compiled_once_whoever_needs_it(place, tmp_path, capsys):
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(compiled_library(place))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert compiled_library(place) == found[0]
    assert runs(tmp_path) == 1
    assert capsys.readouterr().err.count("native CPU kernels: compiling them for this processor, once") == 1
    assert found[0].read_text() == "nonsense\n"
    assert stat.S_IMODE(found[0].parent.stat().st_mode) == 0o700
    assert [path.name for path in found[0].parent.glob("*.so*")] == [found[0].name], "no temporary files"


def test_its_name_is_what_it_depends_on(place, tmp_path, monkeypatch):
    def name(environ=place):
        return compiled_library(environ).name

    names = [name()]
    other = tmp_path / "other"
    other.write_text(Path(place["CXX"]).read_text().replace("echo 1.0", "echo 2.0"))
    other.chmod(0o755)
    names.append(name(place | {"CXX": str(other)}))
    monkeypatch.setattr(library, "_processor", lambda: "another")
    names.append(name())
    copy = tmp_path / "sources"
    copy.mkdir()
    (copy / "one.cc").write_text("int one;")
    monkeypatch.setattr(library, "SOURCES", copy)
    names.append(name())
    (copy / "one.cc").write_text("int two;")
    names.append(name())
    assert len(set(names)) == len(names) == runs(tmp_path)


def broken(tmp_path, script):
    compiler = tmp_path / "broken"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    return str(compiler)


def test_where_it_cannot_be_one_line_says_why(place, tmp_path, monkeypatch):
    def reason(**changes):
        with pytest.raises(UnavailableError) as error:
            compiled_library(place | changes)
        return str(error.value)

    empty = tmp_path / "empty"
    empty.mkdir()
    wanted = r"there is no C++ compiler (c++, g++, clang++); install one, such as g++"
    assert reason(CXX="", PATH=str(empty)) == wanted
    assert "nowhere" in reason(CXX="nowhere")
    (tmp_path / "file").touch()
    assert "cannot be made" in reason(XDG_CACHE_HOME=str(tmp_path / "file"))
    failing = broken(tmp_path, 'echo "one.cc:1: error: no such thing" >&2; [ "$1" = --version ]')
    assert f"{failing} failed (one.cc:1: error: no such thing)" in reason(CXX=failing)
    (tmp_path / "cache" / "cnn_jax" / "native").chmod(0o777)
    assert "other users can write" in reason()
    (tmp_path / "cache" / "cnn_jax" / "native").chmod(0o700)
    path = compiled_library(place)
    path.chmod(0o722)
    assert f"other users can write {path}" in reason()
    path.chmod(0o700)
    monkeypatch.setattr(os, "getuid", lambda: os.stat(path).st_uid + 1)
    assert "belongs to another user; set XDG_CACHE_HOME" in reason()
    monkeypatch.setattr(library.platform, "machine", lambda: "riscv64")
    assert "they are for Linux on x86-64, not linux on riscv64" in reason()


def test_a_library_that_cannot_be_loaded_leaves_everything_to_xla(place, untried, monkeypatch, capsys):
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    native.enable(environ={})
    x, kernel = jnp.ones((1, 5, 5, 8)), jnp.ones((3, 3, 8, 8))
    assert float(ops.conv(x, kernel)[0, 0, 0, 0]) == 72
    assert not native.is_enabled()
    lines = [line for line in capsys.readouterr().err.splitlines() if "compiling" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("native CPU kernels: off; ")
    assert lines[0].endswith("XLA computes everything, more slowly; CNN_JAX_NATIVE=0 hides this line")
    assert "cannot be loaded" in native.describe()
    with pytest.raises(UsageError, match=r"method='native' needs the native CPU kernels, which are off; .* cannot be"):
        ops.conv(x, kernel, method="native")


def test_the_switch(untried, monkeypatch):
    monkeypatch.setattr(library, "_load", lambda: "AVX-512")
    assert native.describe() == "off; cnn_jax.enable_native() turns them on"
    native.enable(environ={"CNN_JAX_NATIVE": "0"})
    assert native.describe() == "off; CNN_JAX_NATIVE=0"
    native.enable(environ={})
    assert native.describe() == "on, AVX-512"
    native.enable(False, environ={"CNN_JAX_NATIVE": "1"})
    assert native.describe() == "off; cnn_jax.enable_native() turns them on"
    with pytest.raises(UsageError, match="CNN_JAX_NATIVE='off' must be 0, for no native CPU kernels, or 1"):
        native.enable(environ={"CNN_JAX_NATIVE": "off"})
    assert np.all(np.asarray(ops.conv(jnp.ones((1, 3, 1)), jnp.ones((3, 1, 1)))) == 3)


def test_the_wheel_has_the_sources():
    root = library.SOURCES.parents[1]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    sources = [path for path in library.SOURCES.iterdir() if path.suffix not in ("", ".py")]
    assert any(path.suffix == ".cc" for path in sources)
    for path in sources:
        assert any(path.match(pattern) for pattern in patterns["cnn_jax.native"]), path
