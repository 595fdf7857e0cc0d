"""Commands that are printed can be pasted into a shell, and errors are one line with an exit code."""

import errno
import os
import resource
import shlex
from pathlib import Path

import pytest

from cnn_jax.errors import Interrupted, PartlyFailedError, UsageError
from cnn_jax.runtime.command import command, exit_code
from cnn_jax.runtime.files import write_atomically


@pytest.mark.parametrize("folder", ["runs/my run", "a'b", 'a"b', "$HOME", "a;b", "a*", "né", "[x]", "~", "a\\b", "&"])
def test_a_shell_takes_the_flags_apart_as_they_were(folder: str) -> None:
    flags = ["--mode=sweep", f"--workdir={folder}"]
    assert shlex.split(command(*flags)) == ["python", "launch.py", *flags]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("no such key"), 2, "no such key"),
        (PartlyFailedError("1 of 3"), 1, "1 of 3"),
        (Interrupted(15, "saved"), 143, "saved"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left", "x.csv"), 2, "No space left (x.csv): make room or write to another"),
        (OSError(errno.EROFS, "Read-only"), 2, "Read-only: make room"),
    ],
)
def test_an_error_is_one_line(error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise error

    assert exit_code(fail, debug=False, program="launch.py") == code
    told = capsys.readouterr().err
    assert told.startswith(f"launch.py: {line}")
    assert told.count("\n") == 1
    assert exit_code(fail, debug=True) == code
    assert "Traceback" in capsys.readouterr().err


def test_other_errors_are_shown_whole() -> None:
    with pytest.raises(FileNotFoundError):
        exit_code(lambda: os.remove("/nonexistent"), debug=False)


def test_a_disk_that_is_full_at_the_end_is_named_with_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.csv"
    path.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        code = exit_code(lambda: write_atomically(path, "x" * 100), debug=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert capsys.readouterr().err.startswith(f"error: File too large ({path}): make room")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]
