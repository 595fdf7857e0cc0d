"""Colours: between sRGB and CIE L*a*b*, whose first number is lightness alone."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray
from cnn_jax.ops.labels import read_outputs

# sRGB's primaries and the white D65 (2 degrees) with the digits that scikit-image has, to be equal to it.
_XYZ_OF_RGB = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_RGB_OF_XYZ = np.linalg.inv(_XYZ_OF_RGB)
_WHITE = np.array([0.95047, 1.0, 1.08883])
_KAPPA, _OFFSET, _EDGE = 7.787, 16 / 116, 0.008856  # CIE's cube root is a line below the edge


def rgb_to_lab(x: Shaped[AnyArray, "*batch_and_space channels"]) -> Shaped[Array, "*batch_and_space channels"]:
    """Converts colours from sRGB to CIE L*a*b* (white D65, observer of 2 degrees), as scikit-image does.

    Args:
      x: ``(..., 3)``, red, green and blue from 0 to 1; half precision is computed in float32.

    Returns:
      ``(..., 3)``: lightness from 0 to 100; a, from green to red; b, from blue to yellow, both about -110 to 110, and 0
      for grey.

    Raises:
      UsageError: There are not three channels.

    >>> rgb_to_lab(jnp.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])).round().tolist()[1]
    [53.0, 80.0, 67.0]
    """
    x = _colors("rgb_to_lab", x)
    bent = ((jnp.maximum(x, 0.04045) + 0.055) / 1.055) ** 2.4  # the maximum keeps the gradient of what is unused finite
    linear = jnp.where(x > 0.04045, bent, x / 12.92)
    xyz = _times(linear, _XYZ_OF_RGB) / _of_channels(_WHITE, x)
    f = jnp.where(xyz > _EDGE, jnp.cbrt(jnp.maximum(xyz, _EDGE)), _KAPPA * xyz + _OFFSET)
    fx, fy, fz = f[..., 0], f[..., 1], f[..., 2]
    return jnp.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], axis=-1)


def lab_to_rgb(x: Shaped[AnyArray, "*batch_and_space channels"]) -> Shaped[Array, "*batch_and_space channels"]:
    """Converts colours from CIE L*a*b* to sRGB, the inverse of :func:`rgb_to_lab`.

    Args:
      x: ``(..., 3)``: L from 0 to 100, a and b; half precision is computed in float32.

    Returns:
      ``(..., 3)``: red, green and blue. Colours outside sRGB are clipped to 0 and 1.

    Raises:
      UsageError: There are not three channels.

    >>> lab_to_rgb(rgb_to_lab(jnp.array([0.5, 0.25, 1.0]))).round(3).tolist()
    [0.5, 0.25, 1.0]
    """
    x = _colors("lab_to_rgb", x)
    fy = (x[..., 0] + 16) / 116
    f = jnp.stack([fy + x[..., 1] / 500, fy, jnp.maximum(fy - x[..., 2] / 200, 0)], axis=-1)
    xyz = jnp.where(f > 0.2068966, f**3, (f - _OFFSET) / _KAPPA) * _of_channels(_WHITE, x)
    linear = _times(xyz, _RGB_OF_XYZ)
    bent = 1.055 * jnp.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return jnp.where(linear > 0.0031308, bent, 12.92 * linear).clip(0, 1)


def _colors(op: str, x: AnyArray) -> Array:
    x = read_outputs(op, "x", x)
    if x.shape[-1] != 3:
        raise UsageError(f"{op}: x of shape {x.shape} has {x.shape[-1]} channels; colours have 3, and they are last")
    return x


def _times(colors: Array, matrix: np.ndarray) -> Array:
    """Every colour by a matrix, in the full precision of the colours on every device."""
    first, second, third = (_of_channels(column, colors) for column in matrix.T)
    return colors[..., :1] * first + colors[..., 1:2] * second + colors[..., 2:] * third


def _of_channels(values: np.ndarray, colors: Array) -> Array:
    """One number for each channel, of the dtype of the colours and with as many axes."""
    return jnp.asarray(values, colors.dtype).reshape(*[1] * (colors.ndim - 1), -1)
