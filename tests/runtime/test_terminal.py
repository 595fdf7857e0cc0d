"""Text of any origin is printed unchanged by every function that writes to the terminal."""

import ast
import io
import os
import signal
from pathlib import Path

import pytest
from rich.live import Live
from rich.table import Table

from cnn_jax.errors import UsageError
from cnn_jax.report.progress import Progress
from cnn_jax.runtime import terminal
from cnn_jax.runtime.command import exit_code
from cnn_jax.runtime.terminal import Console, printable, progress_bar, say

SOURCES = sorted((Path(__file__).parents[2] / "cnn_jax").rglob("*.py"))

AS_IT_IS = ("scan[final].png", "[/b]", "a:smile:b", "[link=x]y", "\\[b]", "{task}", "%s", "né 数字 🙂")
# Text -> what a terminal must show.
SHOWN = {
    **{text: text for text in AS_IT_IS},
    "line\nbreak": "line\nbreak",
    "bell\a tab\t\x1b[2J\x7f\x9b": r"bell\x07 tab\t\x1b[2J\x7f\x9b",
    os.fsdecode(b"caf\xe9"): r"caf\xe9",
    "\ud800": r"\ud800",
}


def on_a_console(draw) -> str:
    """The output of ``draw(console)`` on a wide terminal."""
    out = io.StringIO()
    draw(Console(file=out, width=200, color_system=None, force_terminal=True))
    return out.getvalue()


@pytest.mark.parametrize("text", SHOWN, ids=ascii)
def test_text_is_shown_as_it_is(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = SHOWN[text].split("\n")

    table = Table(title=text, caption=text)
    table.add_column(text, text)
    table.add_row(text)
    drawn = on_a_console(lambda console: console.print(table))
    for line in lines:
        assert drawn.count(line) == 4, "title, caption, heading, cell"
    assert on_a_console(lambda console: console.print(text)) == f"{SHOWN[text]}\n"

    say(text)
    Progress(10, steps_per_epoch=1).log(text)
    assert exit_code(lambda: say(text), debug=False) == 0
    captured = capsys.readouterr()
    assert captured.out == 3 * f"{SHOWN[text]}\n"

    def fail() -> None:
        raise UsageError(f"{text}: cannot be read")

    assert exit_code(fail, debug=False) == 2
    assert capsys.readouterr().err == f"error: {' '.join(lines)}: cannot be read\n"


@pytest.mark.parametrize("text", AS_IT_IS)
def test_progress_bars_show_it_as_it_is(text: str) -> None:
    def draw(console: Console) -> None:
        bar = progress_bar(console)
        bar.add_task(printable(text), total=1)
        with Live(bar, console=console):
            pass

    assert text in on_a_console(draw)


def test_no_other_module_prints() -> None:
    """``print``, and rich's own consoles and bars, do not escape text as the functions of this module do."""
    found = []
    for path in SOURCES:
        if path == Path(terminal.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            printed = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import | ast.ImportFrom) else set()
            from_rich = isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich")
            if printed or "rich" in names or (from_rich and names & {"Console", "print", "track"}):
                found.append(f"{path.name}:{node.lineno}")
    assert not found, "print with cnn_jax.runtime.terminal"


def test_streams_of_another_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    terminal.accept_any_text()
    say("né")
    Console(width=20).print("né")
    out.seek(0)
    assert out.read().split() == [r"n\xe9", r"n\xe9"]


def test_nothing_is_said_to_a_reader_that_has_ended() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        with pytest.raises(SystemExit) as ended:
            say("line", stream=stream)
        assert ended.value.code == 128 + signal.SIGPIPE
        say("line", stream=stream)
