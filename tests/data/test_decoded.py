"""Decoded images are read from the user's cache, and only if decoding would give the same images."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cnn_jax.data import decoded
from cnn_jax.data.records import Records, labelled_images

IMAGES = np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4, 1)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(decoded, "WORTH_KEEPING", 3)
    return tmp_path / "cnn_jax" / "decoded"


class Reader:
    """A reader that counts how often it is asked for all images."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, indices: Sequence[int]) -> list[dict[str, object]]:
        self.images += len(indices)
        return [{"image": IMAGES[index], "label": index} for index in indices]

    @property
    def asked(self) -> float:
        return self.images / len(IMAGES)


def records(reader: Reader, **changes: object) -> Records:
    fields = {"identity": "one", "origin": "file, Monday"} | changes
    return Records("images", "train", reader, 3, labelled_images((4, 4, 1), ("a", "b", "c")), **fields)


def test_a_set_is_decoded_once(cache: Path) -> None:
    reader = Reader()
    for _ in range(2):
        found = records(reader).to_memory()
        np.testing.assert_array_equal(found.images, IMAGES)
        assert found.labels.tolist() == [0, 1, 2]
    assert reader.asked == 1
    assert [path.suffix for path in cache.iterdir()] == [".npz"], "nothing half-written is left"


@pytest.mark.parametrize("changes", [{"identity": "two"}, {"origin": "file, Tuesday"}, {"framing": "fit"}])
def test_another_set_is_decoded_again(cache: Path, changes: dict[str, str]) -> None:
    reader = Reader()
    records(reader).to_memory()
    records(reader, **changes).to_memory()
    assert reader.asked == 2


def test_sets_of_unknown_origin_are_never_cached(cache: Path) -> None:
    records(Reader(), origin="").to_memory()
    assert not cache.exists()


@pytest.mark.parametrize("damage", ["cut short", "a flipped bit", "not an archive"])
def test_a_damaged_file_is_decoded_again(cache: Path, damage: str) -> None:
    reader = Reader()
    records(reader).to_memory()
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    content[content.index(IMAGES.tobytes()) + 7] ^= 1
    path.write_bytes({"cut short": content[:200], "a flipped bit": content, "not an archive": b"x"}[damage])
    np.testing.assert_array_equal(records(reader).to_memory().images, IMAGES)
    assert reader.asked == 2
    records(reader).to_memory()
    assert reader.asked == 2, "and the file is intact again"


def test_a_cache_folder_without_write_permission_is_skipped(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    np.testing.assert_array_equal(records(Reader()).to_memory().images, IMAGES)


def test_the_least_recently_used_set_is_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader()
    for number, name in enumerate(("old", "new")):
        records(reader, identity=name).to_memory()
        for path in cache.iterdir():
            if path.stat().st_mtime > 1e9:
                os.utime(path, (number, number))
    records(reader, identity="old").to_memory()  # used again, so the other one is now the older
    monkeypatch.setattr(decoded, "MOST_OF_ALL", sum(path.stat().st_size for path in cache.iterdir()))
    records(reader, identity="third").to_memory()
    assert reader.asked == 3
    records(reader, identity="old").to_memory()
    assert reader.asked == 3
    records(reader, identity="new").to_memory()
    assert reader.asked == 4


def test_without_a_cache_it_is_decoded_every_time(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.parent.joinpath("file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent.parent / "file"))
    reader = Reader()
    for _ in range(2):
        np.testing.assert_array_equal(records(reader).to_memory().images, IMAGES)
    assert reader.asked == 2
