"""Spectra of sound: the short-time Fourier transform as a convolution, and mel filters."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, check_option, integer
from cnn_jax.ops.conv import conv_as
from cnn_jax.ops.wide import in_float32

CONVENTIONS = ("htk", "slaney")


def stft(
    x: Shaped[AnyArray, "..."],
    window: Shaped[AnyArray, "..."],
    *,
    hop_length: int,
    centered: bool = True,
    boundary: str = "mirror",
) -> tuple[Shaped[Array, "*batch frames bins channels"], Shaped[Array, "*batch frames bins channels"]]:
    """Computes the short-time Fourier transform: a convolution with cosines and sines under a window.

    Frame ``m`` and bin ``k`` of a channel are ``sum over n of window[n] * x[m * hop_length + n] * exp(-2 pi i k n /
    n_fft)``. It is differentiable like every convolution.

    Args:
      x: ``(*batch, length, C)``.
      window: ``(n_fft,)``, such as ``scipy.signal.get_window("hann", 512)``.
      hop_length: The number of samples between the beginnings of neighbouring frames.
      centered: Whether frame ``m`` is centred at sample ``m * hop_length``, for which the ends are padded by
        ``n_fft // 2``. Otherwise it begins there, and nothing is padded.
      boundary: The values of the padding, see :func:`cnn_jax.ops.pad`. Librosa pads with zeros, and PyTorch mirrors.

    Returns:
      The real and the imaginary part, each ``(*batch, frames, n_fft // 2 + 1, C)``. There are ``1 + length //
      hop_length`` frames if they are centred and ``n_fft`` is even, else ``1 + (length - n_fft) // hop_length``.

    Raises:
      UsageError: The window does not have one axis, the signal is shorter than a frame, or an option is unknown.

    >>> speech, hann = jnp.ones((8000, 1)), jnp.hanning(512)
    >>> stft(speech, hann, hop_length=128)[0].shape, stft(speech, hann, hop_length=128, centered=False)[0].shape
    ((63, 257, 1), (59, 257, 1))
    """
    x, window = jnp.asarray(x), jnp.asarray(window)
    if x.ndim < 2 or window.ndim != 1 or not window.size:
        raise UsageError(
            f"stft: x of shape {x.shape} and window of shape {window.shape}; "
            "give (*batch, length, channels) and (n_fft,)"
        )
    size = len(window)
    phase = 2 * np.pi * (np.outer(np.arange(size), np.arange(size // 2 + 1)) % size) / size
    waves = np.concatenate([np.cos(phase), -np.sin(phase)], axis=1).astype(np.float32)
    kernel = in_float32(lambda window: window[:, None, None] * jnp.asarray(waves)[:, None], window)
    single = jnp.moveaxis(x, -1, -2)[..., None]  # each channel by itself
    y = conv_as(
        "stft",
        single,
        kernel.astype(x.dtype),
        strides=integer("stft", "hop_length", hop_length, least=1),
        padding=size // 2 if centered else "VALID",
        kernel_dilation=1,
        feature_group_count=1,
        boundary=boundary if centered else "zero",
        boundary_value=0.0,
        rounding="floor",
        method="direct",
        derivatives="custom",
        precision=None,
    )
    real, imaginary = jnp.split(jnp.moveaxis(y, -3, -1), 2, axis=-2)
    return real, imaginary


def spectrogram(
    x: Shaped[AnyArray, "*batch length channels"],
    window: Shaped[AnyArray, " n_fft"],
    *,
    hop_length: int,
    centered: bool = True,
    boundary: str = "mirror",
) -> Shaped[Array, "*batch frames bins channels"]:
    """Computes the power of each frequency over time: the squared magnitude of :func:`stft`.

    Args:
      x: ``(*batch, length, C)``.
      window: ``(n_fft,)``.
      hop_length: This and all remaining options have the same meaning as in :func:`stft`.

    Returns:
      ``(*batch, frames, n_fft // 2 + 1, C)``.

    Raises:
      UsageError: See :func:`stft`.

    >>> tone = jnp.sin(2 * jnp.pi * 1000 * jnp.arange(8000) / 8000)[:, None]
    >>> int(spectrogram(tone, jnp.hanning(512), hop_length=128)[30, :, 0].argmax()) * 8000 / 512
    1000.0
    """

    def power(x: Array, window: Array) -> Array:
        real, imaginary = stft(x, window, hop_length=hop_length, centered=centered, boundary=boundary)
        return jnp.square(real) + jnp.square(imaginary)

    return in_float32(power, jnp.asarray(x), jnp.asarray(window))


def mel_filters(
    *,
    num_filters: int,
    n_fft: int,
    sample_rate: float | int,
    low: float | int = 0.0,
    high: float | int | None = None,
    convention: str = "htk",
    normalized: bool = False,
) -> Float[Array, "bins filters"]:
    """Computes triangular filters at equal distances on the mel scale, to be multiplied with a spectrogram's bins.

    Args:
      num_filters: The number of filters.
      n_fft: The length of the frames of the spectrogram.
      sample_rate: Samples per second.
      low: The lowest frequency, in hertz.
      high: The highest frequency, in hertz; by default half of the sampling rate.
      convention: ``'htk'`` has ``2595 log10(1 + f / 700)`` mel; ``'slaney'`` is linear below 1 kHz, with 3 mel for 200
        Hz, and logarithmic above.
      normalized: Whether each filter has the same area, as in librosa, instead of the same height 1, as in torchaudio.

    Returns:
      ``(n_fft // 2 + 1, num_filters)``, float32.

    Raises:
      UsageError: The frequencies do not rise from 0 to half of the sampling rate, or the convention is unknown.

    References:
      Young et al., The HTK book, 2006; Slaney, Auditory toolbox, 1998.

    >>> mel_filters(num_filters=40, n_fft=512, sample_rate=8000).shape
    (257, 40)
    """
    check_option("mel_filters", "convention", convention, CONVENTIONS)
    highest = sample_rate / 2 if high is None else high
    if not 0 <= low < highest <= sample_rate / 2:
        raise UsageError(
            f"mel_filters: low={low} and high={highest} must rise from 0 to at most {sample_rate / 2:g} Hz"
        )
    count = integer("mel_filters", "num_filters", num_filters, least=1)
    size = integer("mel_filters", "n_fft", n_fft, least=1)
    edges = _hertz(np.linspace(_mel(low, convention), _mel(highest, convention), count + 2), convention)
    frequencies = np.arange(size // 2 + 1)[:, None] * sample_rate / size
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    filters = np.minimum(rising, falling).clip(min=0)
    if normalized:
        filters = filters * 2 / (edges[2:] - edges[:-2])
    return jnp.asarray(filters, jnp.float32)


# Slaney's scale: 200/3 Hz per mel up to 1 kHz, which is 15 mel; above, 27 mel for a factor of 6.4.
_LINEAR, _KNEE, _STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def _mel(hertz: Any, convention: str) -> Any:
    hertz = np.asarray(hertz, float)
    if convention == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    return np.where(hertz < _KNEE, hertz / _LINEAR, _KNEE / _LINEAR + np.log(np.maximum(hertz, 1) / _KNEE) / _STEP)


def _hertz(mel: Any, convention: str) -> Any:
    if convention == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < _KNEE / _LINEAR, mel * _LINEAR, _KNEE * np.exp(_STEP * (mel - _KNEE / _LINEAR)))
