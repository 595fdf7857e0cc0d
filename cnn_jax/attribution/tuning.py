"""What units are tuned to: their responses to gratings of every direction and phase, as neurons are measured."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cnn_jax.attribution.target import Function
from cnn_jax.errors import UsageError
from cnn_jax.filters.gratings import grating
from cnn_jax.ops.arguments import integer


class TuningCurves(NamedTuple):
    """Responses of units to gratings.

    Attributes:
      angles: The directions of the stripes in degrees, from 0 to below 180, (A,).
      phases: The phases in degrees, from 0 to below 360, (P,).
      responses: The responses, (A, P, units).
    """

    angles: Float[Array, " angles"]
    phases: Float[Array, " phases"]
    responses: Float[Array, "angles phases units"]

    @property
    def curves(self) -> Float[Array, "angles units"]:
        """The largest response over the phases, for each direction; negative ones count as 0, as firing rates do."""
        return jax.nn.relu(self.responses).max(axis=1)

    @property
    def preferred(self) -> Float[Array, " units"]:
        """The direction in degrees that each unit responds to most."""
        return self.angles[self.curves.argmax(axis=0)]

    @property
    def selectivity(self) -> Float[Array, " units"]:
        """One minus the circular variance of a curve: 0 for a unit that responds to all directions alike, at most 1.

        Swindale, Orientation tuning curves: empirical description and estimation of parameters, 1998.
        """
        turns = jnp.exp(2j * jnp.radians(self.angles))[:, None]
        return jnp.abs((turns * self.curves).sum(axis=0)) / jnp.maximum(self.curves.sum(axis=0), 1e-12)

    @property
    def modulation(self) -> Float[Array, " units"]:
        """The first harmonic over the mean of the responses to the phases of the preferred direction.

        Above 1 for simple cells (pi / 2 for a linear filter with a rectifier), below 1 for complex ones (0 for the
        energy model): Skottun et al., Classifying simple and complex cells on the basis of response modulation, 1991.
        """
        best = self.curves.argmax(axis=0)
        over_phases = jax.nn.relu(self.responses[best, :, jnp.arange(self.responses.shape[-1])])
        waves = jnp.exp(1j * jnp.radians(self.phases))
        harmonic = 2 * jnp.abs((over_phases * waves).mean(axis=1))
        return harmonic / jnp.maximum(over_phases.mean(axis=1), 1e-12)


def tuning_curves(
    function: Function,
    input_shape: Sequence[int],
    *,
    wavelength: float | int,
    angles: int = 36,
    phases: int = 16,
    mean: float | int = 0.0,
    contrast: float | int = 1.0,
) -> TuningCurves:
    """Measures the responses of units to gratings of every direction and phase.

    Args:
      function: From a batch of images, (N, H, W, C), to the responses of units, (N, units): such as the middle of a
        map, or a layer of a network.
      input_shape: The shape (H, W, C) of one image; all channels get the same grating.
      wavelength: Of the gratings in pixels, above 0.
      angles: The number of directions, in equal distances.
      phases: The number of phases, in equal distances, at least 3.
      mean: The value of grey.
      contrast: The amplitude of the wave.

    Returns:
      The responses, with the preferred direction, the selectivity and the modulation of each unit.

    Raises:
      UsageError: The shape is not that of images, or the function does not return one row of units for each image.

    References:
      Lecture 000, "Hubel and Wiesel"; lecture 002, "V1 sensitive to edge orientation".

    >>> from cnn_jax import filters
    >>> kernel = filters.gabor(6, angle=45, radius=8)[None, ..., None]
    >>> found = tuning_curves(lambda x: (x * kernel).sum((1, 2)), (17, 17, 1), wavelength=6)
    >>> found.preferred, found.modulation.round(1)  # a simple cell
    (Array([45.], dtype=float32), Array([1.6], dtype=float32))
    """
    op = "tuning_curves"
    angles, phases = integer(op, "angles", angles, least=2), integer(op, "phases", phases, least=3)
    if len(input_shape) != 3:
        raise UsageError(f"{op}: input_shape={tuple(input_shape)} must be (height, width, channels)")
    directions = np.arange(angles) * 180 / angles
    starts = np.arange(phases) * 360 / phases
    *size, channels = input_shape

    def of_angle(angle: Array) -> Array:
        waves = jax.vmap(lambda phase: grating(size, wavelength, angle=angle, phase=phase))(jnp.asarray(starts))
        images = mean + contrast * jnp.broadcast_to(waves[..., None], (phases, *size, channels))
        responses = function(images)
        if not isinstance(responses, Array) or responses.ndim != 2 or len(responses) != phases:
            shape = getattr(responses, "shape", type(responses).__name__)
            raise UsageError(
                f"{op}: function must return responses of shape ({phases}, units) for {phases} images, not {shape}"
            )
        return responses

    responses = jax.lax.map(of_angle, jnp.asarray(directions, jnp.float32))
    return TuningCurves(jnp.asarray(directions, jnp.float32), jnp.asarray(starts, jnp.float32), responses)
