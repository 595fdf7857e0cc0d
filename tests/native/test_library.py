"""Compiling, finding and loading the native kernels; what happens where that is not possible."""

import os
import re
import shutil
import stat
import threading
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import native, ops
from cnn_jax.errors import UsageError
from cnn_jax.native import build, library
from cnn_jax.native.build import UnavailableError, compiled


@pytest.fixture
def untried(monkeypatch):
    """As in a process that has not tried to load the kernels."""
    for name, value in {
        "wanted": False,
        "choice": "",
        "instructions": None,
        "reason": "cnn_jax.enable_native() turns them on",
    }.items():
        monkeypatch.setattr(library._State, name, value)


@pytest.fixture
def place(tmp_path):
    """An environment with an empty cache and a compiler that takes its time, writes nonsense and logs what it links."""
    compiler = tmp_path / "compiler"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo 1.0 && exit\n'
        f'case " $* " in *" -c "*) ;; *) sleep 0.1; echo run >> {tmp_path}/log;; esac\n'
        'while [ "$1" != -o ]; do shift; done\necho nonsense > "$2"\n'
    )
    compiler.chmod(0o755)
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "CXX": str(compiler), "PATH": os.environ["PATH"]}


def runs(tmp_path):
    log = tmp_path / "log"
    return len(log.read_text().split()) if log.exists() else 0


def test_it_is_compiled_once_whoever_needs_it(place, tmp_path, capsys):
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(compiled("sse2", place))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert compiled("sse2", place) == found[0]
    assert runs(tmp_path) == 1
    assert capsys.readouterr().err.count("native CPU kernels: compiling them for sse2, once") == 1
    assert found[0].read_text() == "nonsense\n"
    assert stat.S_IMODE(found[0].parent.stat().st_mode) == 0o700
    assert {path.name for path in found[0].parent.iterdir()} == {found[0].name, ".lock"}, "no temporary files"


def test_its_name_is_what_it_depends_on(place, tmp_path, monkeypatch):
    """In the package there is no compiler, so its version is no part of the name."""
    names = {"in the cache": [], "in the package": []}

    def note(instructions="avx2", environ=place):
        names["in the cache"].append(compiled(instructions, environ).name)
        names["in the package"].append(build.packaged(instructions).name)

    note()
    other = tmp_path / "other"
    other.write_text(Path(place["CXX"]).read_text().replace("echo 1.0", "echo 2.0"))
    other.chmod(0o755)
    note(environ=place | {"CXX": str(other)})
    note(environ=place | {"CXXFLAGS": "-g"})
    assert len(set(names["in the package"])) == 1
    names["in the package"] = names["in the package"][:1]
    note("sse2")
    header = tmp_path / "xla/ffi/api/c_api.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define XLA_FFI_API_MAJOR 1\n#define XLA_FFI_API_MINOR 0\n")
    monkeypatch.setattr(build, "_headers", lambda: tmp_path)
    note()
    copy = tmp_path / "sources"
    copy.mkdir()
    (copy / "one.cc").write_text("int one;")
    monkeypatch.setattr(build, "SOURCES", copy)
    note()
    (copy / "one.cc").write_text("int two;")
    note()
    assert [len(set(each)) for each in names.values()] == [len(each) for each in names.values()] == [7, 5]
    assert runs(tmp_path) == 7


def test_the_version_of_the_interface_is_that_of_jax():
    assert build._headers() == Path(jax.ffi.include_dir())
    assert re.fullmatch(r"\d+\.\d+", build._interface())


