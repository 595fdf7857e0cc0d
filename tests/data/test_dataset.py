"""What a Dataset accepts, and the hash of its contents."""

import dataclasses
import hashlib

import numpy as np
import pytest

from cnn_jax.data import Dataset
from cnn_jax.errors import UsageError

GOOD = Dataset(
    "made", "train", np.arange(2 * 3 * 4 * 1, dtype=np.uint8).reshape(2, 3, 4, 1), np.int32([1, 0]), ("a", "b")
)


def test_sizes():
    assert (len(GOOD), GOOD.num_classes, GOOD.image_shape) == (2, 2, (3, 4, 1))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"images": GOOD.images[..., 0]}, "shape (2, 3, 4)"),
        ({"images": GOOD.images.astype(np.float64)}, "images are float64"),
        ({"images": GOOD.images[:0], "labels": GOOD.labels[:0]}, "split 'train' has no pictures"),
        ({"labels": GOOD.labels[:1]}, "labels are int32 of shape (1,)"),
        ({"labels": GOOD.labels.astype(np.int64)}, "labels are int64"),
        ({"labels": np.int32([0, 2])}, "labels run from 0 to 2, but 2 class_names"),
        ({"labels": np.int32([0, -1])}, "labels run from -1 to 0"),
    ],
)
def test_what_does_not_fit_is_refused(changes, complaint):
    with pytest.raises(UsageError) as caught:
        dataclasses.replace(GOOD, **changes)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fingerprint_is_the_hash_of_shape_classes_and_bytes():
    expected = hashlib.sha256(b"((2, 3, 4, 1), 'uint8', ('a', 'b'))" + bytes(range(24)) + b"\1\0\0\0\0\0\0\0")
    assert GOOD.fingerprint() == expected.hexdigest()[:16]


def test_fingerprint_sees_contents_and_not_memory_layout():
    other_pixel = GOOD.images.copy()
    other_pixel[1, 2, 3, 0] += 1
    changed = [
        dataclasses.replace(GOOD, images=other_pixel),
        dataclasses.replace(GOOD, images=GOOD.images.reshape(2, 4, 3, 1)),
        dataclasses.replace(GOOD, labels=np.int32([0, 1])),
        dataclasses.replace(GOOD, class_names=("a", "c")),
    ]
    assert len({dataset.fingerprint() for dataset in [GOOD, *changed]}) == 5
    strided = dataclasses.replace(GOOD, images=np.asfortranarray(GOOD.images), name="other", split="test")
    assert strided.fingerprint() == GOOD.fingerprint()
