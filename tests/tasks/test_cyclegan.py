"""CycleGAN: losses and scores against NumPy, wrong data and configs, and one small run to its images."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from cnn_jax import data, ops, train
from cnn_jax.errors import UsageError
from cnn_jax.experiments import find
from cnn_jax.tasks import CycleGAN, Examples, default_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks.saved import load_run
from cnn_jax.tasks.task import Results
from tests.tasks.interrupted import train_interrupted

SIDE = 16
SPEC = {name: data.Field("image", (SIDE, SIDE, 1), "uint8") for name in ("image", "negative")}
GENERATOR = np.random.default_rng(0)
FIRST, SECOND = GENERATOR.integers(0, 256, (2, 3, SIDE, SIDE, 1)).astype(np.uint8)
BATCH = {"image": jnp.asarray(FIRST), "negative": jnp.asarray(SECOND)}
OUTPUTS = jnp.asarray(GENERATOR.normal(size=(3, SIDE, SIDE, 6)), jnp.float32)
PARTS = np.split(1 / (1 + np.exp(-np.asarray(OUTPUTS, np.float64))), 6, axis=-1)  # from 0 to 1


def task(spec=SPEC, **changes):
    config = default_config("cyclegan")
    config.input_shape, config.batch_size = (SIDE, SIDE, 1), 2
    config.update_from_flattened_dict(changes)
    return CycleGAN(config, Examples("mine", spec))


def distance(one, other):
    return np.abs(one - other / 255).mean()


@pytest.mark.parametrize(("loss", "of"), [("l1", np.abs), ("l2", np.square)])
def test_the_loss_is_that_of_cycles_and_of_images_in_the_domain_from_minus_1_to_1(loss, of):
    own = task(loss=loss, cycle_weight=3.0, identity_weight=0.5)
    pairs = zip(PARTS[2:], (FIRST, SECOND, SECOND, FIRST), strict=True)
    errors = [of(2 * (part - true / 255)).mean() for part, true in pairs]
    expected = 3 * sum(errors[:2]) + 0.5 * sum(errors[2:])
    assert float(own.loss(OUTPUTS, BATCH)) == pytest.approx(expected, rel=1e-5)


def test_the_adversarial_losses_are_squared_distances_of_the_scores_of_each_domain():
    own, seen = task(adversarial_weight=2.0), []

    def discriminate(first, second, *, pooled=False):
        seen.append(pooled)
        return first.mean(axis=(1, 2)), 2 * second.mean(axis=(1, 2))

    scores = [factor * (2 * image - 1).mean(axis=(1, 2)) for factor, image in ((1, FIRST / 255), (2, SECOND / 255))]
    fakes = [factor * (2 * image - 1).mean(axis=(1, 2)) for factor, image in ((1, PARTS[1]), (2, PARTS[0]))]
    expected = (
        sum(np.square(score - 1).mean() for score in scores) / 2 + sum(np.square(fake).mean() for fake in fakes) / 2
    )
    assert float(own.discriminator_loss(discriminate, OUTPUTS, BATCH)) == pytest.approx(expected, rel=1e-5)
    expected = 2 * sum(np.square(fake - 1).mean() for fake in fakes)
    assert float(own.adversarial_loss(discriminate, OUTPUTS, BATCH)) == pytest.approx(expected, rel=1e-5)
    assert seen == [False, True, False], "only the discriminators see images of earlier steps"


def test_scores_are_the_errors_of_pairs_in_both_directions_and_of_the_cycles():
    own = task()
    evaluated = jax.jit(own.measure)(OUTPUTS, BATCH | {"mask": jnp.array([1.0, 0.0, 1.0])})
    scores = own.scores(train.averages(train.added({}, evaluated)))
    first, second = (image[::2] / 255 for image in (FIRST, SECOND))
    to_second, to_first, first_again, second_again, *_ = (part[::2] for part in PARTS)
    errors = np.abs(to_second - second).mean(), np.abs(to_first - first).mean()
    assert (scores["mae_to_negative"], scores["mae_to_image"]) == pytest.approx(errors, rel=1e-5)
    assert scores["mae"] == pytest.approx(np.mean(errors), rel=1e-5)
    cycles = np.abs(first_again - first).mean() + np.abs(second_again - second).mean()
    assert scores["cycle"] == pytest.approx(cycles / 2, rel=1e-5)
    pairs = np.concatenate([to_second, to_first]), np.concatenate([second, first])
    assert scores["ssim"] == pytest.approx(float(ops.ssim(*pairs).mean()), rel=1e-4)
    assert list(own.describe(scores)) == ["mae", "psnr", "ssim", "cycle", "loss", "mae_to_negative", "mae_to_image"]
    alone = task(paired=False)
    assert set(alone.measure(OUTPUTS, BATCH | {"mask": jnp.ones(3)})) == {"loss", "cycle"}
    assert [metric.name for metric in alone.metrics(alone.config)] == ["cycle", "loss"]


COLOURS = {name: data.Field("image", (SIDE, SIDE, 3), "uint8") for name in ("image", "negative")}


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        (SPEC | {"negative": COLOURS["negative"]}, {}, "image is 16x16x1, but negative is 16x16x3; cyclegan needs"),
        ({"image": SPEC["image"]}, {}, r"'mine': .* it has image \(image\)"),
        (COLOURS, {"predicts": "lab"}, "predicts='lab' has no meaning for cyclegan"),
        (SPEC, {"data.pixel_range": (0.0, 1.0)}, r"data.pixel_range=\(0.0, 1.0\) must be \(-1.0, 1.0\)"),
        (SPEC, {"cycle_weight": -1.0}, r"cycle_weight=-1\.0 must be at least 0"),
        (SPEC, {"pool": 1}, "pool=1 is smaller than batch_size=2; use at least that, or 0 for none"),
        (SPEC, {"parallel": "pmap"}, "pool needs parallel='jit'"),
    ],
)
def test_mistakes_are_told_in_one_line(spec, changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        task(spec, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ({"image": FIRST, "b": SECOND[:0]}, "data set 'mine', split 'train': the domain 'b' has no images; each"),
        ({"image": FIRST}, "give two domains, 'image' and one other, not 'image'"),
        ({"a": FIRST, "b": SECOND}, "give two domains, 'image' and one other, not 'a', 'b'"),
        ({"image": FIRST, "b": SECOND[:, 1:]}, r"those of 'image' are \(16, 16, 1\), those of 'b' are \(15, 16, 1\)"),
    ],
)
def test_domains_that_are_none_are_told_in_one_line(domains, message):
    with pytest.raises(UsageError, match=message) as caught:
        data.unpaired("mine", "train", domains)
    assert "\n" not in str(caught.value)


def test_images_of_the_smaller_domain_are_repeated():
    found = data.unpaired("mine", "train", {"image": FIRST[:2], "b": SECOND})
    np.testing.assert_array_equal(found.images, FIRST[[0, 1, 0]])
    np.testing.assert_array_equal(found.fields["b"], SECOND)


NEGATIVES = """
import numpy as np
from cnn_jax import data, models, nn

