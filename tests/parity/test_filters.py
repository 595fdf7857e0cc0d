"""Canny's edges, histograms of oriented gradients and Gabor kernels against scikit-image, on photographs."""

import math

import jax
import numpy as np
import pytest
from skimage import feature
from skimage.filters import gabor_kernel
from sklearn.datasets import load_sample_images

from cnn_jax import filters


@pytest.fixture(scope="module")
def photographs():
    """Colour images of 8 bits, which float32 holds exactly."""
    return [image.astype(np.float32) for image in load_sample_images().images]


def grey(photograph):
    return (photograph @ np.array([0.2125, 0.7154, 0.0721], np.float32)) / 255


@pytest.mark.parametrize("sigma", [0.625, 1, 1.4, 3])  # 4 * 0.625 is 2.5, which scikit-image rounds up
@pytest.mark.parametrize(("low", "high"), [(0.1, 0.2), (0.05, 0.4), (0, 0.3)])
def test_edges_of_float64_are_equal(photographs, sigma, low, high):
    for photograph in photographs:
        image = grey(photograph).astype(np.float64)
        expected = feature.canny(image, sigma=sigma, low_threshold=low, high_threshold=high)
        with jax.enable_x64(True):
            edges = np.asarray(filters.canny(image[..., None], sigma=sigma, low=low, high=high))[..., 0]
        assert 0.005 < expected.mean() < 0.25
        np.testing.assert_array_equal(edges, expected)


@pytest.mark.parametrize("sigma", [1, 2])
def test_edges_of_float32_are_equal_but_for_what_rounding_decides(photographs, sigma):
    for photograph in photographs:
        image = grey(photograph)
        expected = feature.canny(image, sigma=sigma)
        edges = np.asarray(filters.canny(image[..., None], sigma=sigma))[..., 0]
        assert (edges != expected).mean() < 1e-5  # 3 of 273,280 pixels


@pytest.mark.parametrize(
    ("cell", "block", "orientations", "norm"),
    [
        ((8, 8), (2, 2), 9, "L2-Hys"),
        ((6, 10), (3, 1), 8, "L2"),
        ((7, 7), (2, 2), 6, "L1"),
        ((8, 8), (3, 3), 9, "L1-sqrt"),
    ],
)
@pytest.mark.parametrize("colour", [False, True])
def test_histograms_of_gradients_are_equal_to_rounding(photographs, cell, block, orientations, norm, colour):
    for photograph in photographs:
        image = photograph if colour else grey(photograph)[..., None]
        names = {"orientations": orientations, "pixels_per_cell": cell, "cells_per_block": block, "block_norm": norm}
        expected = feature.hog(image if colour else image[..., 0], **names, channel_axis=-1 if colour else None)
        np.testing.assert_allclose(np.ravel(filters.hog(image, **names)), expected, atol=1e-6)


@pytest.mark.parametrize("angle", [0, 30, 135])
@pytest.mark.parametrize("phase", [0, 90])
def test_gabor_kernels_are_equal(angle, phase):
    expected = gabor_kernel(
        1 / 6, theta=math.radians(90 - angle), sigma_x=3, sigma_y=5, n_stds=3, offset=math.radians(phase)
    ).real  # its angle is that of the wave, and its window is a rectangle
    kernel = np.asarray(filters.gabor(6, angle=angle, sigma=3, aspect=0.6, phase=phase))
    (top, rows), (left, columns) = ((max(b - s, 0) // 2, s) for b, s in zip(kernel.shape, expected.shape, strict=True))
    np.testing.assert_allclose(kernel[top : top + rows, left : left + columns], expected, atol=1e-7)
