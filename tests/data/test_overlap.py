"""Examples that two data sets have in common, against a Python set of their bytes."""

import numpy as np
import pytest
from PIL import Image

from cnn_jax import data
from tests.data.tfds_files import write_tfds_set

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_counts_every_example_whose_pixels_are_trained_on(dtype):
    images = (RANDOM.random((30, 2, 3, 1)) * 2).astype(np.uint8).astype(dtype)  # only 64 different images
    labels = np.arange(30, dtype=np.int32) % 2
    one, other = (
        data.Dataset.of_images("made", "all", images[part], labels[part], ("a", "b"))
        for part in (slice(0, 20), slice(20, 30))
    )
    known = {image.tobytes() for image in images[:20]}
    expected = sum(image.tobytes() in known for image in images[20:])
    assert 0 < expected < 10
    assert data.count_shared(one, other) == expected
    assert data.count_shared(data.as_records(one), data.as_records(other)) == expected
    assert data.count_shared(one, one) == 20


def test_all_inputs_count_and_labels_do_not():
    def made(sound: float, label: int) -> data.Dataset:
        fields = {"image": np.zeros((1, 2, 2, 1), np.uint8), "sound": np.full((1, 4, 1), sound, np.float32)}
        spec = {"image": "image", "sound": "signal", "label": data.Field("label", class_names=("a", "b"))}
        return data.Dataset("made", "all", {**fields, "label": np.array([label], np.int32)}, spec)

    assert data.count_shared(made(0, 0), made(0, 1)) == 1
    assert data.count_shared(made(0, 0), made(1, 0)) == 0


def test_identical_files_in_the_parts_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part, numbers in (("train", (0, 1, 2, 3)), ("test", (2, 3, 9))):
        for number in numbers:
            path = tmp_path / "set" / part / "ab"[number % 2] / f"{part}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (5, 5), 20 * number).save(path)
    train, test = (
        data.open_set(f"folder:{tmp_path / 'set'}", part, image_shape=(5, 5, 1)) for part in ("train", "test")
    )
    assert data.count_shared(train, test) == 2
    assert data.count_shared(train.to_memory(), test.to_memory()) == 2


def test_places_in_the_files_of_tfds(tmp_path):
    images = RANDOM.integers(0, 256, (20, 4, 4, 3), np.uint8)
    splits = {"train": (images, [0, 1] * 10), "test": (images[:5], [0] * 5)}
    write_tfds_set(tmp_path, "made", splits, class_names=["ant", "bee"])
    train, later, test = (
        data.open_set("made", split, data_dir=tmp_path) for split in ("train[:12]", "train[9:]", "test")
    )
    assert data.count_shared(train, later) == 3
    assert data.count_shared(train, test) == 0, "they would have to be read"
    assert data.count_shared(train.to_memory(), test.to_memory()) == 5
