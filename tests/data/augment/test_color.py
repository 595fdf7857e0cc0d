"""Augmentations of colour against closed forms, NumPy's covariance and Pillow's ImageEnhance."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import stats

from cnn_jax.data import augment
from cnn_jax.errors import UsageError

KEY = jax.random.key(5)
RANDOM = np.random.default_rng(0)
# Medium colours, so that nothing is clipped, with correlated channels, as in photographs.
IMAGES = (0.45 + 0.05 * RANDOM.random((300, 6, 5, 1)) + 0.1 * RANDOM.random((300, 6, 5, 3))).astype(np.float32)


def test_covariance_is_numpys():
    eight_bits = RANDOM.integers(0, 256, (600, 4, 4, 3), np.uint8)
    expected = np.cov(eight_bits.reshape(-1, 3).T / 255, bias=True)
    np.testing.assert_allclose(augment.color_covariance(eight_bits), expected, rtol=1e-10)
    np.testing.assert_allclose(
        augment.color_covariance(IMAGES), np.cov(IMAGES.reshape(-1, 3).T.astype(float), bias=True), rtol=1e-6
    )


def test_color_pca_shifts_along_the_eigenvectors_by_their_eigenvalues():
    covariance = np.array([[0.3, 0.2, 0.1], [0.2, 0.4, 0.15], [0.1, 0.15, 0.2]])
    images = np.full((4000, 1, 2, 3), 0.5, np.float32)
    shifted = np.asarray(jax.jit(partial(augment.color_pca, covariance=covariance.tolist(), std=0.2))(KEY, images))
    shifts = shifted[:, 0, 0] - 0.5
    np.testing.assert_array_equal(shifted[:, 0, 0], shifted[:, 0, 1])
    # sum_i p_i lambda_i alpha_i has the covariance std^2 C^2, whatever the eigenvectors' signs.
    np.testing.assert_allclose(np.cov(shifts.T), 0.04 * covariance @ covariance, atol=4e-4)
    for vector, value in zip(np.linalg.svd(covariance)[0].T, np.linalg.svd(covariance)[1], strict=True):
        assert stats.kstest(shifts @ vector, stats.norm(0, 0.2 * value).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("augmentation", "enhancer", "factor_of"),
    [
        (augment.brightness, ImageEnhance.Brightness, lambda x: x.mean()),
        (augment.contrast, ImageEnhance.Contrast, lambda x: (x @ np.array(augment.color.LUMA)).std()),
        (augment.saturation, ImageEnhance.Color, lambda x: (x[..., 0] - x[..., 1]).std()),
    ],
)
def test_factors_are_uniform_and_images_are_those_of_pillow(augmentation, enhancer, factor_of):
    changed = np.asarray(jax.jit(partial(augmentation, strength=0.5))(KEY, IMAGES)).astype(float)
    factors = [factor_of(after) / factor_of(before) for after, before in zip(changed, IMAGES, strict=True)]
    assert stats.kstest(factors, stats.uniform(0.5, 1.0).cdf).pvalue > 1e-3
    for before, after, factor in zip(IMAGES[:20], changed, factors, strict=False):
        image = Image.fromarray(np.rint(before * 255).astype(np.uint8))
        expected = np.asarray(enhancer(image).enhance(factor)) / 255
        np.testing.assert_allclose(after, expected, atol=2.5 / 255)  # Pillow rounds three times


@pytest.mark.parametrize("augmentation", [augment.brightness, augment.contrast, augment.saturation])
def test_results_stay_within_0_and_1(augmentation):
    images = RANDOM.random((50, 4, 4, 3)).astype(np.float32).round()
    changed = augmentation(KEY, jnp.asarray(images), strength=1)
    assert changed.min() >= 0
    assert changed.max() <= 1


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (
            lambda x: augment.color_pca(KEY, x, covariance=[[1.0]]),
            "covariance has shape (1, 1); give a symmetric one of 2x2",
        ),
        (lambda x: augment.contrast(KEY, x), "images have 2 channels; give 1 (grey) or 3 (colour)"),
        (lambda x: augment.brightness(KEY, x, strength=2), "strength=2 must be a number from 0 to 1"),
    ],
)
def test_errors(call, complaint):
    with pytest.raises(UsageError) as caught:
        call(jnp.zeros((2, 8, 8, 2)))
    assert complaint in str(caught.value)
