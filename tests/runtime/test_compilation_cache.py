"""Complete and incomplete entries of JAX's compilation cache."""

import errno
import os
import pwd
import random
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from cnn_jax.errors import UsageError
from cnn_jax.report.compilation import Compilation
from cnn_jax.runtime.compilation_cache import enable_compilation_cache
from cnn_jax.runtime.files import user_path


def test_incomplete_entries_are_removed(tmp_path: Path) -> None:
    @jax.jit
    def program_of_this_test(x):
        return jnp.sin(x).sum()

    program_of_this_test(jnp.ones(3))
    entry, *_ = Path(os.environ["JAX_COMPILATION_CACHE_DIR"]).glob("jit_program_of_this_test-*-cache")
    content = entry.read_bytes()

    def start() -> list[str]:
        enable_compilation_cache({"JAX_COMPILATION_CACHE_DIR": str(tmp_path)})
        return sorted(file.name for file in tmp_path.iterdir() if not file.name.startswith("."))

    shutil.copy2(entry, tmp_path / "whole-cache")
    for part in (0, 1, len(content) // 2, len(content) - 1):
        (tmp_path / f"{part}-cache").write_bytes(content[:part])
    (tmp_path / "sunk-cache").write_bytes(bytes(len(content)))  # after a crash a file system may have only the length
    (tmp_path / "another file").touch()
    assert start() == ["another file", "whole-cache"]
    (tmp_path / "later-cache").write_bytes(content[:-9])
    assert start() == ["another file", "whole-cache"]
    assert start() == ["another file", "whole-cache"]


def test_the_environment_has_the_last_word(tmp_path: Path) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "5"}
    enable_compilation_cache(environ)
    assert environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "cnn_jax/compiled")
    assert environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "5"


def test_no_cache_where_none_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that cannot be created (inside a file), one without write permission, and a user without a home."""
    (tmp_path / "file").touch()
    environ = {"XDG_CACHE_HOME": str(tmp_path / "file")}
    before = dict(environ)
    for _ in range(2):
        enable_compilation_cache(environ)
    assert environ == before, "JAX is given no folder"
    assert capsys.readouterr().err.count(f"no cache: {tmp_path / 'file'}") == 1, "said once"

    def refuse(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)  # root has write permission everywhere
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    enable_compilation_cache(environ)
    assert "JAX_COMPILATION_CACHE_DIR" not in environ
    environ = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    enable_compilation_cache(environ)
    assert float(environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]) > 1e6, "it is read, and nothing is written"

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # as for the user ids in containers
    environ = {}
    enable_compilation_cache(environ)
    assert environ == {}
    assert "no cache: there is no home folder" in capsys.readouterr().err
    with pytest.raises(UsageError, match="~/run: the home folder is not known; set HOME"):
        user_path("~/run")


def test_no_folder_where_the_user_wants_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    enable_compilation_cache({"JAX_COMPILATION_CACHE_DIR": ""})
    assert not list(tmp_path.iterdir())


def test_what_came_from_the_cache_is_said(tmp_path: Path) -> None:
    def program(factor: float):
        def program_of_this_test(x):
            return factor * jnp.cos(x)

        return jax.jit(program_of_this_test).lower(jax.ShapeDtypeStruct((3,), jnp.float32))

    factor = random.random()
    lines = []
    for names in (["new"], ["known"], ["known", "other"]):
        compilation = Compilation(None, print)
        for name in names:
            lowered = program(factor + (name == "other"))
            with compilation(name):
                lowered.compile()
        lines.append(re.sub(r"\d\.\d s", "T", compilation.summary()))
    assert lines == [
        "compiled in T: new T",
        "from the compilation cache in T: known",
        "compiled in T: known T (cached), other T",
    ]
