"""Cutout, mixup, cutmix and test-time views: the changed pixels, their origin, and the mixed labels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from cnn_jax.data import augment
from cnn_jax.errors import UsageError

KEY = jax.random.key(7)
COUNT = 500
LABELS = np.eye(COUNT, dtype=np.float32)  # every example has its own class


def rectangle(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The (top, bottom, left, right) of a mask that is one filled rectangle."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    assert mask[top:bottom, left:right].all()
    assert mask.sum() == (bottom - top) * (right - left)
    return top, bottom, left, right


def test_cutout_hides_a_square_about_any_pixel():
    images = np.full((2000, 5, 6, 2), 0.5, np.float32)
    result = np.asarray(jax.jit(partial(augment.cutout, size=3, fill=(0.0, 1.0)))(KEY, images))
    hidden = result[..., 0] == 0
    np.testing.assert_array_equal(result[..., 1], np.where(hidden, 1, 0.5))
    centres = np.zeros((5, 6))
    for mask in hidden:
        top, bottom, left, right = rectangle(mask)
        row = bottom - 2 if bottom < 5 or bottom - top == 3 else top + 1
        column = right - 2 if right < 6 or right - left == 3 else left + 1
        assert (top, bottom) == (max(row - 1, 0), min(row + 2, 5))
        assert (left, right) == (max(column - 1, 0), min(column + 2, 6))
        centres[row, column] += 1
    assert stats.chisquare(centres.ravel()).pvalue > 1e-3


@pytest.mark.parametrize(("shape", "size"), [((32, 32), 16), ((8, 8), 4), ((12, 7), 3)])
def test_cutout_hides_half_of_the_shorter_side_by_default(shape, size):
    images = np.ones((300, *shape, 1), np.float32)
    hidden = np.asarray(jax.jit(augment.cutout)(KEY, images))[..., 0] == 0
    assert hidden.any(axis=2).sum(axis=1).max() == hidden.any(axis=1).sum(axis=1).max() == size


def test_the_largest_square_that_cutout_takes_leaves_something_of_every_image():
    left = np.asarray(jax.jit(partial(augment.cutout, size=7))(KEY, np.ones((2000, 8, 8, 1), np.float32)))
    assert left.any(axis=(1, 2, 3)).all()


def test_mixup_averages_with_the_next_by_beta_weights():
    images = np.random.default_rng(0).random((COUNT, 3, 3, 1)).astype(np.float32)
    mixed, labels = map(np.asarray, jax.jit(partial(augment.mixup, alpha=0.4))(KEY, images, LABELS))
    weights = np.diag(labels)
    np.testing.assert_allclose(
        labels, weights[:, None] * LABELS + (1 - weights)[:, None] * np.roll(LABELS, -1, 0), atol=1e-6
    )
    expected = weights[:, None, None, None] * images + (1 - weights)[:, None, None, None] * np.roll(images, -1, 0)
    np.testing.assert_allclose(mixed, expected, atol=1e-6)
    assert stats.kstest(weights, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3


def test_cutmix_pastes_a_box_of_the_next_and_counts_its_pixels():
    images = np.broadcast_to(np.arange(COUNT, dtype=np.float32)[:, None, None, None], (COUNT, 16, 12, 1))
    mixed, labels = map(np.asarray, jax.jit(augment.cutmix)(KEY, images, LABELS))
    pasted = mixed[..., 0] == np.roll(images, -1, 0)[..., 0]
    assert (pasted | (mixed[..., 0] == images[..., 0])).all()
    part = pasted.mean(axis=(1, 2))
    np.testing.assert_allclose(labels, (1 - part)[:, None] * LABELS + part[:, None] * np.roll(LABELS, -1, 0), atol=1e-6)
    inner = []
    for mask in pasted[pasted.any(axis=(1, 2))]:
        top, bottom, left, right = rectangle(mask)
        if top > 0 and left > 0 and bottom < 16 and right < 12:  # not clipped: the image's aspect ratio
            inner.append((bottom - top) / (right - left) * 12 / 16)
    assert np.median(inner) == pytest.approx(1, abs=0.1)


def test_cutmix_boxes_have_the_expected_area():
    """Before clipping the area of a box is 1 - weight, uniform for alpha=1; NumPy integrates the clipped area."""
    images = np.zeros((2000, 32, 32, 1), np.float32)
    _, labels = jax.jit(augment.cutmix)(KEY, images, jnp.tile(jnp.eye(2), (1000, 1)))
    own = np.where(np.arange(2000) % 2 == 0, labels[:, 0], labels[:, 1])
    random = np.random.default_rng(0)
    side, (y, x) = np.sqrt(random.random(200_000)), random.random((2, 200_000))
    lengths = [np.clip(c + side / 2, 0, 1) - np.clip(c - side / 2, 0, 1) for c in (y, x)]
    assert stats.ks_2samp(1 - own, lengths[0] * lengths[1]).statistic < 0.05


def test_ten_crop_takes_corners_and_centre_and_their_mirror_images():
    images = np.random.default_rng(0).random((2, 9, 8, 3)).astype(np.float32)
    views = np.asarray(augment.ten_crop(jnp.asarray(images), size=(5, 6)))
    places = [(0, 0), (0, 2), (4, 0), (4, 2), (2, 1)]
    crops = np.stack([images[:, top : top + 5, left : left + 6] for top, left in places])
    np.testing.assert_array_equal(views, np.concatenate([crops, crops[:, :, :, ::-1]]))


def test_average_logits_is_the_mean_of_the_probabilities():
    logits = np.random.default_rng(0).normal(size=(10, 3, 7)).astype(np.float32) * 5
    mean = special.softmax(logits.astype(float), axis=-1).mean(axis=0)
    np.testing.assert_allclose(np.exp(augment.average_logits(jnp.asarray(logits))), mean, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda x: augment.cutout(KEY, x, size=0), "size=0 must be a whole number from 1 to 7"),
        (lambda x: augment.cutout(KEY, x, size=16), "from 1 to 7 for images of 8x8; a larger square hides all of some"),
        (lambda x: augment.cutout(KEY, x, fill=(0.0, 1.0)), "one number, or one for each of 3 channels"),
        (lambda x: augment.mixup(KEY, x, jnp.zeros(2, int)), "labels are int32 of shape (2,); give distributions"),
        (lambda x: augment.cutmix(KEY, x, jnp.eye(2), alpha=0), "cutmix: alpha=0 must be a number at least 0.001"),
        (lambda x: augment.ten_crop(x, size=(8, 8)), "crops of 8x8 need larger images than 8x8"),
        (lambda x: augment.ten_crop(x, size=(9, 3)), "crops of 9x3 need larger images than 8x8"),
    ],
)
def test_errors(call, complaint):
    with pytest.raises(UsageError) as caught:
        call(jnp.zeros((2, 8, 8, 3)))
    assert complaint in str(caught.value)
