"""Canny's edges against loops over pixels; tests/parity compares them with scikit-image on photographs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from cnn_jax import filters
from cnn_jax.errors import UsageError


def loops(image, kernel, low, high, convention):
    """One channel, a pixel at a time; between pixels, the magnitude is on the line between two of them."""
    mode = "mirror"
    smooth = ndimage.correlate(image, kernel, mode=mode)
    if convention == "skimage":
        mode = "reflect"  # scipy's word for a border that is repeated
        covered = ndimage.correlate(np.ones_like(image), kernel, mode="constant")
        smooth = ndimage.correlate(image, kernel, mode="constant") / covered
    down, right = (ndimage.sobel(smooth, axis=axis, mode=mode) for axis in (0, 1))
    magnitude = np.pad(np.hypot(down, right), 1)
    height, width = image.shape
    weak = np.zeros(image.shape, bool)
    for i, j in np.ndindex(height, width):
        own = magnitude[i + 1, j + 1]
        border = i in (0, height - 1) or j in (0, width - 1)
        if own < low or own == 0 or (convention == "skimage" and border):
            continue
        step = np.array([down[i, j], right[i, j]]) / max(abs(down[i, j]), abs(right[i, j]))
        neighbours = []
        for sign in (1, -1):
            (row, column), weight = sign * step, min(abs(step))
            straight = magnitude[i + 1 + int(row), j + 1 + int(column)]  # cut: the longer component alone
            diagonal = magnitude[i + 1 + round_away(row), j + 1 + round_away(column)]
            neighbours.append(weight * diagonal + (1 - weight) * straight)
        weak[i, j] = own >= max(neighbours)
    parts, _ = ndimage.label(weak, np.ones((3, 3)))
    strong = set(parts[weak & (magnitude[1:-1, 1:-1] >= high)])
    return np.isin(parts, list(strong)) & weak


def round_away(number):
    return int(np.sign(number) * np.ceil(abs(number)))


@pytest.fixture(scope="module")
def images():
    """Blurred noise, which has edges of all directions."""
    noise = np.random.default_rng(0).normal(size=(2, 37, 21, 2))
    return ndimage.gaussian_filter(noise, (0, 1.5, 1.5, 0)).astype(np.float32)


@pytest.mark.parametrize("convention", ["skimage", "paper"])
def test_edges_are_those_of_loops(images, convention):
    edges = filters.canny(images, kernel=filters.canny_gaussian(), low=0.2, high=0.6, convention=convention)
    kernel = np.asarray(filters.canny_gaussian(), float)
    expected = np.zeros_like(edges)
    for image, channel in np.ndindex(2, 2):
        expected[image, ..., channel] = loops(images[image, ..., channel].astype(float), kernel, 0.2, 0.6, convention)
    assert 50 < expected.sum() < 0.3 * expected.size
    np.testing.assert_array_equal(edges, expected)


def test_sigma_is_that_of_the_gaussian_and_thresholds_may_be_traced(images):
    by_kernel = filters.canny(images, kernel=filters.gaussian(1.4, radius=6), low=0.2, high=0.6)
    traced = jax.jit(lambda x, low, high: filters.canny(x, sigma=1.4, low=low, high=high))
    np.testing.assert_array_equal(by_kernel, traced(images, 0.2, 0.6))


def test_weak_edges_stay_if_a_path_of_any_length_leads_to_a_strong_one():
    # The outline of one winding path, longer than the image is high, whose first end alone is light enough.
    path = np.zeros((70, 40, 1), np.float32)
    for row in range(4, 64, 12):
        path[row : row + 6, 4:36] = 0.06
    for row, column in ((4, 30), (16, 4), (28, 30), (40, 4)):
        path[row : row + 18, column : column + 6] = 0.06
    path += np.random.default_rng(1).normal(scale=1e-4, size=path.shape)  # so that no magnitudes are equal
    image = path.copy()
    image[4:10, 4:30, 0] += np.linspace(0.04, 0, 26)
    assert not filters.canny(path, low=0.03).any()
    kernel = np.asarray(filters.gaussian(1, radius=4), float)
    expected = loops(image[..., 0].astype(float), kernel, 0.03, 0.2, "skimage")
    np.testing.assert_array_equal(filters.canny(image, low=0.03)[..., 0], expected)
    assert expected[55:].any()


def test_a_step_between_two_pixels_is_an_edge_of_two_pixels_or_of_one():
    step = jnp.zeros((9, 12, 1)).at[:, 6:].set(8.0)
    kernel = jnp.ones((1, 1))  # so that equal magnitudes are not rounded differently
    assert set(np.nonzero(filters.canny(step, kernel=kernel)[..., 0])[1].tolist()) == {5, 6}
    edges = filters.canny(step, kernel=kernel, convention="paper")[..., 0]
    np.testing.assert_array_equal(edges.sum(axis=1), np.ones(9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convention": "opencv"}, "filters.canny: unknown convention='opencv'; known: 'paper', 'skimage'"),
        ({"sigma": 0}, "filters.canny: sigma=0 must be a number of pixels above 0"),
        ({"low": 0.5}, "filters.canny: low=0.5 must be at most high=0.2"),
        ({"kernel": jnp.ones(3)}, r"filters.canny: kernel of shape \(3,\) must be \(height, width\)"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        filters.canny(jnp.ones((8, 8, 1)), **options)


def test_images_of_integers_or_without_channels_are_named():
    with pytest.raises(UsageError, match=r"filters.canny: x has dtype uint8"):
        filters.canny(np.ones((8, 8, 1), np.uint8))
    with pytest.raises(UsageError, match=r"filters.canny: x of shape \(8, 8\) has 2 axes, but an image has 2"):
        filters.canny(jnp.ones((8, 8)))
