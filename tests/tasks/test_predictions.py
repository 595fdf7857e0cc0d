"""What ``--mode=predict`` shows about images, and about files that are not images."""

import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from sklearn.datasets import load_digits

from cnn_jax import tasks
from cnn_jax.cli.command_line import image_paths
from cnn_jax.errors import PartlyFailedError
from cnn_jax.tasks import run
from cnn_jax.tasks.predictions import describe_assumptions, print_table, shorten_in_front

STRANGE = ("scan[final].png", "[", "a:smile:b.png", "with, comma", "né.png", os.fsdecode(b"caf\xe9.png"), "x\ny.png")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network on the digits, after a few steps."""
    directory = tmp_path_factory.mktemp("trained")
    config = tasks.default_config()
    config.model.name, config.input_shape, config.duration = "mlp_two_neurons", (28, 28, 1), "2 steps"
    run.train(config, directory, report=False)
    return directory


def digit(number: int) -> np.ndarray:
    """A real digit, dark on light and enlarged, like a scan."""
    return (255 - np.kron(load_digits().images[number], np.ones((12, 12))) * 255 / 16).astype(np.uint8)


def predict(directory: Path, images: list[str], output: Path) -> list[dict[str, str]]:
    config = tasks.default_config()
    config.model.name, config.input_shape = "mlp_two_neurons", (28, 28, 1)
    try:
        run.predict(config, directory, images=images, output=str(output), checkpoint="latest")
    finally:
        rows = list(csv.DictReader(output.read_text(encoding="utf-8").splitlines(keepends=True)))
    return rows


def test_a_bad_image_is_listed_with_its_reason(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(digit(0)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").touch()
    (tmp_path / "c.png").write_text("not an image")
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "d.jpg")
    whole = (tmp_path / "d.jpg").read_bytes()
    (tmp_path / "d.jpg").write_bytes(whole[: len(whole) // 2])
    both = np.concatenate([np.pad(digit(number), 40, constant_values=255) for number in (1, 2)], axis=1)
    Image.fromarray(both).save(tmp_path / "e.png")
    Image.new("L", (50, 40), 255).save(tmp_path / "f.png")
    output = tmp_path / "out.csv"
    with pytest.raises(PartlyFailedError, match="3 of 6 images cannot be read"):
        predict(trained, [str(tmp_path)], output)
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert [Path(row["image"]).name for row in rows] == ["a.png", "b.jpg", "c.png", "d.jpg", "e.png", "f.png"]
    printed = capsys.readouterr().out
    for row in rows[1:4]:
        assert row["note"].startswith("cannot be read as an image: ")
        assert row["note"] in printed
        assert row["class"] == row["assumed"] == row["3"] == ""
    for row in (rows[0], *rows[4:]):
        assert sum(float(row[str(number)]) for number in range(10)) == pytest.approx(1, abs=1e-4)
    assert rows[1]["note"].endswith(": it is empty")
    assert "inverted: dark ink on light paper" in rows[0]["assumed"]
    assert "pieces" not in rows[0]["note"]
    assert "ink in 2 pieces" in rows[4]["note"]
    assert "no ink that stands out" in rows[5]["note"]


def test_only_bad_images(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(PartlyFailedError, match="1 of 1 images"):
        predict(trained, [str(tmp_path)], tmp_path / "out.csv")
    assert "empty.jpg,,cannot be read as an image" in (tmp_path / "out.csv").read_text()


def test_names_of_all_kinds(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in STRANGE:
        Image.fromarray(digit(0)).save(tmp_path / name, "PNG")
    values = [",".join(str(tmp_path / name) for name in STRANGE[:4]), *(str(tmp_path / name) for name in STRANGE[4:])]
    rows = predict(trained, image_paths(values), tmp_path / "out.csv")
    shown = [*STRANGE[:5], r"caf\xe9.png", "x\ny.png"]
    assert [row["image"].removeprefix(f"{tmp_path}/").replace(r"\udce9", r"\xe9") for row in rows] == shown
    printed = capsys.readouterr().out
    for name in shown:
        assert name.replace("\n", r"\n") in printed


def test_reading_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a,b").mkdir()
    for name in ("a", "c.png", "a,b/d,e.png"):
        (tmp_path / name).touch()
    for value, expected in {
        "a,b": ["a,b"],
        "a,c.png": ["a", "c.png"],
        "a,b,c.png, a": ["a,b", "c.png", "a"],
        "c.png,a,b/d,e.png,nowhere": ["c.png", "a,b/d,e.png", "nowhere"],
        "~/a,b,": ["~/a,b"],
        ",".join(["c.png"] * 300): ["c.png"] * 300,
    }.items():
        assert image_paths([value]) == expected


@pytest.mark.parametrize("width", [80, 72, 200])
def test_table_of_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("cnn_jax.runtime.terminal.Console.is_terminal", True)
    names = [f"/home/someone/scans of 2024/{folder}/page number {folder}.png" for folder in range(22)]
    row = {"class": "3", "probability": "91.2%", "then": "8 4.5%, 5 2.1%", "note": ""}
    print_table("run", [{"image": name, **row} for name in names], path="image")
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert len(lines) == 1 + 3 + 22 + 1, "a line for each image"
    assert max(map(cell_len, lines)) <= width
    for name, line in zip(names, lines[4:], strict=False):
        shown = line.split("│")[1].strip()
        assert shown == name if width == 200 else shown.startswith("…") and name.endswith(shown[1:])


def test_table_of_a_file_has_whole_paths(capsys: pytest.CaptureFixture[str]) -> None:
    name = f"/{'long/' * 60}name.png"
    print_table("run", [{"image": name, "class": "3"}], path="image")
    assert name in capsys.readouterr().out


def test_paths_of_wide_characters_are_shortened_by_their_width() -> None:
    for width in range(4, 30):
        assert cell_len(shorten_in_front("写真/二千二十四年/数字の三.png", width)) <= width


def test_assumptions_are_printed_once() -> None:
    every = "inverted: dark ink on light paper"
    assumed = {f"{number}.png": every for number in range(22)}
    assert describe_assumptions(assumed).count(every) == 1
    assumed |= {f"{number}.png": f"{every}; {number}x{number} resized" for number in range(20)}
    assert len(describe_assumptions(assumed).splitlines()) == 12
    assert "and 11 more" in describe_assumptions(assumed)
    assert describe_assumptions({"a.png": ""}) == ""
