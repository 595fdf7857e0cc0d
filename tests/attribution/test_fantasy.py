"""Fantasy images against closed forms, and the effect of each option."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.ndimage
from flax import nnx

from cnn_jax import nn
from cnn_jax.attribution import fantasy_image
from cnn_jax.attribution.fantasy import COLOURS, _coordinates
from cnn_jax.errors import UsageError

SHAPE = (6, 5, 3)
WEIGHTS = np.random.default_rng(0).standard_normal((*SHAPE, 4)).astype(np.float32)
GREY = jnp.full((2, *SHAPE), 0.5)


def linear(x):
    return jnp.einsum("nhwc,hwck->nk", x, WEIGHTS)


@pytest.fixture(scope="module")
def network():
    """A smooth network: at a kink an optimum could have a gradient."""
    rngs = nnx.Rngs(1)
    layers = {"c1": nn.Conv(3, 8, (3, 3), rngs=rngs), "tanh1": jnp.tanh, "c2": nn.Conv(8, 8, (3, 3), rngs=rngs)}
    layers |= {
        "softplus": jax.nn.softplus,
        "flat": nn.Flatten((6, 5, 8)),
        "f3": nn.Linear(240, 4, rngs=rngs),
        "tanh": jnp.tanh,
    }
    return nn.Sequence(layers)


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (0, 255), (-1.0, 1.0)])
def test_linear_function(value_range):
    """The image is w / (2 lambda) and the objective ||w||^2 / (4 lambda), both in units of the range."""
    unit, decay = value_range[1] - value_range[0], 3.0
    of_z = functools.partial(lambda x: linear(x / unit))
    found = fantasy_image(of_z, unit * GREY, jnp.array([3, 1]), decay=decay, value_range=value_range, steps=600)
    expected = WEIGHTS[..., [3, 1]].transpose(3, 0, 1, 2)
    np.testing.assert_allclose(found.images / unit, expected / (2 * decay), atol=2e-4)
    squares = np.square(expected).sum((1, 2, 3))
    np.testing.assert_allclose(found.objectives, squares / (4 * decay), rtol=1e-5)
    np.testing.assert_allclose(found.scores, squares / (2 * decay), rtol=1e-3)
    np.testing.assert_allclose(found.gradient_norms, np.sqrt(squares), rtol=1e-5)
    assert (found.residuals < 2e-3 * found.gradient_norms).all()


def test_one_step_of_half_the_inverse_decay_is_exact():
    found = fantasy_image(linear, GREY, 2, decay=0.7, steps=1, optimizer=optax.sgd(1 / 1.4))
    np.testing.assert_allclose(found.images, np.stack([WEIGHTS[..., 2] / 1.4] * 2), atol=1e-6)


def test_limits():
    """For a linear function the optimum within the limits is the clipped optimum, and its residual is still 0."""
    found = fantasy_image(linear, GREY, 0, decay=1.0, steps=600, clip=True)
    np.testing.assert_allclose(found.images[0], np.clip(WEIGHTS[..., 0] / 2, 0, 1), atol=2e-4)
    assert (found.residuals < 2e-3 * found.gradient_norms).all()


def test_optimum_of_a_network(network):
    decay, targets = 0.02, jnp.array([0, 1])
    found = jax.jit(lambda x: fantasy_image(network, x, targets, decay=decay, steps=600))(GREY)
    of_score = jax.grad(lambda x: network(x)[jnp.arange(2), targets].sum())(found.images)
    residual = np.linalg.norm(np.reshape(of_score - 2 * decay * found.images, (2, -1)), axis=1)
    np.testing.assert_allclose(found.residuals, residual, rtol=0.05, atol=1e-6)
    assert (found.residuals < 0.01 * found.gradient_norms).all()
    assert (found.objectives > found.history[0]).all()
    np.testing.assert_allclose(found.scores, network(found.images)[jnp.arange(2), targets], rtol=1e-5)
    alone = fantasy_image(network, GREY[:1], 1, decay=decay, steps=600)
    np.testing.assert_allclose(found.images[1], alone.images[0], atol=1e-3)


def test_a_silent_rectifier_at_the_start():
    def silent(x):
        return jax.nn.relu(linear(x) - 5.0)

    found = fantasy_image(silent, jnp.zeros((1, *SHAPE)), 1, decay=0.5, steps=300)
    assert silent(jnp.zeros((1, *SHAPE)))[0, 1] == 0
    np.testing.assert_allclose(found.images[0], WEIGHTS[..., 1], atol=1e-3)  # w / (2 lambda)


def test_units_and_functions_as_targets(network):
    unit = fantasy_image(network, GREY, ("c1", (2, 3), 5), decay=1.0, steps=400)
    kernel, bias = np.asarray(network.c1.kernel[...])[..., 5], float(network.c1.bias[...][5])
    expected = np.zeros(SHAPE, np.float32)
    expected[1:4, 2:5] = kernel / 2
    np.testing.assert_allclose(unit.images[0], expected, atol=1e-3)
    np.testing.assert_allclose(unit.scores[0], np.square(kernel).sum() / 2 + bias, rtol=1e-3)
    both = fantasy_image(linear, GREY, lambda scores: scores[:, 0] + scores[:, 2], decay=1.0, steps=400)
    np.testing.assert_allclose(both.images[0], WEIGHTS[..., [0, 2]].sum(-1) / 2, atol=1e-3)


@pytest.mark.parametrize("shape", [(9,), (8, 7), (4, 6, 5)])
@pytest.mark.parametrize("fourier", [True, False])
@pytest.mark.parametrize("decorrelate", [True, False])
def test_coordinates_are_inverse_to_images(shape, fourier, decorrelate):
    images = jnp.asarray(np.random.default_rng(0).standard_normal((2, *shape, 3)), jnp.float32)
    space = _coordinates("test", images.shape[1:], fourier=fourier, decorrelate=decorrelate)
    np.testing.assert_allclose(space.image(space.point(images)), images, atol=1e-5)


def test_equal_coordinates_are_a_spectrum_of_one_over_frequency():
    space = _coordinates("test", (64, 64, 1), fourier=True, decorrelate=False)
    shape = space.point(jnp.zeros((200, 64, 64, 1))).shape
    noise = jnp.asarray(np.random.default_rng(0).standard_normal(shape))
    power = np.square(np.abs(np.fft.fft2(np.asarray(space.image(noise))[..., 0]))).mean(0)
    np.testing.assert_allclose(power[0, [4, 8, 16, 24]] / power[0, 2], (2 / np.array([4, 8, 16, 24])) ** 2, rtol=0.3)


def test_principal_colours():
    space = _coordinates("test", (50, 50, 3), fourier=False, decorrelate=True)
    colours = np.asarray(space.image(jax.random.normal(jax.random.key(0), (4, 50, 50, 3)))).reshape(-1, 3)
    covariance, published = np.cov(colours.T), COLOURS @ COLOURS.T
    np.testing.assert_allclose(covariance / covariance[1, 1], published / published[1, 1], atol=0.03)


def test_blur():
    """After the first of two steps the blur has half of the given width, as in SciPy; after the last there is none."""
    start = np.random.default_rng(0).random((1, 16, 16, 3)).astype(np.float32)
    still = optax.sgd(0.0)
    found = fantasy_image(lambda x: x.sum((1, 2)), start, 0, decay=0.0, steps=2, blur=1.6, optimizer=still)
    blurred = scipy.ndimage.gaussian_filter(start, (0, 0.8, 0.8, 0), mode="mirror", radius=(0, 6, 6, 0))
    np.testing.assert_allclose(found.images, blurred, atol=1e-5)


def test_transformations(network):
    options = {"decay": 0.1, "steps": 5, "jitter": 2, "rotation": 10.0, "scale": (0.9, 1.1)}
    first, same, other = (
        fantasy_image(network, GREY, 0, key=jax.random.key(seed), **options).images for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-4
    assert np.abs(first[0] - first[1]).max() > 1e-4, "each image has transformations of its own"


def test_jitter_spreads_what_is_asked_of_one_pixel():
    """The best image for one pixel under shifts of up to one pixel also has bright neighbours of that pixel."""
    found = fantasy_image(
        lambda x: x[:, 3, 3], jnp.zeros((1, 7, 7, 1)), 0, decay=0.5, steps=300, jitter=1, key=jax.random.key(0)
    )
    lit = np.asarray(found.images[0, ..., 0]) > 0.03
    assert lit[2:5, 2:5].all()
    assert lit.sum() == 9


def test_vmap(network):
    decays = jnp.array([0.1, 0.5])
    both = jax.vmap(lambda decay: fantasy_image(network, GREY, 0, decay=decay, steps=20).images)(decays)
    for decay, images in zip(decays, both, strict=True):
        np.testing.assert_allclose(images, fantasy_image(network, GREY, 0, decay=decay, steps=20).images, atol=1e-4)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("decay=-1 must be at least 0", {"decay": -1}),
        ("steps=0 must be at least 1", {"steps": 0}),
        ("value_range=.* must be two finite numbers", {"value_range": (1.0, 0.0)}),
        ("value_range=.* must be two finite numbers", {"value_range": (0.0, float("inf"))}),
        ("give key=", {"jitter": 2}),
        ("give key=", {"rotation": 5.0}),
        ("three colours", {"decorrelate": True, "x": jnp.ones((1, 6, 5, 1))}),
        ("one number for each of the 2 images", {"target": lambda scores: scores.sum()}),
        ("no gradient", {"x": np.zeros((1, *SHAPE), np.uint8)}),
        ("padding=9 must be a whole number from 0 to 4", {"jitter": 9, "key": jax.random.key(0)}),
        ("out of range", {"target": 4}),
    ],
)
def test_errors(message, options):
    given = {"x": GREY, "target": 0, "decay": 0.1, "steps": 2} | options
    with pytest.raises(UsageError, match=message) as error:
        fantasy_image(linear, given.pop("x"), given.pop("target"), **given)
    assert "\n" not in str(error.value)