def tiny(*, num_classes, input_shape, width, dtype, rngs):
    return nn.Sequence({"output": nn.Conv(input_shape[-1], num_classes, (1, 1), rngs=rngs)})

TINY = models.Variant(tiny, (16, 16, 1), 1)

def negatives(split, **_):
    images = np.random.default_rng(len(split)).integers(0, 256, (32, 16, 16, 1)) ** 2 // 255
    domains = images.astype(np.uint8), 255 - images.astype(np.uint8)
    if split == "train":
        domains = domains[0][::2], domains[1][1::2]
    return data.unpaired("negatives", split, dict(zip(("image", "negative"), domains)))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run to its end, and one that ends at its first evaluation and is continued."""
    folder = tmp_path_factory.mktemp("cyclegan")
    (folder / "negatives.py").write_text(NEGATIVES)
    config = default_config("cyclegan")
    config.data.name, config.input_shape = f"{folder / 'negatives.py'}:negatives", (SIDE, SIDE, 1)
    config.data.validation, config.model.name = "", f"{folder / 'negatives.py'}:TINY"
    config.batch_size, config.duration, config.evaluate_every, config.pool = 8, "6 steps", "3 steps", 16
    config.discriminator.width, config.discriminator.layers = 1 / 16, 1
    config.optimizer.name, config.optimizer.learning_rate, config.optimizer.momentum = "adam", 0.02, 0.5
    runs.train(config, folder / "whole", report=False)
    train_interrupted(config, folder / "killed")
    return config, folder


def test_a_killed_run_ends_with_the_same_bits(run):
    whole, killed = (json.loads((run[1] / name / "result.json").read_text()) for name in ("whole", "killed"))
    assert whole == killed


def test_all_four_networks_are_trained_and_the_pools_are_full(run):
    config, folder = run
    network, state = load_run(config, folder / "whole")
    first = network.create(train.stream_key(jax.random.key(0), "params"))
    before = dict(nnx.to_flat_state(nnx.state(first, nnx.Param)))
    after = dict(nnx.to_flat_state(state.params))
    assert {path[:2] for path in after} >= {("discriminator", "first"), ("discriminator", "second")}
    assert {"forward", "backward"} <= {path[0] for path in after}
    for path, value in after.items():
        assert not np.array_equal(value.get_value(), before[path].get_value()), path
    for pool in network.model(state.params, state.model_state).discriminator.pools:
        images = np.asarray(pool.images.get_value())
        assert images.shape == (16, SIDE, SIDE, 1)
        assert (images.std(axis=(1, 2, 3)) > 0).all(), "no image is empty"
        assert int(pool.batches.get_value()) == 6


def test_own_images_of_any_size_are_translated_in_both_directions(run):
    config, folder = run
    image = GENERATOR.integers(0, 256, (17, 30, 1), np.uint8)
    Image.fromarray(image[..., 0]).save(folder / "own.png")
    find(config).predict(
        config, folder / "whole", images=[str(folder / "own.png")], output=str(folder / "out"), checkpoint="latest"
    )
    written = {name: np.asarray(Image.open(folder / f"out/own_to_{name}.png")) for name in ("negative", "image")}
    network, state = load_run(config, folder / "whole")
    images = np.rint(255 * network.predict(state, image[None]))[0]
    for place, name in enumerate(("negative", "image")):
        np.testing.assert_array_equal(written[name], images[..., place])
    (row,) = csv.DictReader((folder / "out/predictions.csv").read_text().splitlines())
    for name, pixels in written.items():
        assert float(row[f"to {name}, mean grey"]) == pytest.approx(pixels.mean() / 255, abs=0.005)


def test_evaluation_writes_the_errors_of_each_pair(run):
    config, folder = run
    find(config).evaluate(config, folder / "whole", checkpoint="latest", output=str(folder / "scores.csv"))
    rows = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
    scores = json.loads((folder / "whole/result.json").read_text())["scores"]
    for name in ("negative", "image"):
        errors = [float(row[f"mae to {name}"]) for row in rows]
        assert np.mean(errors) == pytest.approx(scores[f"test/mae_to_{name}"], rel=1e-4)


def test_the_report_shows_images_there_and_back_and_beside_the_truth():
    fields = {"image": FIRST, "negative": SECOND}
    found, predictions = data.Dataset("mine", "test", fields, SPEC), np.concatenate(PARTS, axis=-1).astype(np.float32)
    own = task()
    scores = {"test/mae": 0.25, "test/cycle": 0.125}
    results = Results(own.config, found, 3, predictions, scores)
    sections = own.sections(results)
    titles = ["To negative and back", "To image and back", "Predictions to negative", "Predictions to image", "Scores"]
    assert [section.title for section in sections] == titles
    table = {name: error for name, error, *_ in sections[-1].table.rows}
    assert table == {
        "to negative": f"{distance(PARTS[0], SECOND):.2%}",
        "to negative: the input as it is": f"{distance(FIRST / 255, SECOND):.2%}",
        "to image": f"{distance(PARTS[1], FIRST):.2%}",
        "to image: the input as it is": f"{distance(SECOND / 255, FIRST):.2%}",
    }
    assert [headline.value for headline in own.headlines(results)] == ["25.00%", "12.50%"]
    alone = task(paired=False)
    assert [one.title for one in alone.sections(results)] == titles[:2]
