"""docs/lectures.md lists exactly the tests and functions that exist."""

import re
from pathlib import Path

import pytest

from cnn_jax import filters, models, nn, ops, weights

HERE = Path(__file__).parent
MAP = (HERE.parents[1] / "docs" / "lectures.md").read_text()


def test_every_example_is_in_the_map_and_every_test_of_the_map_exists():
    written = [re.findall(r"^def (test_\d{3}\w+)", file.read_text(), re.M) for file in HERE.glob("test_lecture_*.py")]
    assert {name for names in written for name in names} == set(re.findall(r"`(test_\d{3}\w+)`", MAP))


@pytest.mark.parametrize("lecture", ["000", "001", "002", "003", "004"])
def test_every_lecture_has_a_table_of_statements_and_one_of_slips(lecture):
    section = MAP.split(f"## Lecture {lecture}\n")[1].split("\n## ")[0]
    statements, slips = section.split(f"### Slips of lecture {lecture}\n")
    for line in statements.strip().splitlines()[2:] + slips.strip().splitlines()[2:]:
        assert line.startswith("| ")
        assert line.count(" | ") == 2, f"not three columns: {line}"


def test_every_function_of_the_map_exists():
    """The second column: `conv(padding=1)` is of cnn_jax.ops, `filters.box` of cnn_jax.filters."""
    modules = {"": ops, "filters.": filters, "models.": models, "nn.": nn, "weights.": weights}
    for line in MAP.splitlines():
        columns = line.split(" | ")
        if len(columns) == 3 and line.startswith("| *") and "planned" not in columns[1]:
            for module, name in re.findall(r"`(filters\.|models\.|nn\.|weights\.)?(\w+)[(`]", columns[1]):
                assert hasattr(modules[module], name), f"no {module}{name}: {line}"
