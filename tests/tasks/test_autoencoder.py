"""Autoencoders: scores against NumPy, codes and decoded images, a classifier that starts from the encoder, errors."""

import csv
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from cnn_jax import data, geometry, models, nn
from cnn_jax.errors import UsageError
from cnn_jax.experiments import finetune
from cnn_jax.tasks import default_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks.autoencoder_report import _plane, codes, decoded
from cnn_jax.tasks.responses import Explained
from cnn_jax.tasks.saved import load_run

SIZES = {"latent_size": 3, "channels": (6,)}


def small_config(**changes):
    config = default_config("autoencoder")
    config.input_shape, config.model.name = (8, 8, 1), "conv_autoencoder"
    config.model.options = {**SIZES, "noise": 0.3}
    config.data.train, config.data.validation, config.data.test = "train[:200]", "", "test[:40]"
    config.duration, config.evaluate_every = "150 steps", "150 steps"
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.01
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config, folder = small_config(), tmp_path_factory.mktemp("autoencoder")
    runs.train(config, folder)
    return config, folder


def test_scores_are_the_errors_of_reconstructions_and_beat_the_mean_image(run):
    config, folder = run
    network, state = load_run(config, folder)
    found = data.load("digits", "test[:40]")
    pixels = found.images / 255
    reconstructed = network.predict(state, found.images)
    error = np.sqrt(np.square(pixels - reconstructed).mean())
    scores = json.loads((folder / "result.json").read_text())["scores"]
    assert scores["test/rmse"] == pytest.approx(error, abs=1e-5)
    assert error < np.sqrt(np.square(pixels - (data.load("digits", "train[:200]").images / 255).mean(axis=0)).mean())


def test_decoding_the_codes_gives_the_reconstructions(run):
    config, folder = run
    network, state = load_run(config, folder)
    images = data.load("digits", "test[:40]").images
    explained = Explained.of(network, state)
    found = codes(explained, images)
    assert found.shape == (40, 3)
    np.testing.assert_allclose(decoded(explained, network.task, found), network.predict(state, images), atol=1e-5)
    centre, axes, plane = _plane(found)
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-5)
    # No plane through the centre holds more of the variance.
    assert np.square(plane).sum() == pytest.approx(np.sort(np.linalg.svd(found - centre)[1] ** 2)[-2:].sum(), rel=1e-4)


