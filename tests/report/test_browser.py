"""The page in a real browser: nothing is wider than a phone, nothing is blocked, and every image is shown."""

from typing import Any

import numpy as np
import pytest

from cnn_jax import geometry
from cnn_jax.geometry import Row
from cnn_jax.metrics import Metric
from cnn_jax.report.figures import confusion_matrix, feature_maps, learning_curves
from cnn_jax.report.page import Headline, Page, Section, Table
from tests.report.browser import Tab

WIDTHS = [360, 390, 768, 1280]
LONG = "an_unbroken_name_" * 12

LAYERS = [
    Row("layer1_0/branch/conv1", "Conv", (112, 112, 64), (7, 7), (2, 2), "VALID", None, 1_118_408, 118_013_952, 5, 9),
    Row("total", "", (), parameters=23_508_032, multiply_adds=888_888_888, connections=999_999_999),
]

MEASURE = """
() => {
  const page = document, root = page.documentElement, shown = root.clientWidth;
  const beyond = [...page.querySelectorAll("body *")].filter((element) =>
    !element.parentElement.closest(".scroll") && element.getBoundingClientRect().right > shown + 0.5);
  return {
    width: shown,
    scrolls: root.scrollWidth,
    beyond: beyond.map((element) => element.outerHTML.slice(0, 80)),
    pictures: [...page.images].map((image) => [image.naturalWidth > 0, image.clientWidth]),
    boxes: [...page.querySelectorAll(".scroll")].map((box) => [box.clientWidth, box.scrollWidth]),
    ends: [...page.querySelectorAll("#network th")].map((cell) => cell.getBoundingClientRect().right -
      cell.closest(".scroll").getBoundingClientRect().right),
    cells: [...page.querySelectorAll("#network tr:last-child td")].map((cell) => cell.innerText),
    text: parseFloat(getComputedStyle(page.querySelector("main p")).fontSize),
    radius: getComputedStyle(page.querySelector("figure img")).borderTopLeftRadius,
  };
}
"""


def make_page() -> Page:
    rows = [{"step": e, "epoch": e, "split": "test", "loss": 1 / e, "accuracy": 1 - 1 / e} for e in range(1, 9)]
    metrics = [Metric("loss", "lower"), Metric("accuracy", "higher", "%")]
    maps = {"conv_1": np.ones((8, 8, 6)), "logits": np.arange(10.0)}
    return Page(
        LONG,
        LONG,
        [Headline(LONG, LONG, LONG, LONG, LONG), *[Headline("error", "1.33%")] * 4],
        [
            Section("Curves", "Some words.", learning_curves(rows, metrics=metrics), "curves", LONG),
            Section(LONG, LONG, confusion_matrix(np.eye(10, dtype=int), list("0123456789")), "hits", "Rows are true."),
            Section("Maps", figure=feature_maps(np.zeros((8, 8, 1)), maps), alt="maps"),
            Section("Table", table=Table([LONG] * 3, [[LONG, 61706, 0.5]] * 3)),
            Section("Config", code="\n".join([LONG * 2] * 60)),
            Section("Network", table=Table(geometry.FOLDED_HEADINGS, [geometry.folded_cells(row) for row in LAYERS])),
        ],
        LONG,
    )


@pytest.fixture(scope="module")
def measured(browser: Tab, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("browser")
    return browser.measure(make_page().write(folder), MEASURE, widths=WIDTHS)


@pytest.mark.parametrize("index", range(len(WIDTHS)), ids=[f"{width}px" for width in WIDTHS])
def test_the_page_is_as_wide_as_its_window(measured: list[dict[str, Any]], index: int) -> None:
    page = measured[index]
    assert page["width"] == WIDTHS[index]
    assert page["scrolls"] <= WIDTHS[index]
    assert page["beyond"] == []
    *others, network = page["boxes"]
    assert all(box < content for box, content in others)  # wider content scrolls in its own box
    assert len(others) == 2
    assert (network[0] < network[1]) == (WIDTHS[index] < 700)


@pytest.mark.parametrize("index", range(len(WIDTHS)), ids=[f"{width}px" for width in WIDTHS])
def test_layers_parameters_and_macs_are_seen_without_scrolling(measured: list[dict[str, Any]], index: int) -> None:
    shown = [heading.splitlines()[0] for heading in geometry.FOLDED_HEADINGS]
    ends = dict(zip(shown, measured[index]["ends"], strict=True))
    assert all(ends[name] <= 0.5 for name in ("layer", "output", "parameters", "MACs"))
    assert measured[index]["cells"][2:4] == ["23,508,032", "888,888,888"]


@pytest.mark.parametrize("index", range(len(WIDTHS)), ids=[f"{width}px" for width in WIDTHS])
def test_pictures_and_styles_are_not_blocked_and_large_enough(measured: list[dict[str, Any]], index: int) -> None:
    page = measured[index]
    assert len(page["pictures"]) == 3
    assert all(shown for shown, _ in page["pictures"])
    assert all(width >= min(500, 0.88 * WIDTHS[index]) for _, width in page["pictures"])
    assert page["text"] >= 16
    assert page["radius"] == "10px"  # the page's own style is applied
