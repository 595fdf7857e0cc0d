"""The arguments of a Dataset, and the hash of its contents."""

import hashlib

import numpy as np
import pytest

from cnn_jax.data import Dataset, Records
from cnn_jax.data.records import labelled_images
from cnn_jax.errors import UsageError

FIELDS = {
    "images": np.arange(2 * 3 * 4 * 1, dtype=np.uint8).reshape(2, 3, 4, 1),
    "labels": np.int32([1, 0]),
    "class_names": ("a", "b"),
}


def labelled(name: str = "made", split: str = "train", **changes: object) -> Dataset:
    return Dataset.of_images(name, split, **(FIELDS | changes))


GOOD = labelled()


def test_sizes():
    assert (len(GOOD), GOOD.num_classes, GOOD.image_shape) == (2, 2, (3, 4, 1))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"images": GOOD.images[..., 0]},
            "image: a field of kind 'image' has shape (height, width, channels) per",
        ),
        ({"images": GOOD.images.astype(np.float64)}, "image: a field of kind 'image' is uint8 or float32, not float64"),
        ({"images": GOOD.images[:0], "labels": GOOD.labels[:0]}, "split 'train' has no examples"),
        ({"labels": GOOD.labels[:1]}, "different numbers of examples (image 2, label 1)"),
        ({"labels": GOOD.labels.astype(np.int64)}, "label: a field of kind 'label' is int32, not int64"),
        ({"labels": np.int32([0, 2])}, "label: class numbers from 0 to 2, but 2 class_names"),
        ({"labels": np.int32([0, -1])}, "label: class numbers from -1 to 0"),
    ],
)
def test_invalid_arguments_are_rejected(changes, complaint):
    with pytest.raises(UsageError) as caught:
        labelled(**changes)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fingerprint_is_the_hash_of_shape_classes_and_bytes():
    expected = hashlib.sha256(b"((2, 3, 4, 1), 'uint8', ('a', 'b'))" + bytes(range(24)) + b"\1\0\0\0\0\0\0\0")
    assert GOOD.fingerprint() == expected.hexdigest()[:16]


def test_fingerprint_depends_on_contents_and_not_on_memory_layout():
    other_pixel = GOOD.images.copy()
    other_pixel[1, 2, 3, 0] += 1
    changed = [
        labelled(images=other_pixel),
        labelled(images=GOOD.images.reshape(2, 4, 3, 1)),
        labelled(labels=np.int32([0, 1])),
        labelled(class_names=("a", "c")),
    ]
    assert len({dataset.fingerprint() for dataset in [GOOD, *changed]}) == 5
    strided = labelled(images=np.asfortranarray(GOOD.images), name="other", split="test")
    assert strided.fingerprint() == GOOD.fingerprint()


def test_fingerprint_of_labelled_images_on_disk_is_the_hash_of_their_identity_shape_and_classes():
    spec = labelled_images((3, 4, 1), ("a", "b"))
    records = Records("made", "train", lambda indices: [], 2, spec, identity="files")
    assert records.fingerprint() == hashlib.sha256(b"('files', (3, 4, 1), ('a', 'b'))").hexdigest()[:16]
