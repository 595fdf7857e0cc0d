"""Detection: targets and losses against loops, decoding of what was put in, and a run from training to files."""

import csv
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from cnn_jax import data, train
from cnn_jax.config import load_config
from cnn_jax.errors import UsageError
from cnn_jax.experiments import find
from cnn_jax.tasks import Detection, default_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks.detection_scores import Detected, Truth, average_precision, matched
from cnn_jax.tasks.saved import load_run
from cnn_jax.tasks.sets import known_examples
from cnn_jax.tasks.task import Results

# Images of 32x24 pixels, so maps of 8x6 cells: two objects, one crowd, and no object.
BOXES = np.array([[[2, 2, 12, 14], [14, 8, 30, 20], [0, 0, 0, 0]], [[8, 4, 24, 20], *[[0] * 4] * 2], [[0] * 4] * 3])
LABELS = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], np.int32)
FIELDS = {
    "image": np.zeros((3, 32, 24, 1), np.uint8),
    "boxes": BOXES.astype(np.float32),
    "label": LABELS,
    "crowd": np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0]], np.float32),
    "n": np.array([2, 1, 0], np.int32),
}
SPEC = {
    "image": "image",
    "boxes": data.Field("boxes", count="n"),
    "label": data.Field("label", class_names=("cat", "dog"), count="n"),
    "crowd": data.Field("target", count="n"),
    "n": "count",
}
SET = data.Dataset("mine", "train", FIELDS, SPEC)
OUTPUTS = jnp.asarray(np.random.default_rng(0).normal(0, 1, (3, 8, 6, 6)), jnp.float32)


def task(**overrides) -> Detection:
    settings = default_config("detection")
    settings.update(overrides)
    return Detection(settings, known_examples(SET))


def batch(**fields) -> dict[str, jax.Array]:
    return {**{name: jnp.asarray(array) for name, array in FIELDS.items()}, **fields}


def target(image: int) -> np.ndarray:
    """The peaks of each class and of each box (rows, columns, 2), by a loop over cells."""
    heat = np.zeros((2, 8, 6))
    for number in range(FIELDS["n"][image]):
        if FIELDS["crowd"][image, number]:
            continue
        top, left, bottom, right = BOXES[image, number] / 4
        row, column = int((top + bottom) / 2), int((left + right) / 2)
        for y in range(8):
            for x in range(6):
                down, across = (y - row) / (0.09 * (bottom - top)), (x - column) / (0.09 * (right - left))
                heat[number, y, x] = np.exp(-(down**2 + across**2) / 2)
    return heat


def looped(image: int, outputs: np.ndarray) -> float:
    """The loss of one image."""
    heat, total, weights, wrong = target(image), 0.0, 0.0, 0.0
    count = max(1, int((FIELDS["n"][image] > 0) and not FIELDS["crowd"][image, 0]) * int(FIELDS["n"][image]))
    for y in range(8):
        for x in range(6):
            hidden = image == 1 and 2 <= y < 6 and 1 <= x < 5  # in the crowd
            for label in range(2):
                own = [heat[n, y, x] for n in range(FIELDS["n"][image]) if LABELS[image, n] == label]
                wanted = max(own, default=0.0)
                probability = 1 / (1 + np.exp(-outputs[y, x, label]))
                if wanted == 1:
                    total += (1 - probability) ** 2 * -np.log(probability)
                elif not hidden:
                    total += (1 - wanted) ** 4 * probability**2 * -np.log(1 - probability)
            owner = int(heat[:, y, x].argmax())
            weight = heat[owner, y, x] if heat[owner, y, x] >= 0.1 else 0.0
            if weight:
                top, left, bottom, right = BOXES[image, owner] / 4
                aims = [(top + bottom) / 2 - y, (left + right) / 2 - x, np.log(bottom - top), np.log(right - left)]
                wrong += weight * np.abs(outputs[y, x, 2:] - aims).sum()
                weights += weight
    return total / count + (wrong / weights if weights else 0.0)


