"""Segmentation: the loss and the scores against loops, and a run of a small U-Net on larger images."""

import csv
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from cnn_jax import data, train
from cnn_jax.config import load_config
from cnn_jax.errors import PartlyFailedError, UsageError
from cnn_jax.experiments import comparison, find
from cnn_jax.tasks import Segmentation, default_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks.responses import Explained
from cnn_jax.tasks.saved import load_run
from cnn_jax.tasks.sets import known_examples
from cnn_jax.tasks.task import Results

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.choice([0, 1, 2, 255], (5, 6, 7), p=[0.6, 0.2, 0.1, 0.1]).astype(np.uint8)
LABELS[1][LABELS[1] == 2] = 0
LABELS[4] = 255  # no pixel of the last image is labelled
IMAGES = GENERATOR.integers(0, 256, (5, 6, 7, 1), np.uint8)
SPEC = {"image": "image", "where": data.Field("mask", class_names=("none", "cell", "nucleus"))}
SET = data.Dataset("mine", "train", {"image": IMAGES, "where": LABELS}, SPEC)
OUTPUTS = GENERATOR.standard_normal((5, 6, 7, 3)).astype(np.float32)
OUTPUTS[1, ..., 2] = -9
SCORES = jnp.asarray(OUTPUTS)  # of any size, like logits
MASK = jnp.array([1, 1, 1, 0, 1])


def task(**overrides) -> Segmentation:
    settings = default_config("segmentation")
    settings.update(overrides)
    return Segmentation(settings, known_examples(SET))


def batch(**fields) -> dict[str, jax.Array]:
    return {"image": jnp.asarray(IMAGES), "where": jnp.asarray(LABELS), **fields}


def looped(over: str, empty: str, chosen: tuple[int, ...]) -> tuple[float, float, float]:
    """IoU, Dice and accuracy of the images that are not padding, one pixel after the other."""
    value = {"ignore": None, "0": 0.0, "1": 1.0}[empty]
    predicted, groups = OUTPUTS.argmax(axis=-1), [[0], [1], [2]] if over == "image" else [[0, 1, 2]]
    ious, dices, accuracies = ({kind: [] for kind in range(3)} for _ in range(3))
    for group in groups:
        pairs = [(LABELS[i][p], predicted[i][p]) for i in group for p in np.ndindex(6, 7) if LABELS[i][p] != 255]
        accuracies[0].append(np.mean([true == given for true, given in pairs]))
        for kind in range(3):
            hits = sum(true == given == kind for true, given in pairs)
            total = sum(int(true == kind) + int(given == kind) for true, given in pairs)
            if total or value is not None:
                ious[kind].append(hits / (total - hits) if total else value)
                dices[kind].append(2 * hits / total if total else value)
    kinds = [kind for kind in chosen or range(3) if ious[kind]]
    means = [np.mean([np.mean(scores[kind]) for kind in kinds]) for scores in (ious, dices)]
    return (*means, np.mean(accuracies[0]))


@pytest.mark.parametrize("over", ["set", "image"])
@pytest.mark.parametrize("empty", ["ignore", "0", "1"])
def test_scores_follow_the_convention_that_is_named(over: str, empty: str) -> None:
    chosen = () if over == "set" else (1, 2)
    own = task(score_over=over, empty_class=empty, scored_classes=chosen)
    parts = [
        jax.jit(own.measure)(SCORES[part], {name: a[part] for name, a in batch(mask=MASK).items()})
        for part in (np.s_[:2], np.s_[2:])
    ]
    totals: dict = {}
    for part in parts:
        totals = train.added(totals, part)
    scores = own.scores(train.averages(totals))
    iou, dice, accuracy = looped(over, empty, chosen)
    assert scores["iou"] == pytest.approx(iou, rel=1e-5)
    assert scores["dice"] == pytest.approx(dice, rel=1e-5)
    assert scores["pixel_accuracy"] == pytest.approx(accuracy, rel=1e-5)
    said = own.describe(scores)["convention"]
    assert ("averaged over the images" in said) == (over == "image")
    assert {"ignore": "left out", "0": "counts 0", "1": "counts 1"}[empty] in said
    assert ("mean of cell, nucleus" in said) == bool(chosen)


def surprise() -> np.ndarray:
    shares = np.exp(OUTPUTS.astype(np.float64))
    shares /= shares.sum(axis=-1, keepdims=True)
    return -np.log(np.take_along_axis(shares, np.minimum(LABELS, 2)[..., None].astype(int), axis=-1)[..., 0])