def test_the_report_shows_reconstructions_codes_and_decoded_images(run):
    page = (run[1] / "report.html").read_text()
    assert all(f">{title}</h2>" in page for title in ("Reconstructions", "Codes", "Decoded"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Some test digits as files of a user: two formats, one of another size, dark on light."""
    folder = tmp_path_factory.mktemp("images")
    digits = data.load("digits", "test[:2]").images[..., 0]
    Image.fromarray(digits[0]).save(folder / "digit.png")
    Image.fromarray(255 - digits[1]).resize((20, 20)).convert("RGB").save(folder / "scan.jpg", quality=95)
    return folder, digits


def test_reconstructions_are_written_as_images_and_codes_as_a_table(run, images, tmp_path, capsys):
    config, folder = run
    paths = [str(images[0] / name) for name in ("digit.png", "scan.jpg")]
    runs.predict(config, folder, images=paths, output=str(tmp_path / "out"), checkpoint="latest")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"digit.png", "scan.jpg", "predictions.csv"}
    network, state = load_run(config, folder)
    reconstructed = network.predict(state, images[1][:1, ..., None])[0, ..., 0]
    with Image.open(tmp_path / "out" / "digit.png") as written, Image.open(tmp_path / "out" / "scan.jpg") as other:
        np.testing.assert_allclose(np.asarray(written), 255 * reconstructed, atol=0.51)
        assert (written.mode, other.mode, other.size, other.format) == ("L", "L", (8, 8), "JPEG")
    first, second = csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines())
    expected = codes(Explained.of(network, state), images[1][:1, ..., None])[0]
    assert [float(first[f"code_{number}"]) for number in (1, 2, 3)] == pytest.approx(expected, rel=1e-4)
    error = np.sqrt(np.square(images[1][0] / 255 - reconstructed).mean())
    assert float(first["rmse"]) == pytest.approx(error, rel=1e-4)
    assert "inverted" in second["assumed"]
    shown = capsys.readouterr().out
    assert "rmse" in shown
    assert "code_1" not in shown


def test_a_folder_for_reconstructions_is_no_file(run, images):
    config, folder = run
    with pytest.raises(UsageError, match=r"--output=out.csv is a file; give the name of a folder"):
        runs.predict(config, folder, images=[str(images[0])], output="out.csv", checkpoint="latest")


def test_codes_of_the_test_set_are_beside_its_labels(run, tmp_path):
    config, folder = run
    runs.evaluate(config, folder, checkpoint="latest", output=str(tmp_path / "codes.csv"))
    rows = list(csv.DictReader((tmp_path / "codes.csv").read_text().splitlines()))
    assert (len(rows), list(rows[0])) == (40, ["index", "label", "rmse", "code_1", "code_2", "code_3"])
    assert [row["label"] for row in rows] == [str(label) for label in data.load("digits", "test[:40]").labels]


def test_a_classifier_starts_with_the_encoder(run, tmp_path):
    """The pretraining experiment, whose source is already trained; a learning rate of 0 leaves the encoder as it is."""
    config = finetune.default_config()
    config.input_shape, config.model.name, config.model.options = (8, 8, 1), "conv_encoder", SIZES
    config.duration, config.optimizer.learning_rate, config.batch_size = "1 step", 0.0, 48
    config.data.validation, config.data.test, config.evaluate_every = "", "test[:40]", "1 step"
    config.source.update({"name": "digits", "train": "train[:200]", "test": "test[:40]"})
    config.source.changes = {"experiment": "autoencoder", "model": {"name": "conv_autoencoder"}}
    config.examples, config.seeds, config.ways = (100,), 1, ("tuned",)
    shutil.copytree(run[1], tmp_path / "series" / "source")
    finetune.train(config, tmp_path / "series")
    own = finetune.target_run(config, "tuned", count=100, number=0, source=tmp_path / "series" / "source")
    (_, ours), (_, theirs) = (load_run(*pair) for pair in ((own, tmp_path / "series" / "tuned-100-0"), run))
    for layer in ("conv1", "latent"):
        np.testing.assert_array_equal(
            ours.params[layer]["kernel"].get_value(), theirs.params[layer]["kernel"].get_value()
        )
    source, kept = (
        finetune.source_run(config),
        finetune.target_run(config, "kept", count=100, number=0, source=run[1]),
    )
    assert (source.experiment, source.model.name, source.data.train) == (
        "autoencoder",
        "conv_autoencoder",
        "train[:200]",
    )
    assert kept.freeze == ("conv1", "latent")
    page = (tmp_path / "series" / "report.html").read_text()
    assert "On the source the network reached test rmse 0." in page
    config.ways = ("tunned",)
    with pytest.raises(UsageError, match="ways: 'tunned' is unknown; did you mean 'tuned'"):
        finetune.train(config, tmp_path / "series")


def test_shapes_of_the_network():
    model = nnx.eval_shape(
        lambda: models.create("conv_autoencoder", input_shape=(16, 24, 3), num_classes=3, rngs=nnx.Rngs(0))
    )
    assert geometry.output_shape({name: getattr(model, name) for name in model.names}, (16, 24, 3)) == (16, 24, 3)


def test_noise_is_gaussian_and_only_in_training():
    layer, x = nn.GaussianNoise(0.5), jnp.ones((200, 100))
    noise = np.asarray(layer(x, train=True, rngs=jax.random.key(0))) - 1
    assert (noise.mean(), noise.std()) == (pytest.approx(0, abs=0.02), pytest.approx(0.5, abs=0.02))
    assert np.mean(np.abs(noise) < 0.5) == pytest.approx(0.6827, abs=0.02)
    np.testing.assert_array_equal(layer(x, train=False), x)
    with pytest.raises(UsageError, match="GaussianNoise: training needs random numbers"):
        layer(x, train=True)
    with pytest.raises(UsageError, match="GaussianNoise: std=-1 must be at least 0"):
        nn.GaussianNoise(-1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"input_shape": (16, 16, 1)},
            r"images of shape \(8, 8, 1\), .* set input_shape to it instead of \(16, 16, 1\)",
        ),
        ({"rotated_pairs.weight": 1.0}, "rotated_pairs makes outputs alike, but those of this task rotate too"),
        ({"loss": "bce"}, "loss='bce' is unknown"),
        ({"data.test_time": "mirror"}, "data.test_time='mirror' has no meaning for an autoencoder"),
        ({"model.name": "lenet_5_modern", "model.options": {}}, "must give these back; use conv_autoencoder|input"),
        ({"model.options": {"channels": (4, 4, 4, 4)}}, "use sides that are multiples of 16, or fewer channels"),
        ({"model.options": {"latent_size": 0}}, "latent_size=0"),
    ],
)
def test_mistakes(changes, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        runs.train(small_config(**changes), tmp_path)