def test_the_loss_is_that_of_a_loop_over_cells() -> None:
    expected = [looped(image, np.asarray(OUTPUTS[image])) for image in range(3)]
    assert float(jax.jit(task().loss)(OUTPUTS, batch())) == pytest.approx(np.mean(expected), rel=1e-5)


def perfect(own: Detection) -> jax.Array:
    """Outputs that describe the true boxes."""
    outputs = np.full((3, 8, 6, 6), -9, np.float32)
    for image in range(3):
        for number in range(FIELDS["n"][image]):
            top, left, bottom, right = BOXES[image, number] / own.cell
            row, column = int((top + bottom) / 2), int((left + right) / 2)
            outputs[image, row, column, LABELS[image, number]] = 3 - number
            place = [(top + bottom) / 2 - row, (left + right) / 2 - column]
            outputs[image, row, column, 2:] = [*place, np.log(bottom - top), np.log(right - left)]
    return jnp.asarray(outputs)


def test_boxes_are_decoded_clipped_and_scored() -> None:
    own = task(max_detections=60)
    found = np.asarray(jax.jit(own.predict)(perfect(own)))
    assert found.shape == (3, 60, 6), "padded to a number that does not depend on the size"
    np.testing.assert_allclose(found[0, :2, :4], BOXES[0, :2], atol=1e-4)
    assert found[0, :2, 5].tolist() == [0, 1]
    assert found[0, :2, 4] == pytest.approx(1 / (1 + np.exp([-3.0, -2.0])))
    assert own.rows(found[:1]) == [{"cat": 1, "dog": 1}]
    assert own.brief_rows(found)[0] == {"objects": "1 cat, 1 dog", "surest": "cat 95.3%"}
    cut = own.within(found[:1], (29, 24))
    assert cut[0, 1, :4].tolist() == pytest.approx([14, 8, 29, 20])
    assert (own.within(found[:1], (14, 24))[0, 1, 4]) == 0, "a box outside the image"
    metrics = jax.jit(own.measure)(perfect(own), {**batch(), "mask": jnp.array([1, 1, 0])})
    scores = own.scores(train.averages(train.added({}, metrics)))
    assert scores["ap"] == scores["ap50"] == scores["ap50_cat"] == 1.0
    assert np.isfinite(scores["loss"])


def test_average_precision_of_a_split_is_no_mean_over_batches() -> None:
    """It is that of the images together, however they are divided."""
    own = task(convention="voc2010", max_detections=96)
    measured = jax.jit(own.measure)(OUTPUTS, batch())
    found, scores = np.asarray(measured["found"].values), []
    for parts in ([[0, 2]], [[0], [2]]):
        totals: dict = {}
        for part in parts:
            kept = {
                name: train.Each(measured[name].values[np.array(part)], np.ones(len(part)))
                for name in ("found", "truth")
            }
            totals = train.added(totals, kept)
        scores.append(own.scores(train.averages(totals))["ap50"])
    each = []
    for label in range(2):
        mine = [row[(row[:, 5] == label) & (row[:, 4] > 0)] for row in found[[0, 2]]]
        boxes = [BOXES[0, :2][LABELS[0, :2] == label], np.zeros((0, 4))]
        each.append(average_precision(boxes, [(row[:, :4], row[:, 4]) for row in mine], convention="voc2010"))
    assert scores == pytest.approx([np.mean(each)] * 2)