def test_the_loss_is_the_mean_over_labelled_pixels_with_weights() -> None:
    known, losses = LABELS != 255, surprise()
    assert float(task().loss(SCORES, batch())) == pytest.approx(losses[known].mean(), rel=1e-5)
    weights = np.array([1.0, 3.0, 0.5])[np.minimum(LABELS, 2)]
    found = task(class_weights=(1.0, 3.0, 0.5)).loss(SCORES, batch())
    assert float(found) == pytest.approx((weights * losses)[known].mean(), rel=1e-5)
    border = GENERATOR.random(LABELS.shape).astype(np.float32)
    found = task(border_weight=10.0).loss(SCORES, batch(border_weights=border))
    assert float(found) == pytest.approx(((1 + border) * losses)[known].mean(), rel=1e-5)
    focal = task(loss="focal", focal_gamma=2.0).loss(SCORES, batch())
    assert float(focal) == pytest.approx((losses * (1 - np.exp(-losses)) ** 2)[known].mean(), rel=1e-5)
    both = task(loss="cross_entropy_dice").loss(SCORES, batch())
    alone = task(loss="dice").loss(SCORES, batch())
    assert float(both - alone) == pytest.approx(losses[known].mean(), rel=1e-5)
    counts = np.bincount(LABELS[known], minlength=3)
    assert np.asarray(task(balanced=True).class_weights()) == pytest.approx(counts.sum() / (3 * counts), rel=1e-6)


def test_a_smaller_output_is_that_of_the_middle() -> None:
    """Such as the output of a network without padding, in training."""
    middle = SCORES[:, 1:5, 2:6]
    found = task().loss(middle, batch())
    part = LABELS[:, 1:5, 1:5]
    shares = jax.nn.log_softmax(middle)
    expected = [-shares[p][part[p]] for p in np.ndindex(part.shape) if part[p] != 255]
    assert float(found) == pytest.approx(np.mean(expected), rel=1e-5)


