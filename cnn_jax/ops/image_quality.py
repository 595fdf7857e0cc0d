"""How near an image is to the true one: peak signal-to-noise ratio and structural similarity."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, Number, as_array, by, check_number, check_option, is_traced
from cnn_jax.ops.labels import read_outputs

WINDOWS = ("gaussian", "uniform")
_SIGMA, _RADIUS = 1.5, 5  # of the Gaussian: 11 pixels, as in Wang et al. 2004
_UNIFORM = 7  # pixels, as in scikit-image
_MOST_DECIBELS = 100.0


def psnr(
    outputs: Shaped[AnyArray, "..."], targets: Shaped[AnyArray, "..."], *, data_range: Number = 1.0
) -> Shaped[Array, " batch"]:
    """The peak signal-to-noise ratio of each image: ``10 log10(data_range² / mean squared error)``, in decibels.

    Args:
      outputs: ``(batch, *space, channels)``; half precision is computed in float32.
      targets: The true images, of the same shape.
      data_range: The difference between white and black.

    Returns:
      ``(batch,)``. An image without any error has 100 dB instead of infinitely many, so that means are numbers.

    Raises:
      UsageError: The shapes differ, or ``data_range`` is not positive.

    >>> psnr(jnp.zeros((1, 4, 4, 1)), jnp.full((1, 4, 4, 1), 0.1)).round(3)
    Array([20.], dtype=float32)
    """
    x, y = _pair("psnr", outputs, targets, data_range)
    error = jnp.square(x - y).mean(axis=tuple(range(1, x.ndim))) / data_range**2
    return -10 * jnp.log10(jnp.maximum(error, 10 ** (-_MOST_DECIBELS / 10)))


def ssim(
    outputs: Shaped[AnyArray, "..."],
    targets: Shaped[AnyArray, "..."],
    *,
    data_range: Number = 1.0,
    window: str = "gaussian",
    sample_covariance: bool = False,
) -> Shaped[Array, " batch"]:
    """The mean structural similarity of each image, for any number of spatial axes.

    The similarity is computed for each channel and for each position at which the window lies within the image, and
    averaged. Means, variances and the covariance are those of a window.

    Args:
      outputs: ``(batch, *space, channels)``; half precision is computed in float32.
      targets: The true images, of the same shape.
      data_range: The difference between white and black.
      window: ``'gaussian'``: 11 pixels along each axis, weighted by a Gaussian of 1.5 pixels, as Wang et al. 2004 have
        it; or ``'uniform'``: 7 pixels, the default of scikit-image.
      sample_covariance: Whether variances and the covariance are divided by the number of pixels of the window minus 1,
        which is scikit-image's default for both windows; Wang et al. do not.

    Returns:
      ``(batch,)``, at most 1, which equal images have.

    Raises:
      UsageError: The shapes differ, an image is smaller than the window, or an option is unknown or out of range.

    References:
      Wang, Bovik, Sheikh and Simoncelli, Image quality assessment: from error visibility to structural similarity,
      2004.

    >>> ramp = jnp.linspace(0, 1, 256).reshape(1, 16, 16, 1)
    >>> ssim(ramp, ramp).tolist(), bool(ssim(ramp, 1 - ramp)[0] < 0)
    ([1.0], True)
    """
    x, y = _pair("ssim", outputs, targets, data_range)
    check_option("ssim", "window", window, WINDOWS)
    taps = np.full(_UNIFORM, 1 / _UNIFORM)
    if window == "gaussian":
        taps = np.exp(-0.5 * np.square(np.arange(-_RADIUS, _RADIUS + 1) / _SIGMA))
        taps /= taps.sum()
    if min(x.shape[1:-1]) < len(taps):
        smaller = "; window='uniform' needs 7" if window == "gaussian" else ""
        raise UsageError(
            f"ssim: images of {by(x.shape[1:-1])} are smaller than the window of {len(taps)} pixels along each axis"
            + smaller
        )
    x_mean, y_mean, xx, yy, xy = (_averaged(array, taps) for array in (x, y, x * x, y * y, x * y))
    count = len(taps) ** (x.ndim - 2)
    factor = count / (count - 1) if sample_covariance else 1.0
    x_variance, y_variance = factor * (xx - x_mean * x_mean), factor * (yy - y_mean * y_mean)
    covariance = factor * (xy - x_mean * y_mean)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * x_mean * y_mean + c1) / (x_mean**2 + y_mean**2 + c1)
    structure = (2 * covariance + c2) / (x_variance + y_variance + c2)
    return (luminance * structure).mean(axis=tuple(range(1, x.ndim)))


def _averaged(x: Array, taps: np.ndarray) -> Array:
    """Weighted means over windows along all spatial axes, of which only whole ones are kept."""
    for axis in range(1, x.ndim - 1):
        size = x.shape[axis] - len(taps) + 1
        parts = (jax.lax.slice_in_dim(x, start, start + size, axis=axis) for start in range(len(taps)))
        x = sum(float(tap) * part for tap, part in zip(taps, parts, strict=True))  # type: ignore[assignment]
    return x


def _pair(op: str, outputs: AnyArray, targets: AnyArray, data_range: Number) -> tuple[Array, Array]:
    outputs, targets = read_outputs(op, "outputs", outputs), as_array(op, "targets", targets)
    if targets.shape != outputs.shape or outputs.ndim < 3:
        raise UsageError(
            f"{op}: outputs of shape {outputs.shape} and targets of shape {targets.shape}; give both (batch, *space, "
            "channels)"
        )
    check_number(op, "data_range", data_range)
    if not is_traced(data_range) and not data_range > 0:
        raise UsageError(f"{op}: data_range={data_range} must be above 0")
    return outputs, targets.astype(outputs.dtype)
