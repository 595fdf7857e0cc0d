import itertools

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text

from cnn_jax.errors import UsageError
from cnn_jax.metrics import Metric
from cnn_jax.report.figures import confusion_matrix, heat_map, learning_curves, optimisation, reliability
from tests.report.pngs import pixels, texts

ROWS = [
    {"step": 10, "epoch": 0.5, "split": "train", "loss": 2.0, "accuracy": 0.5},
    {"step": 20, "epoch": 1.0, "split": "train", "loss": 0.5, "accuracy": 0.75},
    {"step": 20, "epoch": 1.0, "split": "test", "loss": 0.75, "accuracy": 0.7, "top_5_accuracy": 0.9},
    {"step": 20, "epoch": 1.0, "split": "validation", "loss": 0.625, "accuracy": 0.725},
    {"step": 40, "epoch": 2.0, "split": "train", "loss": 0.125, "accuracy": 0.9},
    {"step": 40, "epoch": 2.0, "split": "test", "loss": 0.25, "accuracy": 0.875, "top_5_accuracy": 1.0},
    {"step": 40, "epoch": 2.0, "split": "validation", "loss": 0.1875, "accuracy": 0.9},
]


METRICS = [Metric("loss", "lower"), Metric("accuracy", "higher", "%"), Metric("top_5_accuracy", "higher", "%")]


def lines(axes: Axes) -> dict[str, list[list[float]]]:
    """Split -> [epochs, values] of each line."""
    return {str(line.get_label()).split()[0]: np.transpose(line.get_xydata()).tolist() for line in axes.lines}


def test_each_split_is_a_line_through_its_own_rows() -> None:
    loss, accuracy, top_5 = learning_curves(ROWS, metrics=METRICS).axes
    assert lines(loss) == {
        "train": [[0.5, 1.0, 2.0], [2.0, 0.5, 0.125]],
        "validation": [[1.0, 2.0], [0.625, 0.1875]],
        "test": [[1.0, 2.0], [0.75, 0.25]],
    }
    assert lines(accuracy)["validation"] == [[1.0, 2.0], [0.725, 0.9]]
    assert lines(top_5) == {"test": [[1.0, 2.0], [0.9, 1.0]]}


def test_the_key_names_each_split_with_its_last_value_in_the_colour_of_its_line() -> None:
    loss, accuracy, _ = learning_curves(ROWS, metrics=METRICS).axes
    for axes, expected in (
        (loss, ["train 0.125", "validation 0.188", "test 0.25"]),
        (accuracy, ["train 90.00%", "validation 90.00%", "test 87.50%"]),
    ):
        key = axes.get_legend()
        assert key is not None
        assert [text.get_text() for text in key.get_texts()] == expected
        assert [text.get_color() for text in key.get_texts()] == [line.get_color() for line in axes.lines]
        assert len({line.get_color() for line in axes.lines}) == 3


def test_metrics_are_chosen_and_ordered_by_name() -> None:
    figure = learning_curves(ROWS, metrics=[METRICS[1], METRICS[0]])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["accuracy", "loss"]


@pytest.mark.parametrize(("last", "scale"), [(0.3, "linear"), (0.02, "log"), (0.0, "linear")])
def test_a_loss_that_falls_by_a_decade_is_drawn_in_decades(last: float, scale: str) -> None:
    values = [1.0, 0.4, last]
    rows = [{"step": i, "epoch": i, "split": "train", "loss": value} for i, value in enumerate(values)]
    assert learning_curves(rows, metrics=METRICS[:1]).axes[0].get_yscale() == scale


def test_the_end_of_the_run_fills_the_height() -> None:
    accuracies = [0.1, *[0.9 + 0.004 * epoch for epoch in range(1, 21)]]
    rows = [{"step": e, "epoch": e, "split": "test", "accuracy": value} for e, value in enumerate(accuracies)]
    low, high = learning_curves(rows, metrics=METRICS[1:2]).axes[0].get_ylim()
    assert 0.88 < low < 0.91
    assert 0.98 < high < 1.0


def test_values_that_are_not_finite_leave_a_gap() -> None:
    rows = [
        {"step": i, "epoch": i, "split": "train", "loss": value} for i, value in enumerate([2.0, np.nan, 1.0, np.inf])
    ]
    figure = learning_curves(rows, metrics=METRICS[:1])
    [line] = figure.axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), [2.0, np.nan, 1.0, np.nan])
    assert line.get_label() == "train 1"
    assert pixels(figure).std() > 0


