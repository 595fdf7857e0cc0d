"""Gratings and the energy model of complex cells, against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import filters
from cnn_jax.errors import UsageError


@pytest.mark.parametrize("angle", [0, 30, 90, 135])
def test_a_grating_is_a_wave_across_its_stripes(angle):
    found = np.asarray(filters.grating((7, 10), 5, angle=angle, phase=40))
    for row, column in np.ndindex(7, 10):
        distance = (row - 3) * np.cos(np.radians(angle)) + (column - 4.5) * np.sin(np.radians(angle))
        assert abs(found[row, column] - np.cos(2 * np.pi * distance / 5 + np.radians(40))) < 1e-5


def test_a_complex_cell_tolerates_the_phase_where_a_simple_cell_does_not():
    phases = np.arange(0, 360, 15)
    stripes = jnp.stack([filters.grating((65, 65), 8, angle=60, phase=phase) for phase in phases.tolist()])[..., None]
    complex_cell = np.asarray(filters.energy(stripes, 8, angle=60))[:, 32, 32, 0]
    simple_cell = np.asarray(filters.apply(stripes, filters.gabor(8, angle=60)))[:, 32, 32, 0]
    # The Fourier transform of the Gaussian at the frequency of the wave is 1, half of which is in phase.
    np.testing.assert_allclose(complex_cell, 0.5, rtol=0.02)
    np.testing.assert_allclose(simple_cell, 0.5 * np.cos(np.radians(phases)), atol=0.01)


def test_mistakes_are_named():
    for arguments, message in (
        (((8, 8), 0), "wavelength=0 must be a number above 0"),
        (((8,), 4), "must be a height and a width"),
        (((8, 0), 4), "must be a height and a width"),
    ):
        with pytest.raises(UsageError, match=message):
            filters.grating(*arguments)
