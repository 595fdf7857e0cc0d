"""The files with a network's table."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from cnn_jax.errors import UsageError
from cnn_jax.geometry import Row
from cnn_jax.report import summary

ROWS = [Row("c1", "Conv", (28, 28, 6), (5, 5), (1, 1), "VALID", None, 156, 117_600, 122_304, 18_816)]


def written(folder: Path, name: str) -> Path:
    summary.write(folder / name, ROWS, title="one layer", input_shape=(32, 32, 1))
    return folder / name


def test_every_form_has_the_numbers(tmp_path: Path) -> None:
    (row,) = csv.DictReader(written(tmp_path, "a.csv").read_text().splitlines())
    assert row["multiply_adds"] == "117600"
    document = json.loads(written(tmp_path, "a.json").read_text())
    assert document["layers"][0]["connections"] == document["total"]["connections"] == 122_304
    assert "| c1 | Conv | 28x28x6 | 5x5 |" in written(tmp_path, "a.md").read_text()
    with Image.open(written(tmp_path, "a.png")) as picture:
        assert picture.width == 900
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "a.json", "a.md", "a.png"}


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.txt", r"must end in .csv, .json, .md or .png"), ("a", "must end in"), ("no/a.csv", "there is no folder")],
)
def test_mistakes_are_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        written(tmp_path, name)
    assert not list(tmp_path.iterdir())
