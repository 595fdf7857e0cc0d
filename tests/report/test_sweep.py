"""The page of a sweep: its numbers against plain Python, its plots and its table in a real browser."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric
from cnn_jax.report.figures import heat_map
from cnn_jax.report.sweep import NAME, write_sweep
from cnn_jax.report.trials import importances
from cnn_jax.sweep.table import TrialRow, with_spreads
from tests.report.browser import Tab

METRIC = Metric("validation/accuracy", "higher", "%")
WIDTHS = [360, 1280]
BATCHES = (16, 32, 64, 128)

MEASURE = """
() => {
  const page = document, shown = page.documentElement.clientWidth;
  const all = (selector) => [...page.querySelectorAll(selector)];
  const beyond = all("body *").filter((element) => !element.parentElement.closest(".scroll, .plot-scroll, #tip") &&
    element.getBoundingClientRect().right > shown + 0.5);
  const number = (element) => Number(element.dataset.number);
  const rows = () => all("tbody tr[data-number]").map(number);
  const result = {
    scrolls: page.documentElement.scrollWidth,
    beyond: beyond.map((element) => element.outerHTML.slice(0, 80)),
    lines: all("[data-plot=parallel] path.trial").map(number),
    corners: all("[data-plot=parallel] path.trial").map((line) => line.getAttribute("d").split("L").length),
    dots: all("[data-plot=scatter]").map((plot) => [...plot.querySelectorAll("circle.trial")].map(
      (dot) => [number(dot), Number(dot.getAttribute("cx")), Number(dot.getAttribute("cy"))])),
    curves: all("[data-plot=curves] path.trial").length,
    best: all(".best").map(number),
    texts: all("[data-plot] text").map((text) => text.textContent),
    first: rows(),
    links: all("tbody a").map((link) => link.getAttribute("href")),
  };
  const header = all("th button").find((button) => button.textContent === "optimizer.learning_rate");
  header.click();
  result.up = rows();
  header.click();
  result.down = rows();
  const fire = (target, kind, x, y) => target.dispatchEvent(new window.PointerEvent(kind,
    {clientX: x, clientY: y, bubbles: true, cancelable: true, pointerId: 1}));
  const parallel = page.querySelector("[data-plot=parallel]");
  parallel.scrollIntoView({behavior: "instant"});
  const handles = parallel.querySelectorAll(".handle"), score = handles[handles.length - 1];
  score.setPointerCapture = () => {};
  const box = score.getBoundingClientRect(), flat = box.width > box.height;
  result.axis = [box.left, box.right];
  const center = [box.left + box.width / 2, box.top + box.height / 2];
  const highest = flat ? [box.right, center[1]] : [center[0], box.top];
  fire(score, "pointerdown", ...highest);
  fire(score, "pointermove", ...center);
  result.kept = all(".trials tbody tr:not(.out)").map(number);
  fire(score, "pointerup", ...center);
  fire(score, "pointerdown", ...center);
  fire(score, "pointerup", ...center);
  result.back = all(".trials tbody tr:not(.out)").length;
  const dot = page.querySelector("circle.best");
  dot.scrollIntoView({block: "center", behavior: "instant"});
  const at = dot.getBoundingClientRect();
  fire(dot, "pointermove", at.left + 4, at.top + 4);
  result.tip = page.getElementById("tip").innerText;
  result.on = all(".on").length;
  return result;
}
"""


def make_rows(count: int = 40) -> list[TrialRow]:
    """Trials whose score is a parabola of the logarithm of the learning rate; every tenth one failed."""
    rows = []
    for number in range(count):
        share = number / (count - 1)
        score = None if number % 10 == 9 else 0.9 - 0.4 * abs(share - 0.5) * 2
        values = {
            "optimizer.learning_rate": 10 ** (-4 + 4 * share),
            "batch_size": BATCHES[number % 4],
            "optimizer.name": "sgd" if number % 3 else 'a<b>&"c"' * 8,
        } | ({"optimizer.momentum": share} if number % 3 else {})
        reason = "the loss is nan at step 3; " + "lower it " * 20 if score is None else ""
        rows.append(
            TrialRow(number, number, "failed" if score is None else "complete", score, None, None, 3.0, reason, values)
        )
    return with_spreads(rows)


def write(folder: Path, rows: list[TrialRow], **options: Any) -> str:
    def curve(number: int) -> list[tuple[float, float]]:
        return [(epoch, 0.5 + 0.01 * epoch) for epoch in range(1, 6)]

    path = write_sweep(folder, rows, title="Sweep of a test", metric=METRIC, curve=curve, **options)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def measured(browser: Tab, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder, rows = tmp_path_factory.mktemp("sweep"), make_rows()
    best = next(row for row in rows if row.score == max(row.score or 0 for row in rows))
    report = folder / f"trials/{best.number:04d}/report.html"
    report.parent.mkdir(parents=True)
    report.write_text("")
    write(folder, rows)
    return browser.measure(folder / NAME, MEASURE, widths=WIDTHS)


@pytest.mark.parametrize("index", range(len(WIDTHS)), ids=[f"{width}px" for width in WIDTHS])
def test_the_page_fits_and_shows_every_trial(measured: list[dict[str, Any]], index: int) -> None:
    page, rows = measured[index], make_rows()
    scored = {row.number for row in rows if row.score is not None}
    assert page["scrolls"] <= WIDTHS[index]
    assert page["beyond"] == []
    assert set(page["lines"]) == scored
    with_momentum = [number for number in scored if number % 3]
    assert [len(dots) for dots in page["dots"]] == [*[len(scored)] * 3, len(with_momentum)]
    assert page["corners"] == [5] * len(scored)  # of a line through four parameters, or through "none", to the score
    assert page["curves"] == len(scored)
    order = [row.number for row in sorted(rows, key=lambda row: (row.score or 0, -row.number), reverse=True)]
    assert page["first"] == order
    assert set(page["best"]) == {order[0]}
    assert page["links"] == [f"trials/{order[0]:04d}/report.html"]
    assert {"0.001", "0.01", "16", "128", "80%", "none"} <= set(page["texts"])
    assert 0 <= page["axis"][0] < page["axis"][1] <= WIDTHS[index]  # the axis of the score


@pytest.mark.parametrize("index", range(len(WIDTHS)), ids=[f"{width}px" for width in WIDTHS])
def test_places_are_those_of_a_logarithmic_axis(measured: list[dict[str, Any]], index: int) -> None:
    rows = {row.number: row for row in make_rows()}
    dots = measured[index]["dots"][0]
    rates = [math.log10(rows[number].overrides["optimizer.learning_rate"]) for number, *_ in dots]
    scores = [rows[number].score for number, *_ in dots]
    assert np.corrcoef(rates, [x for _, x, _ in dots])[0, 1] == pytest.approx(1, abs=1e-5)
    assert np.corrcoef(scores, [y for *_, y in dots])[0, 1] == pytest.approx(-1, abs=1e-5)


@pytest.mark.parametrize("index", range(len(WIDTHS)), ids=[f"{width}px" for width in WIDTHS])
def test_the_table_sorts_an_axis_filters_and_a_dot_tells_its_trial(measured: list[dict[str, Any]], index: int) -> None:
    page, rows = measured[index], make_rows()
    by_rate = [row.number for row in sorted(rows, key=lambda row: row.overrides["optimizer.learning_rate"])]
    assert page["up"] == by_rate
    assert page["down"] == by_rate[::-1]
    scores = [row.score for row in rows if row.score is not None]
    middle = (min(scores) + max(scores)) / 2
    assert set(page["kept"]) == {row.number for row in rows if row.score is not None and row.score >= middle}
    assert page["back"] == len(rows)
    best = max(rows, key=lambda row: (row.score or 0, -row.number))
    assert page["tip"].startswith(f"trial {best.number}: {best.score:.2%}")
    assert page["on"] == 1 + 1 + 4 + 1  # its row, its line, its dots, its curve


LAYOUT = """
() => {
  const shown = document.documentElement.clientWidth, all = (selector) => [...document.querySelectorAll(selector)];
  const touching = [], cut = [];
  for (const plot of all("[data-plot] svg")) {
    const texts = [...plot.querySelectorAll("text")].map(
      (text) => [text.firstChild.textContent, text.getBoundingClientRect()]);
    texts.forEach(([text, a], index) => {
      if (a.left < 0 || a.right > shown) cut.push(text);
      for (const [other, b] of texts.slice(0, index))
        if (a.left < b.right && b.left < a.right && a.top + 3 < b.bottom && b.top + 3 < a.bottom)
          touching.push([other, text]);
    });
  }
  const hollow = (name) => all(`[data-plot=${name}] circle.hollow`).map((dot) => Number(dot.dataset.number));
  return {
    touching, cut,
    texts: all("[data-plot=scatter] text").map((text) => text.firstChild.textContent),
    hollow: Object.fromEntries(["parallel", "scatter", "curves"].map((name) => [name, hollow(name)])),
    columns: all("#points td, #points th").map((cell) => cell.innerText),
  };
}
"""


def test_labels_are_apart_and_scores_out_of_range_are_marked(browser: Tab, tmp_path: Path) -> None:
    """At every width, with uneven ticks, long names with equal beginnings, and one score far below the others."""
    rows = []
    for number in range(24):
        score = 0.44 if number == 7 else 0.95 + 0.002 * (number % 12)
        state = "pruned" if number // 2 in (2, 7) else "complete"
        values = {
            "optimizer.a_parameter_with_a_long_name": (0.1, 0.1001, 0.10255, 0.111111, 3.0)[number % 5],
            "data.augment": f"('random_crop(4)', 'mirror()', 'cutout({number % 3})')",
            **{f"model.options.width_{key}": 10.0 ** -(number % (4 + key)) for key in range(6)},
            "seed": number % 2,
        }
        rows.append(TrialRow(number, number // 2, state, score, None, None, 3.0, "", values))
    write(tmp_path, with_spreads(rows), seeds=2)
    for found in browser.measure(tmp_path / NAME, LAYOUT, widths=[360, 390, 768, 1280]):
        assert found["touching"] == []
        assert found["cut"] == []
        names = [text for text in found["texts"] if "('ran" in text]
        assert len(set(names)) == len(names) == 3
        assert set(found["hollow"]["parallel"]) == set(found["hollow"]["curves"]) == {7}
        assert set(found["hollow"]["scatter"]) == {7}
        assert "95.90% ± 0.14" in found["columns"]  # a point whose two runs were pruned: 95.8 % and 96.0 %
    assert "2 pruned" in found["columns"]


def test_it_loads_nothing_and_runs_only_its_own_script(tmp_path: Path) -> None:
    page = write(tmp_path, make_rows())
    assert "default-src 'none'" in page
    assert "script-src 'sha256-" in page
    assert page.count("http://") + page.count("https://") == page.count('"http://www.w3.org/2000/svg"')
    assert "a<b>" not in page


def test_a_thousand_trials_and_none(tmp_path: Path) -> None:
    assert len(write(tmp_path, make_rows(1000))) < 1_500_000
    assert "trial" in write(tmp_path, [])
    assert "running" in write(tmp_path, [TrialRow(0, 0, "running", overrides={"batch_size": 3})])


def test_importance_is_the_share_of_the_variance() -> None:
    random = np.random.default_rng(0)
    points = random.uniform(size=(150, 2))  # the variances of 3 a + b are as 9 to 1
    rows = [
        TrialRow(n, n, "complete", 3 * a + b, overrides={"a": a, "b": b}) for n, (a, b) in enumerate(points.tolist())
    ]
    found = importances(rows, ["a", "b"])
    assert list(found) == ["a", "b"]
    assert found["a"] == pytest.approx(0.9, abs=0.06)
    assert importances(rows[:5], ["a", "b"]) == {}


def test_two_keys_of_few_values_make_a_heat_map(tmp_path: Path) -> None:
    rows = [
        TrialRow(n, n, "complete", 0.9 - 0.1 * abs(column - row), overrides={"rate": rate, "size": size})
        for n, (row, column, rate, size) in enumerate(
            (row, column, rate, size) for row, size in enumerate((8, 16)) for column, rate in enumerate((0.1, 0.2, 0.4))
        )
    ]
    assert "Heat map" in write(tmp_path, rows)
    assert (tmp_path / "figures" / "heat-map.png").is_file()
    assert "Heat map" not in write(tmp_path, rows[:3])


def test_heat_map_puts_values_in_order_and_frames_the_best() -> None:
    axes = heat_map(
        {8: {0.4: 0.5, 0.1: 0.7}, 16: {0.1: 0.6}}, x_label="x", y_label="y", metric=Metric("loss", "lower")
    ).axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.1", "0.4"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["16", "8"]
    (frame,) = axes.patches
    assert frame.get_xy() == (0.5, 0.5)  # 0.4, 8
    with pytest.raises(UsageError, match="no score"):
        heat_map({}, x_label="x", y_label="y", metric=Metric("loss", "lower"))
