"""Colours, PSNR and SSIM against scikit-image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import color, metrics
from sklearn.datasets import load_sample_images

from cnn_jax import ops

WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


@pytest.fixture(scope="module")
def photograph():
    return load_sample_images().images[0][:200:2, :240:2] / 255


def cube():
    """Colours of the whole cube, black, white and the edge of the gamma curve among them."""
    values = np.concatenate([np.linspace(0, 1, 14), [0.04045, 0.0404, 0.0031308]])
    return np.stack(np.meshgrid(values, values, values), axis=-1)


def test_lab_is_equal_in_both_directions(photograph):
    with jax.enable_x64(True):
        for colours in (cube(), photograph):
            lab = color.rgb2lab(colours)
            np.testing.assert_allclose(jax.jit(ops.rgb_to_lab)(colours), lab, atol=1e-10)
            np.testing.assert_allclose(jax.jit(ops.lab_to_rgb)(lab), color.lab2rgb(lab), atol=1e-10)
        outside = np.array([[50.0, 120.0, -120.0], [5.0, 0.0, 100.0], [90.0, -128.0, 0.0]])
        with pytest.warns(UserWarning, match="negative Z"):
            expected = color.lab2rgb(outside)
        np.testing.assert_allclose(ops.lab_to_rgb(jnp.asarray(outside)), expected, atol=1e-10)
    in_float32 = ops.lab_to_rgb(ops.rgb_to_lab(jnp.asarray(photograph, jnp.float32)))
    np.testing.assert_allclose(in_float32, photograph, atol=1e-5)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, WANG),
        ({"sample_covariance": True}, {"gaussian_weights": True}),
        ({"window": "uniform", "sample_covariance": True}, {}),
        ({"window": "uniform"}, {"use_sample_covariance": False}),
        ({"data_range": 255.0}, WANG),
    ],
)
def test_ssim_and_psnr_are_equal(photograph, ours, theirs):
    generator, scale = np.random.default_rng(0), ours.get("data_range", 1.0)
    noisy = (photograph + generator.normal(0, 0.1, photograph.shape)).clip(0, 1)
    volume = generator.random((2, 12, 11, 13, 1))
    for x, y in ((noisy, photograph), volume):
        x, y = scale * x, scale * y
        expected = metrics.structural_similarity(x, y, data_range=scale, channel_axis=-1, **theirs)
        with jax.enable_x64(True):
            found = jax.jit(functools.partial(ops.ssim, **ours))(x[None], y[None])
        assert float(found[0]) == pytest.approx(expected, abs=1e-12)
    x, y = (scale * array[None].astype(np.float32) for array in (noisy, photograph))
    expected = metrics.structural_similarity(x[0], y[0], data_range=scale, channel_axis=-1, **theirs)
    assert float(jax.jit(functools.partial(ops.ssim, **ours))(x, y)[0]) == pytest.approx(expected, abs=1e-4)
    noise = metrics.peak_signal_noise_ratio(y[0], x[0], data_range=scale)
    assert float(ops.psnr(x, y, data_range=scale)[0]) == pytest.approx(noise, abs=1e-4)
