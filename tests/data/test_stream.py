"""Streams, with threads and with worker processes, against the same data set in memory."""

import jax
import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.data.batches import HostOrder, batch_indices
from cnn_jax.data.stream import Stream, sent_ahead
from cnn_jax.errors import UsageError
from tests.data.tfds_files import write_tfds_set

KEY = jax.random.key(2)


@pytest.mark.parametrize(("examples", "size"), [(23, 4), (60_000, 64), (7, 7), (1297, 50)])
def test_order_on_the_host_is_the_order_on_the_device(examples, size):
    order = HostOrder.of(KEY, 5 * (examples // size), num_examples=examples, batch_size=size)
    first = 4 * (examples // size) - 2
    expected = batch_indices(KEY, max(first, 0), 3, num_examples=examples, batch_size=size)
    np.testing.assert_array_equal([order.batch(max(first, 0) + step) for step in range(3)], expected)


def made(tmp_path) -> tuple[data.Records, np.ndarray, np.ndarray]:
    """A TFDS data set whose images have no fixed size, and its contents."""
    images = np.random.default_rng(0).integers(0, 256, (30, 6, 6, 3), np.uint8)
    labels = np.arange(30) % 3
    parts = {"train": (images, labels.tolist())}
    write_tfds_set(tmp_path, "made", parts, class_names=["ant", "bee", "cat"], shape=(None, None, 3))
    return data.open_set("made", "train", data_dir=tmp_path, image_shape=(6, 6, 3)), images, labels


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_from_any_step_are_those_of_a_set_in_memory(tmp_path, workers):
    records, images, labels = made(tmp_path)
    assert isinstance(records, data.Records)
    indices = np.asarray(batch_indices(KEY, 3, 9, num_examples=30, batch_size=8))
    stream = Stream(records, workers=workers)
    batches = list(sent_ahead(stream.training_batches(KEY, batch_size=8, first_step=3, last_step=12)))
    assert len(batches) == 9
    for batch, rows in zip(batches, indices, strict=True):
        np.testing.assert_array_equal(batch["index"], rows)
        np.testing.assert_array_equal(batch["image"], images[rows])
        np.testing.assert_array_equal(batch["label"], labels[rows])


def test_two_processes_of_a_run_read_half_a_batch_each(tmp_path):
    records, images, _ = made(tmp_path)
    whole = batch_indices(KEY, 0, 1, num_examples=30, batch_size=8)[0]
    halves = [
        next(Stream(records, workers=0).training_batches(KEY, batch_size=8, first_step=0, last_step=3, rows=rows))
        for rows in (slice(0, 4), slice(4, 8))
    ]
    np.testing.assert_array_equal(np.concatenate([half["image"] for half in halves]), images[np.asarray(whole)])


def test_evaluation_sees_every_example_once(tmp_path):
    records, images, labels = made(tmp_path)
    batches = list(Stream(records, workers=0).evaluation_batches(8))
    mask = np.concatenate([batch["mask"] for batch in batches]).astype(bool)
    np.testing.assert_array_equal(np.concatenate([batch["image"] for batch in batches])[mask], images)
    np.testing.assert_array_equal(np.concatenate([batch["label"] for batch in batches])[mask], labels)


def test_a_set_of_any_size_reads_into_memory_and_is_resized(tmp_path):
    records, images, labels = made(tmp_path)
    found = data.load("made", "train[:10]", data_dir=tmp_path, image_shape=(6, 6, 3))
    np.testing.assert_array_equal(found.images, images[:10])
    np.testing.assert_array_equal(found.labels, labels[:10])
    smaller = data.open_set("made", "train", data_dir=tmp_path, image_shape=(3, 3, 1))
    assert smaller.take([4, 5])["image"].shape == (2, 3, 3, 1)
    assert smaller.fingerprint() != records.fingerprint()


def test_an_error_in_a_worker_arrives_as_its_line(tmp_path):
    class_folder = tmp_path / "set" / "ant"
    class_folder.mkdir(parents=True)
    from PIL import Image

    for number in range(4):
        Image.new("RGB", (8, 8)).save(class_folder / f"{number}.png")
    records = data.open_set(f"folder:{tmp_path / 'set'}", "all", image_shape=(8, 8, 3))
    (class_folder / "1.png").unlink()
    batches = Stream(records, workers=1).training_batches(KEY, batch_size=4, first_step=0, last_step=9)
    with pytest.raises(UsageError, match=r"1\.png: cannot be read any more: No such file"):
        next(batches)


def test_loading_is_chosen_by_size():
    assert data.choose_loading("auto", 10**6) == "memory"
    assert data.choose_loading("auto", 10**16) == "stream"
    assert data.choose_loading("memory", 10**16) == "memory"
    with pytest.raises(UsageError, match="loading='steam' is unknown"):
        data.choose_loading("steam", 1)
    with pytest.raises(UsageError, match="workers=-2 must be"):
        Stream(data.as_records(data.load("digits", "test")), workers=-2)
