"""Gratings, the stimulus that cells of the visual cortex are measured with, and the energy model of a complex cell."""

import math
from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.filters.apply import apply
from cnn_jax.filters.edges import gabor
from cnn_jax.ops.arguments import AnyArray, Number
from cnn_jax.ops.wide import in_float32


def grating(
    size: Sequence[int], wavelength: float | int, *, angle: Number = 0, phase: Number = 0
) -> Float[Array, "h w"]:
    """A cosine wave over an image, with values from -1 to 1.

    Args:
      size: The height and width in pixels.
      wavelength: The width of a light and a dark stripe together in pixels, above 0.
      angle: The direction of the stripes in degrees, counter-clockwise from the horizontal, as in :func:`gabor`; it may
        be a traced array.
      phase: The phase of the wave in the centre in degrees: at 0 it has a light stripe there; may be traced.

    Returns:
      Shape (h, w), float32.

    Raises:
      UsageError: ``wavelength`` is not above 0, or ``size`` is not two positive integers.

    >>> grating((4, 1), 4)[:, 0].round(2)  # the centre lies between two pixels
    Array([-0.71,  0.71,  0.71, -0.71], dtype=float32)
    """
    op = "filters.grating"
    if not (wavelength > 0 and math.isfinite(wavelength)):
        raise UsageError(f"{op}: wavelength={wavelength!r} must be a number above 0")
    if len(size) != 2 or not all(isinstance(side, int | np.integer) and side > 0 for side in size):
        raise UsageError(f"{op}: size={tuple(size)!r} must be a height and a width in pixels")
    down, right = (
        jnp.asarray(places - (side - 1) / 2, jnp.float32) for places, side in zip(np.indices(size), size, strict=True)
    )
    turn = jnp.radians(angle)
    distance = down * jnp.cos(turn) + right * jnp.sin(turn)
    return jnp.cos(2 * math.pi * distance / wavelength + jnp.radians(phase))


def energy(
    x: Shaped[AnyArray, "*batch h w channels"],
    wavelength: float | int,
    *,
    angle: float | int = 0,
    sigma: float | int | None = None,
    aspect: float | int = 0.5,
    padding: str = "SAME",
) -> Shaped[Array, "*batch h2 w2 channels"]:
    """The energy model of a complex cell: the root of the summed squares of an even and an odd simple cell.

    The simple cells are two Gabor filters that differ in phase by a quarter of a wave. The response to a grating hardly
    depends on its phase, whereas that of each simple cell goes through zero.

    Args:
      x: ``(*batch, height, width, C)``.
      wavelength: This, ``angle``, ``sigma`` and ``aspect`` are those of :func:`gabor`.
      angle: The direction of the stripes in degrees.
      sigma: The standard deviation across the stripes in pixels.
      aspect: The standard deviation across the stripes divided by that along them.
      padding: As in :func:`apply`.

    Returns:
      Responses of at least 0, of each channel.

    Raises:
      UsageError: The arguments are not those of a Gabor filter.

    References:
      Hubel and Wiesel, Receptive fields and functional architecture of monkey striate cortex, 1968; Adelson and Bergen,
      Spatiotemporal energy models for the perception of motion, 1985.

    >>> stripes = grating((33, 33), 6, angle=30)[..., None]
    >>> along, across = (energy(stripes, 6, angle=angle)[16, 16, 0] for angle in (30, 120))
    >>> bool(along > 20 * across)
    True
    """

    def response(x: Array) -> Array:
        simple = partial(gabor, wavelength, angle=angle, sigma=sigma, aspect=aspect, dtype=x.dtype)
        even, odd = (apply(x, simple(phase=phase), padding=padding) for phase in (0, 90))
        return jnp.hypot(even, odd)

    return in_float32(response, jnp.asarray(x))