def test_a_package_has_the_libraries_it_was_compiled_with(place, tmp_path, untried, monkeypatch):
    """They are used instead of compiling, unless they are of another version."""
    folder = tmp_path / "cnn_jax" / "native"
    shutil.copytree(build.SOURCES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "sse2-of-an-older-version.so").touch()
    build.add_to_package(folder, ["avx2", "sse2"], place)
    assert [path.name[:4] for path in sorted(folder.glob("*.so"))] == ["avx2", "sse2"]
    assert runs(tmp_path) == 2
    monkeypatch.setattr(build, "SOURCES", folder)
    loaded = []
    monkeypatch.setattr(library.ctypes, "CDLL", lambda path: loaded.append(Path(path)) or 1 / 0)
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    for instructions in ("sse2", "avx512"):
        with pytest.raises(ZeroDivisionError):
            library._load(instructions)
    assert loaded[0].parent == folder
    assert loaded[1].parent == tmp_path / "cache" / "cnn_jax" / "native", "the package has none for AVX-512"
    (folder / "new.h").touch()
    with pytest.raises(ZeroDivisionError):
        library._load("sse2")
    assert loaded[2].parent == loaded[1].parent, "that in the package is from other sources"


def test_the_processor_decides(untried, monkeypatch, tmp_path):
    flags = {
        "flags\t: fpu sse2 avx avx2 fma avx512f avx512bw avx512dq avx512vl": ["avx512", "avx2", "sse2"],
        "flags\t: fpu sse2 avx avx2 fma avx512f": ["avx2", "sse2"],
        "flags\t: fpu sse2 avx avx2x": ["sse2"],
        "": ["sse2"],
    }
    chosen = []
    monkeypatch.setattr(library, "_load", lambda instructions: chosen.append(instructions) or instructions)
    for line, possible in flags.items():
        monkeypatch.setattr(build.Path, "read_text", lambda path, line=line: f"processor\t: 0\n{line}\n")
        assert build.possible_here() == possible
        library._State.instructions = None
        native.enable(environ={})
        assert native.describe() == f"on, {possible[0]}"
    with pytest.raises(UsageError, match="CNN_JAX_NATIVE=avx2: this processor does not have them, but sse2; or use 1"):
        native.enable(environ={"CNN_JAX_NATIVE": "avx2"})


def broken(tmp_path, script):
    compiler = tmp_path / "broken"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    return str(compiler)


def test_where_it_cannot_be_one_line_says_why(place, tmp_path, monkeypatch):
    def reason(**changes):
        with pytest.raises(UnavailableError) as error:
            compiled("sse2", place | changes)
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
    path = compiled("sse2", place)
    path.chmod(0o722)
    assert f"other users can write {path}" in reason()
    path.chmod(0o700)
    monkeypatch.setattr(os, "getuid", lambda: os.stat(path).st_uid + 1)
    assert "belongs to another user; set XDG_CACHE_HOME" in reason()
    monkeypatch.setattr(build.platform, "machine", lambda: "riscv64")
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
    monkeypatch.setattr(library, "_load", lambda instructions: instructions)
    assert native.describe() == "off; cnn_jax.enable_native() turns them on"
    native.enable(environ={"CNN_JAX_NATIVE": "0"})
    assert native.describe() == "off; CNN_JAX_NATIVE=0"
    native.enable(environ={"CNN_JAX_NATIVE": "sse2"})
    assert native.describe() == "on, sse2"
    native.enable(False, environ={"CNN_JAX_NATIVE": "1"})
    assert native.describe() == "off; cnn_jax.enable_native() turns them on"
    with pytest.raises(UsageError, match="CNN_JAX_NATIVE='off' must be 0, for no native CPU kernels, 1, or avx512, "):
        native.enable(environ={"CNN_JAX_NATIVE": "off"})
    assert np.all(np.asarray(ops.conv(jnp.ones((1, 3, 1)), jnp.ones((3, 1, 1)))) == 3)


def test_the_wheel_has_the_sources():
    root = build.SOURCES.parents[1]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    sources = [path for path in build.SOURCES.iterdir() if path.suffix not in ("", ".py")]
    assert any(path.suffix == ".cc" for path in sources)
    for path in sources:
        assert any(path.match(pattern) for pattern in patterns["cnn_jax.native"]), path
