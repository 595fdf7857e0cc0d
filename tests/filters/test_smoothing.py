"""Smoothing kernels against published numbers and closed forms."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import filters
from cnn_jax.errors import UsageError


def test_box_is_the_mean_of_its_window():
    np.testing.assert_allclose(filters.box(3), np.full((3, 3), 1 / 9), rtol=1e-6)
    assert filters.box(5, rank=3).shape == (5, 5, 5)


def test_binomial_is_pascals_triangle():
    np.testing.assert_array_equal(16 * filters.binomial(5, rank=1), [1, 4, 6, 4, 1])
    np.testing.assert_array_equal(4 * filters.binomial(2), [[1, 1], [1, 1]])
    np.testing.assert_array_equal(256 * filters.binomial(5)[0], [1, 4, 6, 4, 1])


@pytest.mark.parametrize("sigma", [0.8, 1, 2.5])
def test_gaussian_has_the_variance_and_ratios_of_a_gaussian(sigma):
    kernel = np.asarray(filters.gaussian(sigma, rank=1, dtype="float32"), float)
    radius = len(kernel) // 2
    positions = np.arange(-radius, radius + 1)
    assert radius == round(4 * sigma)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    assert (kernel * positions**2).sum() == pytest.approx(sigma**2, rel=0.01)
    assert kernel[radius] / kernel[radius + 1] == pytest.approx(math.exp(1 / (2 * sigma**2)), rel=1e-5)


def test_gaussian_of_two_dimensions_is_a_product():
    row = filters.gaussian(1.5, radius=2, rank=1)
    np.testing.assert_allclose(filters.gaussian(1.5, radius=2), row[:, None] * row[None, :], rtol=1e-5)


def test_canny_gaussian_is_near_the_gaussian_of_sigma_1_4():
    assert float(filters.canny_gaussian().sum()) == pytest.approx(1, abs=1e-6)
    # The entries are integers over 159, so each is off by up to half a 159th.
    np.testing.assert_allclose(filters.canny_gaussian(), filters.gaussian(1.4, radius=2), atol=0.5 / 159)


def test_identity_changes_nothing():
    np.testing.assert_array_equal(filters.identity(rank=2), [[0, 0, 0], [0, 1, 0], [0, 0, 0]])


def test_rules_of_integration_give_the_means_of_polynomials():
    # The mean of x**3 + 2 x over [1, 2] by the trapezoid rule, and over [1, 3], where it is (20 + 8) / 2.
    def values(x):
        return x**3 + 2 * x

    assert float(filters.trapezoid(rank=1) @ values(np.array([1.0, 2.0]))) == pytest.approx((3 + 12) / 2)
    assert float(filters.simpson(rank=1) @ values(np.array([1.0, 2.0, 3.0]))) == pytest.approx(14)
    np.testing.assert_allclose(filters.simpson(), np.outer([1, 4, 1], [1, 4, 1]) / 36, rtol=1e-6)
    assert filters.trapezoid(rank=3).shape == (2, 2, 2)


def test_sharpen_keeps_constants_and_raises_peaks():
    np.testing.assert_array_equal(filters.sharpen(rank=1), [-1, 3, -1])
    assert float(filters.sharpen(rank=3).sum()) == 1
    assert float(filters.sharpen(rank=3)[1, 1, 1]) == 7


def test_dtype_is_the_one_asked_for():
    assert filters.gaussian(1).dtype == jnp.float32
    assert filters.canny_gaussian(dtype="bfloat16").dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: filters.box(0), "filters.box: size=0 must be at least 1"),
        (lambda: filters.box(3, rank=0), "filters.box: rank=0 must be at least 1"),
        (lambda: filters.binomial(-1), "filters.binomial: size=-1 must be at least 1"),
        (lambda: filters.gaussian(0), "filters.gaussian: sigma=0 must be a number of pixels above 0"),
        (lambda: filters.gaussian(math.inf), "filters.gaussian: sigma=inf must be a number of pixels above 0"),
        (lambda: filters.gaussian(1, radius=-1), "filters.gaussian: radius=-1 must be at least 0"),
        (lambda: filters.identity(rank=0), "filters.identity: rank=0 must be at least 1"),
        (lambda: filters.simpson(rank=0), "filters.simpson: rank=0 must be at least 1"),
        (lambda: filters.trapezoid(rank=-1), "filters.trapezoid: rank=-1 must be at least 1"),
        (lambda: filters.sharpen(rank=0), "filters.sharpen: rank=0 must be at least 1"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        call()
