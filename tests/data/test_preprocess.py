"""Preprocessing against NumPy, closed forms and Pillow's resampling."""

import jax
import numpy as np
import pytest
from PIL import Image

from cnn_jax.data import Dataset, Preprocess, as_records, records, sample
from cnn_jax.errors import UsageError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 8, 8, 3), np.uint8)


def plain(shape, resize="none"):
    return Preprocess(shape, mean=(0.0,) * shape[-1], std=(1.0,) * shape[-1], resize=resize)


def test_normalises_each_channel():
    mean, std = (0.1, 0.5, 0.7), (0.2, 0.25, 0.5)
    expected = (IMAGES / 255 - np.array(mean)) / np.array(std)
    preprocess = Preprocess((8, 8, 3), mean=mean, std=std)
    np.testing.assert_allclose(preprocess(IMAGES), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(preprocess((IMAGES / 255).astype(np.float32)), expected, rtol=1e-5, atol=1e-6)
    # It is a static argument of jax.jit, and gives the same result there.
    inside = jax.jit(lambda images: preprocess(images))(IMAGES)
    np.testing.assert_allclose(inside, expected, rtol=1e-5, atol=1e-6)
    assert hash(preprocess) == hash(Preprocess((8, 8, 3), mean=mean, std=std))


def test_pads_with_black_on_all_sides():
    padded = np.asarray(plain((12, 11, 3), "pad")(IMAGES))
    expected = np.pad(IMAGES / 255, [(0, 0), (2, 2), (1, 2), (0, 0)])
    np.testing.assert_allclose(padded, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("method", "filter"), [("bilinear", Image.Resampling.BILINEAR), ("lanczos3", Image.Resampling.LANCZOS)]
)
@pytest.mark.parametrize("size", [(32, 32), (3, 5)])
def test_resizes_as_pillow_does(method, filter, size):
    resized = np.asarray(plain((*size, 3), method)(IMAGES[:1]))[0]
    for channel in range(3):
        image = Image.fromarray(IMAGES[0, ..., channel].astype(np.float32))
        expected = np.asarray(image.resize(size[::-1], filter)) / 255
        np.testing.assert_allclose(resized[..., channel], expected, atol=2e-6)


@pytest.mark.parametrize(
    ("shape", "resize", "expected"),
    [
        ((8, 8, 3), "none", IMAGES / 255),
        ((12, 12, 3), "pad", np.pad(IMAGES / 255, [(0, 0), (2, 2), (2, 2), (0, 0)])),
        ((16, 16, 3), "nearest", (IMAGES / 255).repeat(2, axis=1).repeat(2, axis=2)),
    ],
)
def test_statistics_are_of_the_inputs_of_the_network(monkeypatch, shape, resize, expected):
    monkeypatch.setattr("cnn_jax.data.preprocess.MEASURED_AT_ONCE", 4)
    dataset = Dataset.of_images("made", "train", IMAGES, np.zeros(6, np.int32), ("a",))
    preprocess = Preprocess.measure(dataset, shape, resize=resize)
    np.testing.assert_allclose(preprocess.mean, expected.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(preprocess.std, expected.std(axis=(0, 1, 2)), rtol=1e-5)


def test_crop_takes_the_middle():
    np.testing.assert_array_equal(plain((5, 8, 3), "crop")(IMAGES), plain((8, 8, 3))(IMAGES)[:, 1:6])
    np.testing.assert_array_equal(plain((4, 2, 3), "crop")(IMAGES), plain((8, 8, 3))(IMAGES)[:, 2:6, 3:5])


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda: plain((8, 8, 3), "bilinar"), "unknown resize='bilinar'; did you mean 'bilinear'"),
        (lambda: plain((8, 0)), "input_shape=(8, 0); give (height, width, channels), all positive"),
        (lambda: plain((8, 8))(IMAGES), "but input_shape=(8, 8) needs (n, length, channels)"),
        (lambda: Preprocess((8, 8, 3), mean=(0.0,), std=(1.0, 1.0, 1.0)), "mean has 1 values for 3 channels"),
        (lambda: Preprocess((8, 8, 1), mean=(0.0,), std=(0.0,)), "std=(0.0,) must be positive"),
        (
            lambda: plain((8, 8, 3))(IMAGES[0]),
            "inputs have shape (8, 8, 3), but input_shape=(8, 8, 3) needs (n, height, width, channels)",
        ),
        (lambda: plain((8, 8, 3))(IMAGES.astype(np.int32)), "inputs are int32"),
        (lambda: plain((8, 8, 1))(IMAGES), "inputs have 3 channels, the network's input has 1"),
        (lambda: plain((9, 9, 3))(IMAGES), "8x8 do not become 9x9 with resize='none'; use resize='bilinear' or 'pad'"),
        (lambda: plain((9, 7, 3), "crop")(IMAGES), "8x8 do not become 9x7 with resize='crop'; use resize='bilinear'"),
        (lambda: plain((9, 7, 3), "pad")(IMAGES), "8x8 do not become 9x7 with resize='pad'; use resize='bilinear'"),
    ],
)
def test_invalid_arguments_are_rejected(call, complaint):
    with pytest.raises(UsageError) as caught:
        call()
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_large_examples_are_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean and standard deviation of a set on disk are those of all its examples, with one in memory at a time."""
    volumes = np.random.default_rng(0).standard_normal((7, 3, 4, 5, 2)).astype(np.float32)
    found = Dataset("mine", "train", {"scan": volumes}, {"scan": "volume"})
    monkeypatch.setattr(records, "SAMPLED_BYTES", 5 * volumes[0].nbytes)
    monkeypatch.setattr(records, "PART_BYTES", volumes[0].nbytes)
    stored = as_records(found)
    assert [len(part) for part in records.sampled_parts(stored, most=7, at_once=4)] == [1] * 7
    assert len(sample(stored)) == 5
    measured = Preprocess.measure(stored, (3, 4, 5, 2))
    np.testing.assert_allclose(measured.mean, volumes.mean(axis=(0, 1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(measured.std, volumes.std(axis=(0, 1, 2, 3)), rtol=1e-5)
