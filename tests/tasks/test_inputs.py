"""The user's own files in the form of a run's examples, without a run."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from cnn_jax import data
from cnn_jax.errors import UsageError
from cnn_jax.tasks.inputs import read_inputs
from cnn_jax.tasks.sets import check_same_words


def description(name: str, field: data.Field) -> dict:
    """As ``data.json`` of a run with one input."""
    return {"name": "made", "spec": {name: dataclasses.asdict(field)}}


def test_a_sound_of_another_rate_is_resampled_and_a_short_one_padded(tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 200 * np.arange(3200) / 16_000).astype(np.float32)
    wavfile.write(tmp_path / "fast.wav", 16_000, tone)
    wavfile.write(tmp_path / "silent.wav", 8000, np.zeros(10, np.int16))
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    found = read_inputs([str(tmp_path)], description("signal", data.Field("signal", (2000, 1), "float32", rate=8000)))
    broken, fast, silent = found.names
    assert found.read[fast].assumed == "resampled from 16,000 to 8,000 samples per second"
    expected = np.sin(2 * np.pi * 200 * np.arange(1600) / 8000)
    np.testing.assert_allclose(found.read[fast].array[50:1550, 0], expected[50:1550], atol=5e-3)
    assert not found.read[fast].array[1600:].any()
    assert found.read[silent].hint == "silence"
    assert "is not a complete WAV file" in found.reasons[broken]


def test_lines_of_text_with_unknown_words(tmp_path: Path) -> None:
    names = ("<padding>", "<unknown>", "fine", "film")
    field = data.Field("text", (3,), "int32", class_names=names, count="text_count")
    file = tmp_path / "own.txt"
    file.write_text("Fine film!\n\nfine, very fine film\nnothing known\n")
    spec = description("text", field)
    spec["spec"]["text_count"] = dataclasses.asdict(data.Field("count", (), "int32"))
    found = read_inputs([str(file)], spec)
    assert found.names == [f"{file}:1", f"{file}:3", f"{file}:4"]
    assert [one.array.tolist() for one in found.read.values()] == [[2, 3, 1], [2, 1, 1], [1, 1, 0]]
    assert [one.assumed for one in found.read.values()] == [
        "unknown words: !",
        "cut to 3 words; unknown words: ,, very",
        "unknown words: nothing, known",
    ]
    assert [one.hint for one in found.read.values()] == ["", "", "no known word"]


def test_volumes_in_numpy_files(tmp_path: Path) -> None:
    spec = description("volume", data.Field("volume", (2, 3, 4, 1), "uint8"))
    np.save(tmp_path / "a.npy", np.ones((2, 3, 4), np.uint8))
    np.savez(tmp_path / "b.npz", volume=np.ones((2, 3, 4, 1), np.uint8))
    np.save(tmp_path / "c.npy", np.ones((2, 3, 5), np.uint8))
    (tmp_path / "d.npy").write_bytes(b"no array")
    found = read_inputs([str(tmp_path)], spec)
    assert [one.array.shape for one in found.read.values()] == [(2, 3, 4, 1)] * 2
    wrong, broken = found.reasons.values()
    assert wrong == "is uint8 (2, 3, 5); the run's volumes are uint8 (2, 3, 4, 1)"
    assert broken == "is not a readable .npy or .npz file of numbers"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no NumPy files in this folder"):
        read_inputs([str(tmp_path / "empty")], spec)


def test_texts_with_another_vocabulary_are_rejected(tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    file.write_text("good a fine film\nbad a dull film\n" * 20)
    before = data.load(f"text:{file}", "test", image_shape=(4,))
    spec = {name: dataclasses.asdict(field) for name, field in before.spec.items()}
    (tmp_path / "data.json").write_text(json.dumps({"name": before.name, "spec": spec}))
    check_same_words(tmp_path, before)
    file.write_text("good a fine plot\nbad a dull film\n" * 20)
    with pytest.raises(UsageError, match="was trained with another vocabulary"):
        check_same_words(tmp_path, data.load(f"text:{file}", "test", image_shape=(4,)))
