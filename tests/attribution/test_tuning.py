"""Tuning curves against closed forms: the transform of a Gabor filter, a rectified wave, and the energy model."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import attribution, filters
from cnn_jax.errors import UsageError


def simple_cell(images):
    kernel = filters.gabor(8, angle=40, sigma=4, aspect=0.5, radius=24)
    return (images[..., 0] * kernel).sum((1, 2))[:, None]


def test_the_curve_of_a_gabor_filter_is_the_transform_of_its_gaussian():
    found = attribution.tuning_curves(simple_cell, (49, 49, 1), wavelength=8, angles=18)
    np.testing.assert_array_equal(found.angles, np.arange(18) * 10)
    assert found.preferred[0] == 40
    turns = np.radians(found.angles - 40)
    # The two frequencies of the filter, seen from that of the grating, under the Gaussian's transform.
    expected = sum(
        0.5 * np.exp(-((2 * np.pi / 8) ** 2) * (4**2 * (np.cos(turns) - sign) ** 2 + 8**2 * np.sin(turns) ** 2) / 2)
        for sign in (1, -1)
    )
    np.testing.assert_allclose(found.curves[:, 0], expected, atol=2e-3)


def test_modulation_tells_simple_from_complex_cells():
    def cells(images):
        kernels = [filters.gabor(8, angle=40, sigma=4, radius=24, phase=phase) for phase in (0, 90)]
        even, odd = ((images[..., 0] * kernel).sum((1, 2)) for kernel in kernels)
        return jnp.stack([even, jnp.hypot(even, odd), jnp.ones_like(even)], axis=1)

    found = attribution.tuning_curves(cells, (49, 49, 1), wavelength=8, angles=18, phases=64)
    # The first harmonic of a half-wave is 1/2 and its mean 1/pi.
    np.testing.assert_allclose(found.modulation, [np.pi / 2, 0, 0], atol=0.01)
    assert found.selectivity[0] > 0.9
    np.testing.assert_allclose(found.selectivity[2], 0, atol=1e-6)


def test_mistakes_are_named():
    with pytest.raises(UsageError, match=r"must be \(height, width, channels\)"):
        attribution.tuning_curves(simple_cell, (49, 49), wavelength=8)
    with pytest.raises(UsageError, match=r"must return responses of shape \(16, units\)"):
        attribution.tuning_curves(lambda x: x, (4, 4, 1), wavelength=8)
