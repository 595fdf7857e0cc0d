"""Spectrograms as a layer: from sound to images of frequency over time."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Shaped

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, integer


class Spectrogram(nnx.Module):
    """The logarithm of the power of each frequency over time: ``log(power + floor)``, under a Hann window.

    With mel filters the powers of neighbouring frequencies are summed. The layer has no parameters. The output is an
    image for convolutions over time and frequency.

    Args:
      n_fft: The number of samples in a frame.
      hop_length: The number of samples between neighbouring frames.
      num_mels: The number of mel filters; None for all frequencies.
      sample_rate: Samples per second, which mel filters need.
      convention: Of the mel scale: ``'htk'`` or ``'slaney'``, see :func:`cnn_jax.ops.mel_filters`.
      normalized: Whether mel filters have the same area instead of the same height.
      centered: Whether frames are centred, see :func:`cnn_jax.ops.stft`.
      boundary: The values of the padding of centred frames.
      floor: What is added to the power, so that silence is finite.

    Raises:
      UsageError: There are mel filters without a sampling rate, or ``floor`` is not above 0.

    >>> layer = Spectrogram(512, 128, num_mels=40, sample_rate=8000)
    >>> layer(jnp.ones((4, 8000, 1))).shape
    (4, 63, 40, 1)
    """

    def __init__(
        self,
        n_fft: int,
        hop_length: int,
        *,
        num_mels: int | None = None,
        sample_rate: float | int | None = None,
        convention: str = "htk",
        normalized: bool = False,
        centered: bool = True,
        boundary: str = "mirror",
        floor: float = 1e-6,
    ) -> None:
        self.n_fft = integer("Spectrogram", "n_fft", n_fft, least=1)
        self.hop_length = integer("Spectrogram", "hop_length", hop_length, least=1)
        if num_mels is not None and sample_rate is None:
            raise UsageError(f"Spectrogram: num_mels={num_mels} needs sample_rate, the number of samples per second")
        if not floor > 0:
            raise UsageError(f"Spectrogram: floor={floor} must be above 0")
        self.num_mels, self.sample_rate = num_mels, sample_rate
        self.convention, self.normalized = convention, normalized
        self.centered, self.boundary, self.floor = centered, boundary, floor

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch length channels"]
    ) -> Shaped[Array, "*batch frames bins channels"]:
        """Maps ``(*batch, length, C)`` to ``(*batch, frames, bins, C)``; bins are mel filters if there are any."""
        hann = np.square(np.sin(np.pi * np.arange(self.n_fft) / self.n_fft)).astype(np.float32)
        power = ops.spectrogram(
            inputs,
            jnp.asarray(hann, jnp.asarray(inputs).dtype),
            hop_length=self.hop_length,
            centered=self.centered,
            boundary=self.boundary,
        )
        if self.num_mels is not None:
            filters = ops.mel_filters(
                num_filters=self.num_mels,
                n_fft=self.n_fft,
                sample_rate=self.sample_rate or 0,
                convention=self.convention,
                normalized=self.normalized,
            )
            power = jnp.einsum("...fbc,bm->...fmc", power, filters.astype(power.dtype))
        return jnp.log(power + jnp.asarray(self.floor, power.dtype))
