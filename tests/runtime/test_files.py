"""``~`` in a path of the user is the home folder, in every flag and config key that takes a path."""

from pathlib import Path

import numpy as np
import pytest

from cnn_jax import config as configs
from cnn_jax import data
from cnn_jax.cli import command_line
from cnn_jax.errors import UsageError
from cnn_jax.runtime.files import write_atomically
from cnn_jax.runtime.objects import load_object
from cnn_jax.weights.files import open_tensors


def test_home_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert command_line._folder("~/run") == tmp_path / "run"
    with pytest.raises(UsageError, match="whose name is UTF-8"):
        command_line._folder("caf\udce9")
    (tmp_path / "mine.py").write_text("answer = 42\n")
    assert configs.find_config("~/mine.py:small") == f"{tmp_path / 'mine.py'}:small"
    assert load_object("~/mine.py:answer", what="answer") == 42
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 8, 8, 1), np.uint8), labels=np.arange(4) % 2)
    assert len(data.load("npz:~/a.npz", "all")) == 4
    for path, read in {"~/w.safetensors": open_tensors, "~/x.png": lambda path: data.find_images([path])}.items():
        with pytest.raises(UsageError, match="there is no"):
            read(path)
        (tmp_path / path[2:]).write_bytes((2).to_bytes(8, "little") + b"{}")
        read(path)
    assert not (tmp_path / "~").exists()


def test_files_of_names_that_are_not_utf8(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.csv", "caf\udce9.png")
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == r"caf\udce9.png"
