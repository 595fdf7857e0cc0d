"""WAV files written by the standard library and by SciPy, read by this project."""

import io
import wave

import numpy as np
import pytest
from scipy.io import wavfile

from cnn_jax import data
from cnn_jax.data.sounds import fit_sound, read_sound
from cnn_jax.errors import UsageError

RATE = 8000


def write(path, samples: np.ndarray, *, rate: int = RATE) -> None:
    """16 bits, by the standard library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


def tone(length: int, *, rate: int = RATE, frequency: float = 440.0) -> np.ndarray:
    return np.rint(20_000 * np.sin(2 * np.pi * frequency * np.arange(length) / rate)).astype(np.int16)


def wav(samples: np.ndarray) -> bytes:
    """A file of SciPy's."""
    file = io.BytesIO()
    wavfile.write(file, RATE, samples)
    return file.getvalue()


@pytest.fixture
def recordings(tmp_path):
    for digit in "01":
        for speaker in ("ann", "bob"):
            for index in range(3):
                write(tmp_path / f"{digit}_{speaker}_{index}.wav", tone(100 + 10 * index + int(digit)))
    return tmp_path


def test_all_16_bit_samples_survive(tmp_path):
    samples = np.arange(-32768, 32768).astype(np.int16)
    write(tmp_path / "a.wav", samples)
    found, rate = read_sound(tmp_path / "a.wav")
    assert rate == RATE
    np.testing.assert_array_equal(found[:, 0] * 32768, samples)


def test_the_size_of_a_sound_that_came_through_a_pipe_is_not_known(tmp_path):
    samples = np.arange(100, dtype=np.int16)
    content = bytearray(wav(samples))
    content[4:8] = content[40:44] = b"\xff" * 4
    assert (read_sound(tmp_path / "a.wav", bytes(content)).samples[:, 0] * 32768 == samples).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_every_format_has_the_same_scale(tmp_path, dtype):
    values = np.array([[0.0, 0.5], [-0.5, 0.25]])
    low = {np.uint8: 128, np.int16: 32768, np.int32: 2.0**31}.get(dtype, 1)
    stored = (values * low + (128 if dtype == np.uint8 else 0)).astype(dtype)
    wavfile.write(tmp_path / "a.wav", 16_000, stored)
    np.testing.assert_array_equal(read_sound(tmp_path / "a.wav").samples, values.astype(np.float32))


def test_fields_of_file_names_are_parts(recordings):
    name = f"sounds:{recordings}/{{label}}_{{speaker}}_{{index}}.wav"
    found = data.load(name, "speaker-ann", image_shape=(120, 1))
    assert (len(found), found.class_names, found.spec["signal"].rate) == (6, ("0", "1"), RATE)
    expected = wavfile.read(recordings / "1_ann_0.wav")[1] / 32768
    row = next(n for n, label in enumerate(found.labels) if label == 1)
    np.testing.assert_array_equal(found.inputs[row, :101, 0], expected.astype(np.float32))
    assert not found.inputs[row, 101:].any()
    assert len(data.load(name, "index-0+index-2", image_shape=(120, 1))) == 8
    assert len(data.load(name, "all", image_shape=(120, 1))) == 12
    with pytest.raises(UsageError, match="no split 'speaker-eve'"):
        data.load(name, "speaker-eve", image_shape=(120, 1))


def test_folders_are_classes_and_other_rates_and_channels_are_brought_to_one(tmp_path):
    for number in range(4):
        write(tmp_path / "train" / "low" / f"{number}.wav", tone(200))
    write(tmp_path / "train" / "high" / "stereo.wav", np.stack([tone(200), -tone(200)], axis=1))
    write(tmp_path / "test" / "low" / "fast.wav", tone(400, rate=2 * RATE), rate=2 * RATE)
    train = data.open_set(f"sounds:{tmp_path}", "train", image_shape=(200, 1))
    assert "8,000 samples per second" in train.report
    assert "1 of 16,000 samples per second are resampled" in train.report
    stereo = train.to_memory()
    np.testing.assert_array_equal(stereo.inputs[stereo.labels == 0], 0)
    resampled = data.load(f"sounds:{tmp_path}", "test", image_shape=(200, 1)).inputs[0, :, 0]
    np.testing.assert_allclose(resampled[20:180], tone(200)[20:180] / 32768, atol=2e-3)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not a WAV file; convert it to one"),
        (b"ID3\x03" + bytes(100), "is not a WAV file; convert it to one"),
        (b"RIFF\x00\x00\x00\x00WAVEjunk", "WAV file"),
        (wav(np.arange(100, dtype=np.int16))[:-50], "is not a complete WAV file: it has 194 of 244 bytes"),
        (wav(np.array([0, np.nan], np.float32)), "holds values that are not finite"),
    ],
)
def test_a_damaged_file_is_named(recordings, content, expected):
    (recordings / "0_ann_9.wav").write_bytes(content)
    with pytest.raises(UsageError, match=expected) as caught:
        data.open_set(f"sounds:{recordings}/{{label}}_*.wav", "train", image_shape=(120, 1))
    assert str(caught.value).startswith(str(recordings / "0_ann_9.wav"))


def test_invalid_arguments_are_rejected(tmp_path, recordings):
    with pytest.raises(UsageError, match="put the WAV files of each class in one of its own"):
        data.open_set(f"sounds:{recordings}", "train", image_shape=(120, 1))
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"no WAV files in \S+a \(looked for \.wav \.wave\)"):
        data.open_set(f"sounds:{tmp_path / 'empty'}", "train", image_shape=(120, 1))
    with pytest.raises(UsageError, match=r"give input_shape=\(samples, channels\)"):
        data.open_set(f"sounds:{recordings}/{{label}}_*.wav", "train")
    sound = read_sound(recordings / "0_ann_0.wav")
    with pytest.raises(UsageError, match=r"has 1 channels, but input_shape asks for 2; set input_shape to \(50, 1\)"):
        fit_sound(sound, "a.wav", rate=RATE, length=50, channels=2)
    assert fit_sound(sound, "a.wav", rate=RATE, length=50, channels=1)[1] == ["cut to 0.00625 s"]
