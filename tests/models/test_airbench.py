"""airbench against its published counts, and its whitening kernel against the definition of whitening."""

import math

import jax
import numpy as np
import pytest
from flax import nnx

from cnn_jax import geometry, ops
from cnn_jax.errors import UsageError
from cnn_jax.models.airbench import dirac, gelu, whitening_kernel
from tests.models.traced import abstract, table, total

WHITENING = 2 * 2 * 3 * 24


def test_counts_are_the_published_ones() -> None:
    """The frozen kernel of the first layer is included in the published parameters, but is not trained."""
    assert geometry.parameter_count(abstract("airbench")) + WHITENING == 1_971_640
    assert abstract("airbench").whiten.kernel.size == WHITENING
    maps = {31: [WHITENING, 9 * 24 * 64], 15: [9 * 64 * 64, 9 * 64 * 256], 7: 2 * [9 * 256 * 256], 3: [9 * 256 * 256]}
    by_hand = sum(size**2 * sum(kernels) for size, kernels in maps.items()) + 256 * 10
    assert total("airbench").multiply_adds == by_hand == 118_147_360


def test_maps_shrink_to_one_position() -> None:
    rows = table("airbench")
    layers = ["whiten", "block1/pool", "block2/pool", "block3/pool", "maxpool"]
    assert [rows[layer].output_shape[0] for layer in layers] == [31, 15, 7, 3, 1]
    assert rows["block1/norm1"].parameters == 64  # a bias and no scale


def test_whitened_patches_are_uncorrelated_with_variance_one() -> None:
    generator = np.random.default_rng(0)
    smooth = generator.normal(size=(200, 9, 9, 3)).cumsum(axis=1).cumsum(axis=2) / 5
    images = (smooth @ generator.normal(size=(3, 3))).astype(np.float32)
    kernel = whitening_kernel(images, epsilon=0.0)
    assert kernel.shape == (2, 2, 3, 24)
    responses = np.asarray(ops.conv(images, kernel, padding="VALID")).reshape(-1, 24)
    np.testing.assert_allclose(responses[:, :12], -responses[:, 12:], atol=1e-3)
    moments = responses[:, :12].T @ responses[:, :12] / len(responses)
    np.testing.assert_allclose(moments, np.eye(12), atol=5e-2)


def test_epsilon_keeps_noise_small() -> None:
    images = np.ones((10, 8, 8, 1), np.float32) * np.random.default_rng(0).normal(size=(10, 1, 1, 1)).astype(np.float32)
    kernel = np.asarray(whitening_kernel(images, epsilon=1e-2))
    assert np.abs(kernel).max() <= 1 / math.sqrt(1e-2) + 1e-3


def test_first_filters_pass_on_one_channel_each() -> None:
    kernel = dirac(jax.random.key(0), (3, 3, 4, 6))
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype(np.float32)
    y = np.asarray(ops.conv(x, kernel, padding="SAME"))
    np.testing.assert_allclose(y[..., :4], x, atol=1e-6)
    random = np.asarray(kernel[..., 4:])
    assert np.abs(random).max() <= 1 / math.sqrt(9 * 4)
    assert random.std() > 0


def test_gelu_is_the_exact_one() -> None:
    x = np.linspace(-4, 4, 41)
    exact = [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in x]
    np.testing.assert_allclose(gelu(x.astype(np.float32)), exact, atol=1e-6)


def test_the_first_kernel_is_not_among_what_is_trained() -> None:
    trained = nnx.state(abstract("airbench"), nnx.Param)
    assert list(trained["whiten"]) == ["bias"]


def test_images_without_room_for_a_patch_are_named() -> None:
    with pytest.raises(UsageError, match=r"images of shape \(5, 1, 8, 3\) must be"):
        whitening_kernel(np.ones((5, 1, 8, 3), np.float32))
