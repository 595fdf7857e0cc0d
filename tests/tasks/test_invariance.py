"""Changes of images against NumPy and SciPy, and measurements under changes against single predictions."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from cnn_jax import data
from cnn_jax.errors import UsageError
from cnn_jax.experiments import invariance
from cnn_jax.experiments.invariance import CHANGES, Draws
from cnn_jax.tasks.saved import load_run


def changed(name, images, strength, *, direction=0.0, row=0.0, column=0.0):
    draws = Draws(*(jnp.full(len(images), number, jnp.float32) for number in (direction, row, column)))
    return np.asarray(CHANGES[name].apply(jnp.asarray(images), jnp.float32(strength), draws))


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(size=(2, 8, 10, 3)).astype(np.float32)


def test_images_move_in_their_directions(images):
    right = np.zeros_like(images)
    right[:, :, 2:] = images[:, :, :-2]
    np.testing.assert_allclose(changed("shift", images, 0.2), right, atol=1e-5)
    down = np.zeros_like(images)
    down[:, 2:] = images[:, :-2]
    np.testing.assert_allclose(changed("shift", images, 0.25, direction=0.25), down, atol=1e-5)


@pytest.mark.parametrize("sense", [0.2, 0.8])
@pytest.mark.parametrize("angle", [30, 90, 180])
def test_images_are_turned_about_their_centres(images, sense, angle):
    other = -angle if sense < 0.5 else angle  # SciPy rotates in the other direction
    turned = ndimage.rotate(images, other, axes=(1, 2), reshape=False, order=1, mode="grid-constant")
    np.testing.assert_allclose(changed("rotation", images, angle, direction=sense), turned, atol=1e-4)


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.6])
def test_images_are_enlarged_about_their_centres(images, factor):
    centre = np.array([3.5, 4.5])
    for image, found in zip(images, changed("scale", images, factor), strict=True):
        for channel in range(3):
            expected = ndimage.affine_transform(
                image[..., channel], np.eye(2) / factor, centre - centre / factor, order=1, mode="grid-constant"
            )
            np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)


def test_light_and_cover(images):
    np.testing.assert_allclose(changed("brightness", images, 2.0), np.minimum(2 * images, 1), rtol=1e-6)
    covered = images.copy()
    covered[:, 4:, 5:] = 0.5
    np.testing.assert_array_equal(changed("occlusion", images, 0.5, row=1.0, column=1.0), covered)
    for name, change in CHANGES.items():
        np.testing.assert_allclose(changed(name, images, change.none, direction=0.6, row=0.3), images, atol=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a small run."""
    config = invariance.default_config()
    config.model.name, config.input_shape = "mlp", (8, 8, 1)
    config.data.train, config.data.validation, config.data.test = "train[:200]", "", "test[:60]"
    config.duration = config.evaluate_every = "40 steps"
    config.changes = {"shift": (), "rotation": (), "scale": (), "brightness": (0.3, 1.0), "occlusion": (0.5,)}
    folder = tmp_path_factory.mktemp("invariance")
    invariance.train(config, folder)
    return config, folder


def test_accuracy_and_agreement_are_those_of_predictions(run):
    config, folder = run
    (own, place), *_ = invariance._runs(config, folder).values()
    network, state = load_run(own, place)
    test_set = data.load("digits", "test[:60]")
    curves = invariance.measure(network, state, test_set, {"brightness": (0.3, 1.0)})["brightness"]
    dark = (test_set.images / 255 * 0.3).astype(np.float32)
    before, after = (network.predict(state, images).argmax(axis=-1) for images in (test_set.images, dark))
    assert curves[1.0] == (pytest.approx(np.mean(before == test_set.labels)), 1.0)
    assert curves[0.3] == (pytest.approx(np.mean(after == test_set.labels)), pytest.approx(np.mean(before == after)))
    assert 0.1 < curves[0.3].agreement < 1


def test_the_folder_of_any_run_can_be_measured(run, tmp_path):
    config, folder = run
    other = invariance.default_config()
    other.run, other.changes, other.measured = str(folder / "mlp"), config.changes, 20
    invariance.train(other, tmp_path / "measured")
    assert not (tmp_path / "measured" / "mlp").exists()
    page = (tmp_path / "measured" / "report.html").read_text()
    assert all(f">{title}</h2>" in page for title in ("Curves", "Examples", "Each strength"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shown": 0}, "shown=0 must be at least 1"),
        ({"changes": dict.fromkeys(CHANGES, ())}, "changes has no strengths"),
        ({"run": "nowhere"}, "nowhere"),
    ],
)
def test_mistakes(changes, message, tmp_path):
    config = invariance.default_config()
    config.update(changes)
    with pytest.raises(UsageError, match=message):
        invariance.train(config, tmp_path)