def test_the_report_has_images_a_table_of_classes_and_the_confusion_of_pixels() -> None:
    own, predictions = task(), OUTPUTS.argmax(axis=-1).astype(np.uint8)
    scores = own.scores(train.averages(train.added({}, jax.jit(own.measure)(SCORES, batch()))))
    results = Results(own.config, SET, 5, predictions, {f"test/{name}": value for name, value in scores.items()})
    examples, classes, confusion = own.sections(results)
    assert len(examples.figure.axes) == 4 * 4, "the last image has nothing to compare"
    assert [row[0] for row in classes.table.rows] == ["none", "cell", "nucleus", "mean"]
    matrix = own.pixel_confusion(LABELS, predictions)
    pairs = [(t, p) for t, p in zip(LABELS.ravel(), predictions.ravel(), strict=True) if t != 255]
    assert matrix.tolist() == [[pairs.count((t, p)) for p in range(3)] for t in range(3)]
    assert confusion.title == "Confusion of pixels"
    volumes = {"scan": np.stack([IMAGES] * 2, axis=0).astype(np.float32), "where": np.stack([LABELS] * 2)}
    solid = data.Dataset("solid", "test", volumes, {"scan": "volume", "where": SPEC["where"]})
    results = Results(own.config, solid, 2, np.stack([predictions] * 2), results.scores)
    assert "slice" in own.sections(results)[0].figure.texts[4].get_text()


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ({"score_over": "images"}, "score_over='images' is unknown; did you mean 'image'"),
        ({"empty_class": "nan"}, "empty_class='nan' is unknown"),
        ({"scored_classes": (3,)}, "scored_classes: 3 is not the number of a class, 0 to 2"),
        ({"loss": "iou"}, "loss='iou' is unknown"),
        ({"loss": "dice", "border_weight": 10.0}, "border_weight has no meaning for loss='dice'"),
        ({"class_weights": (1.0,)}, "class_weights has 1 numbers for 3 classes"),
        ({"class_weights": (1.0, 1.0, 1.0), "balanced": True}, "leave one out"),
        ({"data": {"resize": "bilinear"}}, "segmentation takes images in their own size"),
        ({"data": {"test_time": "mirror"}}, "test_time='mirror' has no meaning"),
    ],
)
def test_a_wrong_config_is_named(overrides: dict, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        task(**overrides)
    assert part in str(caught.value)


SQUARES = """
import jax
import numpy as np
from cnn_jax import data, models, nn

def tiny(*, num_classes, input_shape, width, dtype, rngs):
    first = nn.Conv(1, 8, (5, 5), padding="VALID", rngs=rngs)
    return nn.Sequence({"conv": first, "relu": jax.nn.relu, "output": nn.Conv(8, num_classes, (1, 1), rngs=rngs)})

TINY = models.Variant(tiny, (32, 32, 1), 2)

def squares(split, **_):
    generator = np.random.default_rng(len(split))
    images, masks = generator.integers(0, 60, (12, 40, 36, 1)), np.zeros((12, 40, 36), np.uint8)
    for image, mask in zip(images, masks):
        top, left = generator.integers(0, 24, 2)
        image[top : top + 12, left : left + 12] += 150
        mask[top : top + 12, left : left + 12] = 1
    fields = {"image": images.astype(np.uint8), "where": masks}
    spec = {"image": "image", "where": data.Field("mask", class_names=("no", "square"))}
    return data.Dataset("squares", split, fields, spec)
"""


def config(folder: Path) -> ConfigDict:
    """A network without padding on tiles of 32x32, of which it predicts the 28x28 pixels in the middle."""
    settings = default_config("segmentation")
    settings.data.name, settings.input_shape = f"{folder / 'squares.py'}:squares", (32, 32, 1)
    settings.data.augment = ("random_crop(size=(32, 32))",)
    settings.data.validation, settings.border_weight = "", 2.0
    settings.model.name = f"{folder / 'squares.py'}:TINY"
    settings.batch_size, settings.duration, settings.evaluate_every = 8, "60 steps", "60 steps"
    settings.optimizer.name, settings.optimizer.learning_rate = "adam", 0.01
    return settings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmentation")
    (folder / "squares.py").write_text(SQUARES)
    runs.train(config(folder), folder / "run", report=False)
    return folder


def test_a_valid_network_is_trained_on_crops_and_scored_on_whole_images(run: Path) -> None:
    scores = json.loads((run / "run/result.json").read_text())["scores"]
    assert scores["test/iou"] > 0.8


@pytest.mark.slow
def test_the_committed_config_is_trained_to_its_report(tmp_path: Path) -> None:
    runs.train(load_config("segment_digits:smoke"), tmp_path / "run")
    page = (tmp_path / "run/report.html").read_text()
    for text in ("Predictions", "Confusion of pixels", "Through the network", "a class neither there nor predicted"):
        assert text in page


def test_evaluation_writes_the_scores_of_each_image(run: Path) -> None:
    output = run / "predictions.csv"
    find(config(run)).evaluate(config(run), run / "run", checkpoint="latest", output=str(output))
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert len(rows) == 12
    assert float(rows[0]["true square"]) == pytest.approx(144 / (40 * 36), abs=1e-6)
    accuracy = np.mean([float(row["pixel_accuracy"]) for row in rows])
    scores = json.loads((run / "run/result.json").read_text())["scores"]
    assert accuracy == pytest.approx(scores["test/pixel_accuracy"], abs=1e-5)


def test_own_images_of_any_size_become_masks_and_overlays(run: Path) -> None:
    """A colour image of a size between tiles, one smaller than a tile, and a file that is not an image."""
    image = np.full((50, 61, 3), 30, np.uint8)
    image[20:32, 30:42] = 200
    folder = run / "own"
    folder.mkdir()
    Image.fromarray(image).save(folder / "drawing.png")
    Image.fromarray(image[15:30, 25:40, 0]).save(folder / "small.png")
    (folder / "broken.png").write_bytes(b"no image")
    output = run / "out"
    with pytest.raises(PartlyFailedError, match="1 of 3 images cannot be read"):
        find(config(run)).predict(
            config(run), run / "run", images=[str(folder)], output=str(output), checkpoint="latest"
        )
    mask = np.asarray(Image.open(output / "drawing.png"))
    assert mask.shape == (50, 61)
    truth = np.zeros((50, 61), bool)
    truth[20:32, 30:42] = True
    assert ((mask == 1) & truth).sum() / ((mask == 1) | truth).sum() > 0.7
    overlay = np.asarray(Image.open(output / "drawing_overlay.png"))
    np.testing.assert_array_equal(overlay[mask == 0], image[mask == 0])
    assert (overlay[mask == 1] != image[mask == 1]).any(axis=-1).all()
    assert np.asarray(Image.open(output / "small.png")).shape == (15, 15)
    rows = {
        Path(row["image"]).name: row for row in csv.DictReader((output / "predictions.csv").read_text().splitlines())
    }
    assert float(rows["drawing.png"]["square"]) == pytest.approx((mask == 1).mean(), abs=1e-5)
    assert rows["drawing.png"]["assumed"] == ""
    assert "cannot be read" in rows["broken.png"]["note"]


def test_what_is_explained_is_the_mean_score_of_each_class(run: Path) -> None:
    network, state = load_run(config(run), run / "run")
    images = np.stack([np.full((40, 36, 1), 30, np.uint8)] * 2)
    explained = Explained.of(network, state)
    inputs = explained.inputs(network.framed(images))
    assert inputs.shape == (2, 32, 32, 1)
    outputs = network.model(state.params, state.model_state)(inputs)
    np.testing.assert_allclose(explained.model(inputs), outputs.mean(axis=(1, 2)), rtol=1e-5)


def test_training_images_of_another_size_are_rejected(run: Path, tmp_path: Path) -> None:
    settings = config(run)
    settings.data.augment = ()
    with pytest.raises(UsageError, match=r"40x36 are not those of input_shape, 32x32; add 'random_crop"):
        find(settings).train(settings, tmp_path / "run")


def test_the_committed_config_describes_its_network_without_training() -> None:
    network = runs.untrained(load_config("segment_digits:smoke"))
    assert network.task.outputs == ("photograph", "ink")
    assert network.tiling.keeps_size


def compared(folder: Path, **networks) -> ConfigDict:
    settings, single = comparison.default_config("segmentation"), config(folder)
    for key in ("data", "input_shape", "model", "batch_size", "optimizer"):
        settings[key] = single[key]
    settings.duration, settings.evaluate_every, settings.networks = "4 steps", "4 steps", networks
    return settings


def test_a_comparison_shows_the_same_images_of_each_network(run: Path) -> None:
    settings = compared(run, tiny={})
    settings.seeds, settings.shown = 1, 1
    shutil.copytree(run / "run", run / "comparison/tiny-0")  # a run that is finished is not repeated
    comparison.train(settings, run / "comparison")
    page = (run / "comparison/report.html").read_text()
    single = json.loads((run / "comparison/tiny-0/result.json").read_text())["scores"]
    assert "Test images, 1 of 1" in page
    assert f"{single['test/iou']:.2%}" in page
    with pytest.raises(UsageError, match="for one run: give one of the folders"):
        find(settings).predict(settings, run / "comparison", images=[], output="", checkpoint="latest")


def test_a_comparison_has_means_and_deviations_over_seeds_and_the_best_one_last(run: Path) -> None:
    settings = compared(run, good={}, bad={"optimizer": {"learning_rate": 1e-6}})
    settings.seeds, settings.shown = 2, 0
    scores = {"good": (0.75, 0.85), "bad": (0.25, 0.35)}
    for title, values in scores.items():
        for seed, value in enumerate(values):
            folder = run / f"table/{title}-{seed}"
            folder.mkdir(parents=True)
            found = {f"test/{name}": value for name in ("iou", "dice", "pixel_accuracy", "loss")}
            (folder / "result.json").write_text(json.dumps({"scores": found}))
    comparison.train(settings, run / "table")
    results = json.loads((run / "table/result.json").read_text())["results"]
    assert list(results) == ["bad", "good"]
    assert results["good"] == {
        "parameters": 5 * 5 * 8 + 8 + 8 * 2 + 2,
        "scores": {name: [0.75, 0.85] for name in ("iou", "dice", "pixel_accuracy")},
    }
    page = (run / "table/report.html").read_text()
    assert "80.00% ± 7.07" in page
    assert "30.00% ± 7.07" in page


def test_a_comparison_checks_the_keys_of_its_task() -> None:
    settings = comparison.default_config("segmentation")
    settings.networks = {"U-Net": {"score_ovr": "image"}}
    with pytest.raises(UsageError, match="score_over"):
        comparison.network_runs(settings, "U-Net")
    settings.seeds = 0
    with pytest.raises(UsageError, match="seeds=0 must be at least 1"):
        comparison.train(settings, Path("unused"))
    settings.task = "segmentatoin"
    with pytest.raises(UsageError, match=r"config.task='segmentatoin' is unknown; did you mean 'segmentation'"):
        comparison.schema(settings)