def test_one_evaluation_is_enough() -> None:
    assert (
        pixels(learning_curves([{"step": 1, "epoch": 1.0, "split": "test", "loss": 0.5}], metrics=METRICS[:1])).std()
        > 0
    )


def test_curves_reject_what_they_cannot_draw() -> None:
    with pytest.raises(UsageError, match="metrics is empty"):
        learning_curves(ROWS, metrics=[])
    with pytest.raises(UsageError, match=r"no row has the metric 'acuracy'; did you mean 'accuracy'"):
        learning_curves(ROWS, metrics=[Metric("acuracy", "higher")])


def test_optimisation_draws_each_value_from_where_it_is_recorded() -> None:
    """The first rows of runs of earlier versions do not have these values."""
    late = {"learning_rate": 0.5, "gradient_norm": 100.0, "parameter_norm": 3.0}
    rows = [*ROWS[:5], {**ROWS[5], **late}, {**ROWS[6], **late, "gradient_norm": 2.0, "epoch": 3.0}]
    rate, gradient, parameters = optimisation(rows).axes
    assert [axes.get_title(loc="left") for axes in (rate, gradient, parameters)] == [
        "learning rate",
        "gradient norm",
        "parameter norm",
    ]
    assert gradient.lines[0].get_xydata().tolist() == [[2.0, 100.0], [3.0, 2.0]]
    assert [axes.get_yscale() for axes in (rate, gradient, parameters)] == ["linear", "log", "linear"]
    assert pixels(optimisation([{**rows[5], "gradient_norm": np.nan}])).std() > 0
    with pytest.raises(UsageError, match="no row has one of learning_rate"):
        optimisation(ROWS)


def counted(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    counts = np.zeros((classes, classes), int)
    for label, prediction in zip(labels, predictions, strict=True):
        counts[label, prediction] += 1
    return counts


def test_every_cell_shows_its_count_at_its_place() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 300)
    predictions = np.where(rng.random(300) < 0.9, labels, rng.integers(0, 10, 300))
    axes = confusion_matrix(counted(labels, predictions, 10), [str(i) for i in range(10)]).axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts if text.get_ha() == "center"}
    for true in range(10):
        for predicted in range(10):
            count = sum((labels == true) & (predictions == predicted))
            assert cells.get((predicted, true), "0") == str(count)
    recalls = [text.get_text() for text in axes.texts if text.get_text().endswith("%")]
    assert recalls == [f"{np.mean(predictions[labels == true] == true):.1%}" for true in range(10)]
    assert axes.get_ylabel() == "true"
    assert axes.get_xlabel() == "predicted"


def test_hits_are_blue_mistakes_red_and_nothing_is_white() -> None:
    axes = confusion_matrix(np.array([[90, 10, 0], [0, 5, 0], [0, 0, 0]]), ["a", "b", "c"]).axes[0]
    shades = np.asarray(axes.images[0].get_array())
    assert shades[0, 0, 2] > shades[0, 0, 0]
    assert shades[0, 1, 0] > shades[0, 1, 2]
    np.testing.assert_array_equal(shades[1, 0], [1, 1, 1])
    assert texts(axes)[-1] == "none"  # no examples of class c, so no recall


def test_a_hundred_classes_list_the_most_frequent_mistakes() -> None:
    counts = 50 * np.eye(100, dtype=int)
    counts[3, 7], counts[98, 0], counts[5, 6] = 4, 9, 2
    names = [f"class_{i}" for i in range(100)]
    figure = confusion_matrix(counts, names)
    matrix, below = figure.axes
    assert texts(matrix) == []
    assert texts(below) == ["class_98 → class_0", "9", "class_3 → class_7", "4", "class_5 → class_6", "2"]
    shares = [bar.get_width() for bar in below.patches]
    np.testing.assert_allclose(shares, [1, 1, 1, 4 / 9, 1, 2 / 9])
    ticks = matrix.get_yticks()
    assert [label.get_text() for label in matrix.get_yticklabels()] == [names[int(tick)] for tick in ticks]
    assert pixels(figure).std() > 0


def test_a_hundred_classes_without_a_mistake_need_no_list() -> None:
    assert len(confusion_matrix(np.eye(100, dtype=int), [str(i) for i in range(100)]).axes) == 1


