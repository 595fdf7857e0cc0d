"""docs/lectures.md lists exactly the tests and functions that exist."""

import re
from pathlib import Path

import pytest

from cnn_jax import filters, models, nn, ops, weights

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MAP = (ROOT / "docs" / "lectures.md").read_text()
LECTURES = ["000", "001", "002", "003", "004"]


def test_every_example_is_in_the_map_and_every_test_of_the_map_exists():
    written = [re.findall(r"^def (test_\d{3}\w+)", file.read_text(), re.M) for file in HERE.glob("test_lecture_*.py")]
    assert {name for names in written for name in names} == set(re.findall(r"`(test_\d{3}\w+)`", MAP))


def rows(lecture):
    """The rows of a lecture's two tables, as lists of columns: the statements, and the slips."""
    section = MAP.split(f"## Lecture {lecture}\n")[1].split("\n## ")[0]
    tables = section.split(f"### Slips of lecture {lecture}\n")
    return [
        [[column.strip() for column in line[1:-1].split("|")] for line in table.splitlines() if line.startswith("| ")][
            1:
        ]
        for table in tables
    ]


@pytest.mark.parametrize("lecture", LECTURES)
def test_every_statement_names_its_slide_a_function_a_test_and_a_picture_or_a_dash(lecture):
    statements, slips = rows(lecture)
    for slide, function, test, picture in statements:
        assert slide.startswith("*"), slide
        assert "`" in function, slide
        assert re.fullmatch(r"`(test_\d{3}\w+|tests/[\w/]+\.py::test_\w+)`", test.split(", ")[0]), slide
        assert picture == "-" or re.fullmatch(r"\[[^]]+\]\([^)]+\)", picture.split(", ")[0]), slide
    assert all(len(row) == 3 for row in slips)


def test_every_test_of_another_folder_exists():
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", MAP):
        assert f"def {name}(" in (ROOT / path).read_text(), f"{path}::{name}"


def test_every_picture_exists():
    for target in re.findall(r"\]\(([^)#]*(?:#[^)]*)?)\)", MAP):
        page, _, anchor = target.partition("#")
        text = (ROOT / "docs" / page).read_text() if page else MAP
        if anchor:
            headings = [heading.strip("# `").lower() for heading in text.splitlines() if heading.startswith("#")]
            anchors = {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in headings}
            assert anchor in anchors, target


def test_every_function_of_the_map_exists():
    """The second column: `conv(padding=1)` is of cnn_jax.ops, `filters.box` of cnn_jax.filters."""
    modules = {"": ops, "filters.": filters, "models.": models, "nn.": nn, "weights.": weights}
    for line in MAP.splitlines():
        columns = line.split(" | ")
        if len(columns) == 4 and line.startswith("| *"):
            for module, name in re.findall(r"`(filters\.|models\.|nn\.|weights\.)?(\w+)[(`]", columns[1]):
                assert hasattr(modules[module], name), f"no {module}{name}: {line}"
