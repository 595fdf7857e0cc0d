"""The short-time Fourier transform against SciPy's FFT, and mel filters against published numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import fft, signal

from cnn_jax import ops
from cnn_jax.errors import UsageError

LENGTH, SIZE, HOP = 300, 32, 10
X = np.random.default_rng(0).standard_normal((2, LENGTH, 2)).astype(np.float32)
WINDOW = signal.get_window("hann", SIZE).astype(np.float32)


def reference(x: np.ndarray, size: int, window: np.ndarray) -> np.ndarray:
    """(batch, frames, bins, channels) of signals that are padded already, frame by frame."""
    frames = range(0, x.shape[1] - size + 1, HOP)
    return np.stack(
        [fft.rfft(window[:, None] * x[:, first : first + size].astype(float), axis=1) for first in frames], 1
    )


@pytest.mark.parametrize("size", [SIZE, 31])
@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ({"centered": False}, None),
        ({}, "reflect"),
        ({"boundary": "zero"}, "constant"),
        ({"boundary": "replicate"}, "edge"),
    ],
)
def test_stft_is_that_of_scipy(size, options, mode):
    window = WINDOW[:size]
    half = size // 2
    padded = X if mode is None else np.pad(X, ((0, 0), (half, half), (0, 0)), mode=mode)
    real, imaginary = ops.stft(X, window, hop_length=HOP, **options)
    expected = reference(padded, size, window)
    np.testing.assert_allclose(np.asarray(real) + 1j * np.asarray(imaginary), expected, atol=2e-5)
    power = ops.spectrogram(X, window, hop_length=HOP, **options)
    np.testing.assert_allclose(power, np.abs(expected) ** 2, rtol=1e-4, atol=1e-4)


def test_frames_of_a_second():
    speech = jax.ShapeDtypeStruct((8000, 1), jnp.float32)
    window = jax.ShapeDtypeStruct((512,), jnp.float32)
    for centered, frames in ((True, 63), (False, 59)):
        power = jax.eval_shape(
            lambda x, w, c=centered: ops.spectrogram(x, w, hop_length=128, centered=c), speech, window
        )
        assert power.shape == (frames, 257, 1)


def test_its_gradient_is_that_of_the_fourier_transform():
    """Of the power without padding: twice the real part of the transform, brought back frame by frame."""
    x = X[:1, :, :1]
    gradient = jax.grad(lambda x: ops.spectrogram(x, WINDOW, hop_length=HOP, centered=False).sum())(jnp.asarray(x))
    expected = np.zeros(LENGTH)
    for first in range(0, LENGTH - SIZE + 1, HOP):
        spectrum = fft.rfft(WINDOW * x[0, first : first + SIZE, 0].astype(float))
        waves = np.exp(-2j * np.pi * np.outer(np.arange(SIZE), np.arange(SIZE // 2 + 1)) / SIZE)
        expected[first : first + SIZE] += 2 * WINDOW * (waves @ spectrum.conj()).real
    np.testing.assert_allclose(gradient[0, :, 0], expected, atol=2e-3)


def peaks(convention: str) -> np.ndarray:
    """The frequencies of the greatest weights of many filters, at one per hertz."""
    filters = ops.mel_filters(num_filters=20, n_fft=16_000, sample_rate=16_000, convention=convention)
    return np.asarray(filters).argmax(axis=0)


def test_filters_are_centred_at_equal_distances_of_mel():
    htk = 2595 * np.log10(1 + peaks("htk") / 700)
    np.testing.assert_allclose(np.diff(htk), (2595 * np.log10(1 + 8000 / 700)) / 21, rtol=0.02)
    slaney = peaks("slaney")
    mel = np.where(slaney < 1000, slaney * 3 / 200, 15 + 27 * np.log(np.maximum(slaney, 1) / 1000) / np.log(6.4))
    np.testing.assert_allclose(np.diff(mel), (15 + 27 * np.log(8) / np.log(6.4)) / 21, rtol=0.02)


def test_largest_weights_of_librosa_and_torchaudio():
    """Of 40 filters for frames of 512 at 16 kHz: .01323 and .995."""
    options = {"n_fft": 512, "sample_rate": 16_000}
    assert float(
        ops.mel_filters(num_filters=40, convention="slaney", normalized=True, **options).max()
    ) == pytest.approx(0.01323, rel=1e-3)
    assert float(ops.mel_filters(num_filters=40, convention="htk", **options).max()) == pytest.approx(0.995, abs=5e-4)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: ops.stft(X[0, :, 0], WINDOW, hop_length=HOP), "give (*batch, length, channels) and (n_fft,)"),
        (lambda: ops.stft(X, WINDOW, hop_length=0), "hop_length=0"),
        (lambda: ops.stft(X[:, :20], WINDOW, hop_length=HOP, centered=False), "stft: kernel 32"),
        (lambda: ops.mel_filters(num_filters=4, n_fft=32, sample_rate=8000, high=5000), "at most 4000 Hz"),
        (lambda: ops.mel_filters(num_filters=4, n_fft=32, sample_rate=8000, convention="mel"), "'htk'"),
    ],
)
def test_mistakes(call, expected):
    with pytest.raises(UsageError) as caught:
        call()
    assert expected in str(caught.value)