def test_objects_are_found_once_and_crowds_hide_detections() -> None:
    truth = Truth(
        np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 0, 60, 60]]), np.array([0, 0, 1]), np.array([0, 0, 1])
    )
    boxes = np.array([[0, 0, 10, 9], [0, 0, 10, 10], [0, 0, 10, 10], [42, 0, 60, 60]])
    found = Detected(boxes, np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 0, 1, 1]))
    assert matched(truth, found) == ([(0, 0)], [1], [1, 2])
    assert matched(Truth(np.zeros((0, 4)), np.zeros(0, int)), found) == ([], [], [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ({"convention": "voc2012"}, "convention='voc2012' is unknown; did you mean 'voc2010'"),
        ({"size_loss": "l2"}, "size_loss='l2' is unknown"),
        ({"suppress_above": 1.5}, "suppress_above=1.5 must be from 0 to 1"),
        ({"max_detections": 0}, "max_detections=0 must be at least 1"),
        ({"data": {"resize": "bilinear"}}, "detection takes images in the size that their boxes are for"),
        ({"data": {"test_time": "mirror"}}, "test_time='mirror' has no meaning"),
    ],
)
def test_a_wrong_config_is_named(overrides: dict, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        task(**overrides)
    assert part in str(caught.value)


def test_boxes_without_classes_are_refused() -> None:
    fields = {name: FIELDS[name] for name in ("image", "boxes", "n")}
    bare = data.Dataset("bare", "train", fields, {name: SPEC[name] for name in fields})
    with pytest.raises(
        UsageError, match="boxes need a class for each box; give a field of kind 'label' with count='n'"
    ):
        Detection(default_config("detection"), known_examples(bare))


SQUARES = """
import jax
import numpy as np
from cnn_jax import data, models, nn

def tiny(*, num_classes, input_shape, width, dtype, rngs):
    first = nn.Conv(1, 12, (8, 8), 4, padding="SAME", rngs=rngs)
    second = nn.Conv(12, 12, (3, 3), padding="SAME", rngs=rngs)
    return nn.Sequence({"conv": first, "relu": jax.nn.relu, "conv2": second, "relu2": jax.nn.relu,
                        "output": nn.Conv(12, num_classes, (1, 1), rngs=rngs)})

TINY = models.Variant(tiny, (32, 32, 1), 6)

def squares(split, **_):
    generator = np.random.default_rng(len(split))
    images = generator.integers(0, 60, (24, 32, 32, 1))
    boxes, labels = np.zeros((24, 1, 4), np.float32), np.zeros((24, 1), np.int32)
    for number, image in enumerate(images):
        labels[number] = number % 2
        size = (8, 14)[number % 2]
        top, left = generator.integers(0, 32 - size, 2)
        image[top : top + size, left : left + size] += 150
        boxes[number] = top, left, top + size, left + size
    fields = {"image": images.astype(np.uint8), "boxes": boxes, "label": labels, "n": np.ones(24, np.int32)}
    spec = {"image": "image", "boxes": data.Field("boxes", count="n"), "n": "count",
            "label": data.Field("label", class_names=("small", "large"), count="n")}
    return data.Dataset("squares", split, fields, spec)
"""


def config(folder: Path) -> ConfigDict:
    settings = default_config("detection")
    settings.data.name, settings.input_shape = f"{folder / 'squares.py'}:squares", (32, 32, 1)
    settings.data.validation, settings.data.augment = "", ("flip",)
    settings.model.name = f"{folder / 'squares.py'}:TINY"
    settings.max_detections = 20
    settings.batch_size, settings.duration, settings.evaluate_every = 8, "300 steps", "300 steps"
    settings.optimizer.name, settings.optimizer.learning_rate = "adam", 0.01
    return settings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detection")
    (folder / "squares.py").write_text(SQUARES)
    runs.train(config(folder), folder / "run", report=False)
    return folder


def test_a_detector_learns(run: Path) -> None:
    scores = json.loads((run / "run/result.json").read_text())["scores"]
    assert scores["test/ap50"] > 0.8


def test_the_report_shows_hits_and_misses() -> None:
    own = task(max_detections=20)
    outputs = perfect(own).at[0, 0, 0, 1].set(4.0)  # false
    predictions = np.asarray(jax.jit(own.predict)(outputs))
    scores = own.scores(
        {
            name: np.asarray(each.values)
            for name, each in jax.jit(own.measure)(outputs, batch()).items()
            if name != "loss"
        }
    )
    results = Results(own.config, SET, 3, predictions, {f"test/{name}": value for name, value in scores.items()})
    shown, worst, classes, curves = own.sections(results)
    assert [section.title for section in (shown, worst, classes, curves)] == [
        *("Predictions", "Worst cases", "Classes", "Precision and recall")
    ]
    assert len(worst.figure.axes) == 1
    assert worst.figure.texts[0].get_text() == "0: 2 found, 0 missed, 1 false"
    assert classes.table.rows[:2] == [
        ["cat", "100.00%", "1", "0", "0"],
        ["dog", classes.table.rows[1][1], "1", "0", "1"],
    ]
    assert [headline.label for headline in own.headlines(results)] == ["test AP", "test AP at IoU 0.5"]
    assert own.typical(results)[0] == 0


@pytest.mark.slow
def test_the_committed_config_is_trained_to_its_report(tmp_path: Path) -> None:
    runs.train(load_config("detect_digits:smoke"), tmp_path / "run")
    page = (tmp_path / "run/report.html").read_text()
    for text in ("Predictions", "Precision and recall", "by COCO&#39;s protocol", "test AP at IoU 0.5"):
        assert text in page


def test_evaluation_counts_what_is_found(run: Path) -> None:
    output = run / "predictions.csv"
    find(config(run)).evaluate(config(run), run / "run", checkpoint="latest", output=str(output))
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert len(rows) == 24
    assert sum(int(row["true small"]) for row in rows) == 12
    assert all(int(row["found"]) + int(row["missed"]) == 1 for row in rows)


def test_own_images_of_any_size_become_boxes_in_files(run: Path) -> None:
    """Sizes that are no multiple of a cell, and smaller than the network's input: 45x71 and 21x18."""
    image = np.full((45, 71), 30, np.uint8)
    image[20:34, 50:64] = 200
    folder = run / "own"
    folder.mkdir()
    Image.fromarray(image).save(folder / "wide.png")
    Image.fromarray(image[16:37, 47:65]).save(folder / "small.png")
    output = run / "out"
    find(config(run)).predict(config(run), run / "run", images=[str(folder)], output=str(output), checkpoint="latest")
    rows = list(csv.DictReader((output / "boxes.csv").read_text().splitlines()))
    best = {Path(row["image"]).name: row for row in reversed(rows)}  # the surest is first
    found = [float(best["wide.png"][side]) for side in ("top", "left", "bottom", "right")]
    assert best["wide.png"]["class"] == "large"
    assert np.abs(np.array(found) - [20, 50, 34, 64]).max() < 4
    assert float(best["small.png"]["bottom"]) <= 21, "boxes end where the image does"
    content = json.loads((output / "boxes.json").read_text())
    assert {(one["height"], one["width"]) for one in content["images"]} == {(45, 71), (21, 18)}
    assert [one["name"] for one in content["categories"]] == ["small", "large"]
    surest = max(content["annotations"], key=lambda one: one["score"])
    assert set(surest) >= {"bbox", "category_id", "image_id", "score"}
    assert np.asarray(Image.open(output / "wide.png")).ndim == 3
    summary = list(csv.DictReader((output / "predictions.csv").read_text().splitlines()))
    assert len(summary) == 2


def test_a_larger_image_has_the_boxes_of_its_part(run: Path) -> None:
    """The network is fully convolutional: far from the border an image's boxes do not depend on its size."""
    network, state = load_run(config(run), run / "run")
    image = np.full((1, 96, 96, 1), 30, np.uint8)
    image[:, 44:58, 40:54] = 200
    (whole,), (part,) = (network.predict(state, images) for images in (image, image[:, 24:80, 24:80]))
    np.testing.assert_allclose(whole[0, :4], part[0, :4] + 24, atol=0.05)
