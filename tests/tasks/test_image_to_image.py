"""Image to image: losses and scores against NumPy, wrong configs, and one small run to its report and predictions."""

import csv
import json
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cnn_jax import data, ops, train
from cnn_jax.errors import UsageError
from cnn_jax.experiments import find
from cnn_jax.tasks import Examples, ImageToImage, default_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks.saved import load_run
from cnn_jax.tasks.task import Results

GENERATOR = np.random.default_rng(0)
GREY = GENERATOR.integers(0, 256, (3, 12, 13, 1), np.uint8)
COLOUR = GENERATOR.integers(0, 256, (3, 12, 13, 3), np.uint8)
HOLES = GENERATOR.integers(0, 2, (3, 12, 13), np.uint8)
SPEC = {
    "image": data.Field("image", (12, 13, 1), "uint8"),
    "colour": data.Field("image", (12, 13, 3), "uint8"),
    "hole": data.Field("mask", (12, 13), "uint8", class_names=("known", "hole")),
}
BATCH = {"image": jnp.asarray(GREY), "colour": jnp.asarray(COLOUR), "hole": jnp.asarray(HOLES)}
OUTPUTS = jnp.asarray(GENERATOR.normal(size=(3, 12, 13, 3)), jnp.float32)
PIXELS = 1 / (1 + np.exp(-np.asarray(OUTPUTS, np.float64)))


def task(spec=SPEC, **changes):
    config = default_config("image_to_image")
    config.update_from_flattened_dict(changes)
    return ImageToImage(config, Examples("mine", spec))


@pytest.mark.parametrize(("loss", "of"), [("l1", np.abs), ("l2", np.square)])
def test_the_loss_is_the_mean_over_pixels_and_channels(loss, of):
    own = task(loss=loss)
    assert own.outputs == ("red", "green", "blue")
    assert float(own.loss(OUTPUTS, BATCH)) == pytest.approx(of(PIXELS - COLOUR / 255).mean(), rel=1e-5)
    middle = PIXELS[:, 2:-2, 2:-3]  # of a network without padding: the middle of the truth
    expected = of(middle - (COLOUR / 255)[:, 2:-2, 2:-3]).mean()
    assert float(own.loss(OUTPUTS[:, 2:-2, 2:-3], BATCH)) == pytest.approx(expected, rel=1e-5)


def test_scores_are_means_over_images_and_those_of_a_mask_over_its_pixels():
    """Of two batches, the second with padding."""
    own, totals = task(), {}
    for rows, mask in (([0, 1], [1.0, 1.0]), ([2, 0], [1.0, 0.0])):
        batch = {name: array[jnp.array(rows)] for name, array in BATCH.items()} | {"mask": jnp.array(mask)}
        totals = train.added(totals, jax.jit(own.measure)(OUTPUTS[jnp.array(rows)], batch))
    scores = own.scores(train.averages(totals))
    errors = np.abs(PIXELS - COLOUR / 255)
    assert scores["mae"] == pytest.approx(errors.mean(), rel=1e-5)
    assert scores["mae_hole"] == pytest.approx(errors[HOLES == 1].mean(), rel=1e-5)
    assert scores["mae_known"] == pytest.approx(errors[HOLES == 0].mean(), rel=1e-5)
    noise = np.mean(-10 * np.log10(np.square(errors).mean(axis=(1, 2, 3))))
    assert scores["psnr"] == pytest.approx(noise, rel=1e-5)
    assert scores["ssim"] == pytest.approx(float(ops.ssim(PIXELS, COLOUR / 255).mean()), rel=1e-4)
    assert set(own.describe(scores)) == {"mae", "psnr", "ssim", "loss", "mae_known", "mae_hole"}


def test_a_perfect_image_has_100_decibels_and_a_similarity_of_1():
    own = task()
    scores = own.image_scores(COLOUR / np.float32(255), COLOUR)
    assert {name: values.tolist() for name, values in scores.items()} == {
        "mae": pytest.approx([0.0] * 3, abs=1e-6),
        "psnr": [100.0] * 3,
        "ssim": pytest.approx([1.0] * 3),
    }


def test_in_lab_the_lightness_is_that_of_the_input():
    own = task(predicts="lab")
    assert own.outputs == ("a", "b")
    lab = np.asarray(ops.rgb_to_lab(COLOUR / np.float32(255)))
    grey = ops.lab_to_rgb(np.concatenate([lab[..., :1], np.zeros_like(lab[..., 1:])], axis=-1))[..., :1]
    batch = BATCH | {"image": grey}
    right = jnp.asarray(lab[..., 1:] / 110)
    assert float(own.loss(right, batch)) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(own.images(right, batch["image"]), COLOUR / 255, atol=1e-4)
    assert float(own.loss(right + 0.1, batch)) == pytest.approx(0.1, rel=1e-4)


def test_the_report_shows_inputs_truth_predictions_and_errors_beside_a_baseline():
    own, found = task(predicts="lab"), data.Dataset("mine", "test", {n: np.asarray(a) for n, a in BATCH.items()}, SPEC)
    scores = {"test/mae": 0.25, "test/psnr": 9.0, "test/ssim": 0.5, "test/mae_hole": 0.3}
    results = Results(own.config, found, 3, np.zeros((3, 12, 13, 2), np.float32), scores)
    predictions, table, classes = own.sections(results)
    assert len(predictions.figure.axes) == 4 * 3
    (name, *network), (baseline, *unchanged) = table.table.rows
    assert (name, baseline) == ("network", "the input as it is")
    assert network == unchanged, "a and b of 0 are grey"
    assert network[0] == f"{np.abs(GREY / 255 - COLOUR / 255).mean():.2%}"
    assert classes.table.rows == [["hole", "30.00%"]]
    assert [headline.value for headline in own.headlines(results)] == ["25.00%", "9 dB", "0.5"]


