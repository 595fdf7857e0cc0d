"""The page in a real browser: nothing wider than a phone, nothing blocked, every picture shown.

Runs where chromium is on the PATH, which is a program of the system and no Python package; CNN_JAX_REQUIRE_BROWSER=1
turns its absence from a skip into a failure.
"""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn_jax.report.figures import confusion_matrix, feature_maps, learning_curves
from cnn_jax.report.page import Headline, Page, Section, Table

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = [360, 390, 768, 1280]
LONG = "an_unbroken_name_" * 12

# Each width is a frame of its own, since a headless window has a least width; the frame's page is measured from outside
# because the page itself allows no script.
MEASURE = """
const measure = (frame) => {
  const page = frame.contentDocument, root = page.documentElement, shown = frame.clientWidth;
  const beyond = [...page.querySelectorAll("body *")].filter((element) =>
    !element.parentElement.closest(".scroll") && element.getBoundingClientRect().right > shown + 0.5);
  return {
    width: shown,
    scrolls: root.scrollWidth,
    beyond: beyond.map((element) => element.outerHTML.slice(0, 80)),
    pictures: [...page.images].map((image) => [image.naturalWidth > 0, image.clientWidth]),
    boxes: [...page.querySelectorAll(".scroll")].map((box) => [box.clientWidth, box.scrollWidth]),
    text: parseFloat(getComputedStyle(page.querySelector("main p")).fontSize),
    radius: getComputedStyle(page.querySelector("figure img")).borderTopLeftRadius,
  };
};
addEventListener("load", () => {
  document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(measure));
});
"""


def make_page() -> Page:
    rows = [{"step": e, "epoch": e, "split": "test", "loss": 1 / e, "accuracy": 1 - 1 / e} for e in range(1, 9)]
    maps = {"conv_1": np.ones((8, 8, 6)), "logits": np.arange(10.0)}
    return Page(
        LONG,
        LONG,
        [Headline(LONG, LONG, LONG, LONG, LONG), *[Headline("error", "1.33%")] * 4],
        [
            Section("Curves", "Some words.", learning_curves(rows), "curves", LONG),
            Section(LONG, LONG, confusion_matrix(np.eye(10, dtype=int), list("0123456789")), "hits", "Rows are true."),
            Section("Maps", figure=feature_maps(np.zeros((8, 8, 1)), maps), alt="maps"),
            Section("Table", table=Table([LONG] * 3, [[LONG, 61706, 0.5]] * 3)),
            Section("Config", code="\n".join([LONG * 2] * 60)),
        ],
        LONG,
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if BROWSER is None:
        message = "chromium is not on the PATH (Debian: apt-get install chromium)"
        pytest.fail(message) if os.environ.get("CNN_JAX_REQUIRE_BROWSER") == "1" else pytest.skip(message)
    folder = tmp_path_factory.mktemp("browser")
    report = html.escape(make_page().write(folder).read_text(encoding="utf-8"))
    frames = "".join(
        f'<iframe srcdoc="{report}" style="border: 0; width: {width}px; height: 800px"></iframe>' for width in WIDTHS
    )
    (folder / "frames.html").write_text(f"<!doctype html><meta charset=utf-8>{frames}<script>{MEASURE}</script>")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
    options += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=10000", "--dump-dom"]
    browser = [BROWSER, *options, Path(folder / "frames.html").as_uri()]
    done = subprocess.run(browser, capture_output=True, text=True, check=True, timeout=120)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stderr[-2000:]
    return json.loads(html.unescape(title.group(1)))


@pytest.mark.parametrize("index", range(len(WIDTHS)), ids=[f"{width}px" for width in WIDTHS])
def test_the_page_is_as_wide_as_its_window(measured: list[dict[str, Any]], index: int) -> None:
    page = measured[index]
    assert page["width"] == WIDTHS[index]
    assert page["scrolls"] <= WIDTHS[index]
    assert page["beyond"] == []
    assert all(box < content for box, content in page["boxes"])  # what is wider scrolls in its own box
    assert len(page["boxes"]) == 2


@pytest.mark.parametrize("index", range(len(WIDTHS)), ids=[f"{width}px" for width in WIDTHS])
def test_pictures_and_styles_are_not_blocked_and_large_enough(measured: list[dict[str, Any]], index: int) -> None:
    page = measured[index]
    assert len(page["pictures"]) == 3
    assert all(shown for shown, _ in page["pictures"])
    assert all(width >= min(500, 0.88 * WIDTHS[index]) for _, width in page["pictures"])
    assert page["text"] >= 16
    assert page["radius"] == "10px"  # the page's own style is in force
