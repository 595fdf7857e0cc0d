"""A small network for sound: a mel spectrogram, computed by convolutions, and the small network for images on it."""

from typing import Any

from flax import nnx
from jaxtyping import DTypeLike

from cnn_jax import geometry, nn
from cnn_jax.errors import UsageError
from cnn_jax.models.small_cnn import small_cnn
from cnn_jax.models.variant import Variant
from cnn_jax.ops.arguments import Number


def sound_cnn(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    sample_rate: float = 8000.0,
    n_fft: int = 512,
    hop_length: int = 128,
    num_mels: int = 40,
    convention: str = "htk",
    centered: bool = True,
    floor: float = 1.0,
    dropout_rate: Number = 0.3,
) -> nn.Sequence:
    """The logarithm of a mel spectrogram, normalised by batch, and :func:`small_cnn` on this image.

    Args:
      num_classes: The number of outputs.
      input_shape: The shape of one input, (samples, channels).
      width: Multiplies the number of channels and hidden units.
      dtype: The type to compute in.
      rngs: Draws the parameters.
      sample_rate: Samples per second.
      n_fft: The number of samples in a frame, here and below see :class:`cnn_jax.nn.Spectrogram`.
      hop_length: The number of samples between neighbouring frames.
      num_mels: The number of mel filters.
      convention: Of the mel scale, ``'htk'`` or ``'slaney'``.
      centered: Whether frames are centred.
      floor: What is added to the power before the logarithm. The default is about the noise of recordings whose samples
        are normalised; with a much smaller one, the silence that short sounds are padded with dominates the image.
      dropout_rate: The probability of dropping a hidden unit.

    Raises:
      UsageError: The sound is too short for a frame; see also :class:`cnn_jax.nn.Spectrogram`.
    """
    if input_shape[0] < n_fft:
        raise UsageError(f"n_fft={n_fft} does not fit {input_shape[0]} samples; use a smaller one or longer sounds")
    options: dict[str, Any] = {"num_mels": num_mels, "sample_rate": sample_rate}
    spectrogram = nn.Spectrogram(n_fft, hop_length, convention=convention, centered=centered, floor=floor, **options)
    normalized = nn.BatchNorm(input_shape[-1], momentum=0.9, use_scale=False, use_bias=False, dtype=dtype, rngs=rngs)
    first = {"spectrogram": spectrogram, "normalize": normalized}
    image = geometry.output_shape(first, input_shape)
    rest = small_cnn(
        num_classes=num_classes, input_shape=image, width=width, dtype=dtype, rngs=rngs, dropout_rate=dropout_rate
    )
    return nn.Sequence({**first, **{name: rest.layer(name) for name in rest.names}})


VARIANTS = {"sound_cnn": Variant(sound_cnn, (8000, 1), 10)}
