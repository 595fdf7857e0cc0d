"""IoU, Dice and the soft Dice loss against loops over pixels, and the published example of their conventions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
from cnn_jax.errors import UsageError

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 3, (4, 5, 6)).astype(np.uint8)
LABELS[0, :2] = 255
LABELS[3] = np.where(LABELS[3] == 2, 0, LABELS[3])  # class 2 is not there
LOGITS = GENERATOR.standard_normal((4, 5, 6, 3)).astype(np.float32)
LOGITS[3, ..., 2] = -50  # and is not predicted


def looped(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Hits, predicted and true pixels of each class, (batch, 3, classes)."""
    counts = np.zeros((len(labels), 3, 3))
    for number, (true, given) in enumerate(zip(labels, predicted, strict=True)):
        for one, other in zip(true.ravel(), given.ravel(), strict=True):
            if one != 255:
                counts[number, 0, one] += one == other
                counts[number, 1, other] += 1
                counts[number, 2, one] += 1
    return counts


def test_counts_and_overlaps_are_those_of_a_loop() -> None:
    predicted = LOGITS.argmax(axis=-1)
    counts = jax.jit(lambda a, b: ops.class_counts(a, b, num_classes=3, ignore_label=255))(LABELS, predicted)
    expected = looped(LABELS, predicted)
    np.testing.assert_array_equal(np.stack(counts, axis=1), expected)
    hits, given, there = np.moveaxis(expected, 1, 0)
    for empty in (np.nan, 0.0, 1.0):
        iou, dice = ops.overlaps(counts, empty=empty)
        with np.errstate(invalid="ignore"):
            whole = given + there
            np.testing.assert_allclose(iou, np.where(whole, hits / (whole - hits), empty), rtol=1e-6)
            np.testing.assert_allclose(dice, np.where(whole, 2 * hits / whole, empty), rtol=1e-6)


def test_per_image_and_over_the_set_differ() -> None:
    """Image 1: 100 of 100 pixels right; image 2: one pixel missed, none predicted."""
    labels, predicted = np.zeros((2, 1, 100), np.int32), np.zeros((2, 1, 100), np.int32)
    labels[0] = predicted[0] = 1
    labels[1, 0, 0] = 1
    counts = ops.class_counts(labels, predicted, num_classes=2)
    each = ops.overlaps(counts, empty=float("nan"))
    assert each.iou[:, 1].mean() == each.dice[:, 1].mean() == 0.5
    whole = ops.overlaps(ops.ClassCounts(*(part.sum(axis=0) for part in counts)), empty=float("nan"))
    assert float(whole.dice[1]) == pytest.approx(200 / 201)
    assert float(whole.iou[1]) == pytest.approx(100 / 101)


def test_the_soft_dice_loss_is_its_definition() -> None:
    shares = np.exp(LOGITS.astype(np.float64))
    shares /= shares.sum(axis=-1, keepdims=True)
    expected = np.zeros((4, 3))
    for number in range(4):
        for kind in range(3):
            both = total = 0.0
            for pixel in np.ndindex(5, 6):
                if LABELS[number][pixel] != 255:
                    there = float(LABELS[number][pixel] == kind)
                    both += shares[number][pixel][kind] * there
                    total += shares[number][pixel][kind] + there
            expected[number, kind] = 1 - (2 * both + 0.5) / (total + 0.5)
    options = {"smooth": 0.5, "ignore_label": 255}
    found = jax.jit(lambda logits: ops.soft_dice_loss(logits, LABELS, **options))(LOGITS)
    np.testing.assert_allclose(found, expected.mean(axis=1), rtol=1e-5)
    weighted = ops.soft_dice_loss(LOGITS, LABELS, class_weights=(1.0, 3.0, 0.0), **options)
    np.testing.assert_allclose(weighted, expected @ [0.25, 0.75, 0], rtol=1e-5)


def test_ignored_pixels_have_no_gradient_and_wrong_labels_an_infinite_loss() -> None:
    logits = LOGITS.copy()
    logits[0, 0, 0] = np.nan  # of a pixel that is ignored
    gradient = jax.grad(lambda logits: ops.soft_dice_loss(logits, LABELS, ignore_label=255).sum())(jnp.asarray(logits))
    assert not np.asarray(gradient)[0, :2].any()
    assert np.isfinite(gradient).all()
    wrong = jax.jit(lambda labels: ops.soft_dice_loss(LOGITS, labels, ignore_label=255))(LABELS + (LABELS == 1) * 8)
    assert np.isinf(wrong).all()


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda: ops.soft_dice_loss(LOGITS, LABELS), "label 255 is none of the 3 classes"),
        (lambda: ops.soft_dice_loss(LOGITS, LABELS[:, :2], ignore_label=255), "do not go with logits"),
        (lambda: ops.soft_dice_loss(LOGITS, LABELS, smooth=0, ignore_label=255), "smooth=0 must be above 0"),
        (lambda: ops.class_counts(LABELS, LABELS[:2], num_classes=3, ignore_label=255), "do not go with predicted"),
        (lambda: ops.class_counts(LABELS / 2, LABELS, num_classes=3), "must be integers"),
    ],
)
def test_arguments_that_do_not_fit_are_named(call, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert part in str(caught.value)