@pytest.mark.parametrize("classes", [1, 2, 25, 40])
def test_no_two_names_overlap(classes: int) -> None:
    figure = confusion_matrix(np.eye(classes, dtype=int), [f"a long name {i}" for i in range(classes)])
    figure.draw_without_rendering()
    for labels in (figure.axes[0].get_xticklabels(), figure.axes[0].get_yticklabels()):
        boxes = [label.get_window_extent() for label in labels]
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


ALIKE = [f"class with a long name {number}" for number in range(40)]
WORDS = ["no finding", "yes", "malignant lesion, not to be operated on", "unclear finding", "fifth", "T-shirt/top"]


@pytest.mark.parametrize("names", [ALIKE[:1], ALIKE[:12], ALIKE, *(WORDS[:n] for n in (2, 3, 4, 6))], ids=len)
def test_nothing_is_cut_off_and_different_classes_have_different_names(names: list[str]) -> None:
    figure = confusion_matrix(np.eye(len(names), dtype=int) * 1000, names)
    figure.draw_without_rendering()
    whole, matrix = figure.bbox, figure.axes[0]
    shown = [text for text in figure.findobj(Text) if text.get_text()]
    assert {"true", "predicted"} <= {text.get_text() for text in shown}
    for text in shown:
        box = text.get_window_extent()
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1, text
        assert whole.y0 <= box.y0 < box.y1 <= whole.y1, text
    labels = [label.get_text() for label in matrix.get_yticklabels()]
    assert len(set(labels)) == len(labels)
    assert labels == [label.get_text() for label in matrix.get_xticklabels()]


def test_the_ticks_of_a_heat_map_do_not_touch() -> None:
    rates = [0.0001 * 1.7**number for number in range(12)]
    kinds = [f"{kind}_of_a_long_and_similar_name" for kind in "ab"]
    cells = {kind: {rate: rate for rate in rates} for kind in kinds}
    figure = heat_map(cells, x_label="rate", y_label="kind", metric=METRICS[0], bracketed={(kinds[0], rates[0])})
    figure.draw_without_rendering()
    axes = figure.axes[0]
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        boxes = [label.get_window_extent() for label in labels]
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
        assert all(figure.bbox.x0 <= box.x0 and figure.bbox.y0 <= box.y0 for box in boxes)
    (frame,) = axes.patches
    assert frame.get_xy() == (-0.5, -0.5)  # the lowest loss that is not in brackets
    assert [text.get_text() for text in axes.texts].count("(0.0001)") == 1


def test_names_are_names_and_no_mathematics() -> None:
    names = ["$100", r"$\frac{1}$", "_^"]
    figure = confusion_matrix(np.eye(3, dtype=int), names)
    assert pixels(figure).std() > 0
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == names


@pytest.mark.parametrize(
    ("counts", "names", "message"),
    [
        (np.eye(3, dtype=int), ["a", "b"], r"shape \(3, 3\) but there are 2 class names"),
        (np.ones((2, 3), int), ["a", "b"], r"shape \(2, 3\)"),
        (np.eye(2), ["a", "b"], "whole numbers >= 0, not float64"),
        (np.array([[1, -1], [0, 2]]), ["a", "b"], ">= -1"),
        (np.zeros((0, 0), int), [], "there are 0 class names"),
    ],
)
def test_confusion_rejects_what_is_no_count(counts: np.ndarray, names: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        confusion_matrix(counts, names)


def test_a_reliability_diagram_shows_accuracy_and_probability_of_each_bin() -> None:
    """Empty bins have no bar in the upper axes, and a share of 0 in the lower axes."""
    count, confidence, correct = np.array([0, 4, 0, 16]), np.array([0, 1.6, 0, 15.2]), np.array([0, 3, 0, 12])
    figure = reliability(count, confidence, correct)
    accuracy, share = figure.axes
    bars = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in accuracy.patches]
    np.testing.assert_allclose(bars, [(0.25, 0.25, 0.75), (0.75, 0.25, 0.75)])
    (lines,) = accuracy.collections
    np.testing.assert_allclose(lines.get_segments(), [[[0.25, 0.4], [0.5, 0.4]], [[0.75, 0.95], [1, 0.95]]])
    np.testing.assert_allclose([bar.get_height() for bar in share.patches], [0, 0.2, 0, 0.8])
    assert pixels(figure).std() > 0
    with pytest.raises(UsageError, match="reliability: no examples in any bin"):
        reliability(np.zeros(3), np.zeros(3), np.zeros(3))
