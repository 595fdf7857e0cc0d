"""Filtering every channel, against a NumPy loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import filters
from cnn_jax.errors import UsageError


def loop(image, kernel):
    """Correlation of a mirrored image with an odd square kernel, one product at a time."""
    radius = len(kernel) // 2
    padded = np.pad(image, ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
    out = np.zeros_like(image)
    for i, j, channel in np.ndindex(*image.shape):
        out[i, j, channel] = (padded[i : i + len(kernel), j : j + len(kernel), channel] * kernel).sum()
    return out


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(size=(6, 7, 3)).astype("float32")


def test_every_channel_is_filtered_by_itself_and_the_size_is_kept(image):
    kernel = filters.sobel(axis=0)
    expected = loop(image, np.asarray(kernel))
    np.testing.assert_allclose(filters.apply(jnp.array(image), kernel), expected, atol=1e-5)
    np.testing.assert_allclose(filters.apply(jnp.array(image)[None], kernel)[0], expected, atol=1e-5)


def test_flipped_derivative_has_the_other_sign(image):
    kernel = filters.prewitt(axis=1)
    flipped = filters.apply(jnp.array(image), kernel, flip_kernel=True)
    np.testing.assert_allclose(flipped, -loop(image, np.asarray(kernel)), atol=1e-5)


def test_works_under_jit_vmap_and_grad(image):
    kernel = filters.gaussian(1, radius=1)
    images = jnp.array([image, 2 * image])
    blurred = jax.jit(jax.vmap(filters.apply, in_axes=(0, None)))(images, kernel)
    np.testing.assert_allclose(blurred[1], 2 * loop(image, np.asarray(kernel)), atol=1e-5)
    # Each pixel of a periodic image is read once by every entry of a kernel that adds to one.
    gradient = jax.grad(lambda x: filters.apply(x, kernel, boundary="periodic").sum())(images[0])
    np.testing.assert_allclose(gradient, np.ones_like(image), atol=1e-5)


def test_mistakes_are_named():
    with pytest.raises(UsageError, match=r"^filters.apply: kernel is a number"):
        filters.apply(jnp.ones((3, 3, 1)), jnp.array(2.0))
    with pytest.raises(UsageError, match="unknown boundary='reflect'"):
        filters.apply(jnp.ones((3, 3, 1)), filters.box(3), boundary="reflect")