VOLUMES = {name: data.Field("volume", (8, 8, 8, 1), "uint8") for name in ("volume", "clean")}


def test_volumes_are_scored_in_the_same_way():
    own, zeros = task(VOLUMES, ssim_window="uniform"), jnp.zeros((1, 8, 8, 8, 1))
    batch = {"volume": zeros, "clean": zeros, "mask": jnp.ones(1)}
    found = own.scores(train.averages(train.added({}, jax.jit(own.measure)(zeros, batch))))
    assert found["mae"] == 0.5
    assert found["psnr"] == pytest.approx(20 * np.log10(2), rel=1e-5)


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        (SPEC, {"loss": "mse"}, "loss='mse' is unknown"),
        (SPEC, {"predicts": "labs"}, "predicts='labs' is unknown; did you mean 'lab'"),
        (SPEC, {"ssim_window": "box"}, "ssim_window='box' is unknown"),
        (SPEC, {"data.resize": "bilinear"}, "data.resize='bilinear' has no meaning for image_to_image"),
        (SPEC, {"data.test_time": "mirror"}, "data.test_time='mirror' has no meaning for image_to_image"),
        ({"image": SPEC["image"]}, {}, r"'mine': image_to_image needs two images, .* it has image \(image\)"),
        (SPEC | {"third": SPEC["colour"]}, {}, r"needs two images, .* third \(image\)"),
        (SPEC | {"colour": data.Field("image", (6, 13, 3), "uint8")}, {}, "image is 12x13, but colour is 6x13"),
        (SPEC | {"colour": SPEC["image"]}, {"predicts": "lab"}, "predicts='lab' is for colours; colour of 'mine' has"),
    ],
)
def test_mistakes_are_told_in_one_line(spec, changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        task(spec, **changes)
    assert "\n" not in str(caught.value)


def test_images_smaller_than_the_window_of_ssim_are_refused():
    with pytest.raises(UsageError, match=r"images of 8x8 are smaller than the window of 11 .*; window='uniform'"):
        ops.ssim(np.zeros((1, 8, 8, 1), np.float32), np.zeros((1, 8, 8, 1), np.float32))


INVERTED = """
import jax
import numpy as np
from cnn_jax import data, models, nn

def tiny(*, num_classes, input_shape, width, dtype, rngs):
    return nn.Sequence({"output": nn.Conv(input_shape[-1], num_classes, (1, 1), rngs=rngs)})

TINY = models.Variant(tiny, (12, 12, 1), 1)

def inverted(split, **_):
    images = np.random.default_rng(len(split)).integers(0, 256, (12, 12, 12, 1)).astype(np.uint8)
    fields = {"image": images, "other": 255 - images}
    return data.Dataset("inverted", split, fields, dict.fromkeys(fields, "image"))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image_to_image")
    (folder / "inverted.py").write_text(INVERTED)
    config = default_config("image_to_image")
    config.data.name, config.input_shape = f"{folder / 'inverted.py'}:inverted", (12, 12, 1)
    config.data.validation, config.model.name = "", f"{folder / 'inverted.py'}:TINY"
    config.batch_size, config.duration, config.evaluate_every = 8, "150 steps", "150 steps"
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.1
    runs.train(config, folder / "run", report=False)
    return config, folder


def test_a_network_learns_to_invert(run):
    _, folder = run
    scores = json.loads((folder / "run/result.json").read_text())["scores"]
    assert scores["test/mae"] < 0.05
    assert scores["test/ssim"] > 0.95


def test_own_images_of_any_size_become_images(run):
    config, folder = run
    image = GENERATOR.integers(0, 256, (17, 30, 1), np.uint8)
    Image.fromarray(image[..., 0]).save(folder / "own.png")
    find(config).predict(
        config, folder / "run", images=[str(folder / "own.png")], output=str(folder / "out"), checkpoint="latest"
    )
    written = np.asarray(Image.open(folder / "out/own.png"))
    network, state = load_run(config, folder / "run")
    np.testing.assert_array_equal(written, np.rint(255 * network.predict(state, image[None]))[0, ..., 0])
    assert np.abs(written - (255.0 - image[..., 0])).mean() < 0.05 * 255
    (row,) = csv.DictReader((folder / "out/predictions.csv").read_text().splitlines())
    assert float(row["mean grey"]) == pytest.approx(written.mean() / 255, abs=0.005)


def test_evaluation_writes_the_scores_of_each_image(run):
    config, folder = run
    find(config).evaluate(config, folder / "run", checkpoint="latest", output=str(folder / "scores.csv"))
    rows = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
    scores = json.loads((folder / "run/result.json").read_text())["scores"]
    for name in ("mae", "psnr", "ssim"):
        assert np.mean([float(row[name]) for row in rows]) == pytest.approx(scores[f"test/{name}"], rel=1e-4)


def test_the_embedded_data_hide_what_the_mask_says():
    namespace = runpy.run_path(str(Path(__file__).parents[2] / "configs/inpaint_digits.py"))
    found = namespace["digits_with_holes"]("test")
    hidden = found.fields["hole"] == 1
    assert len(found) == 300
    assert (found.images[..., 0][hidden] == 128).all()
    np.testing.assert_array_equal(found.images[~hidden], found.fields["whole"][~hidden])
    assert 0.09 < hidden.mean() < 0.26
