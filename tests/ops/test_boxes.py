"""Overlaps of boxes against counted cells of a grid, and suppression against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops
from cnn_jax.errors import UsageError

GENERATOR = np.random.default_rng(0)


def whole_boxes(*shape: int) -> np.ndarray:
    """Boxes with whole numbers from 0 to 12, some of them empty."""
    corners = np.sort(GENERATOR.integers(0, 13, (*shape, 2, 2)), axis=-2)
    return corners.reshape(*shape, 4).astype(np.float32)


def cells(box: np.ndarray) -> np.ndarray:
    grid = np.zeros((12, 12), bool)
    top, left, bottom, right = box.astype(int)
    grid[top:bottom, left:right] = True
    return grid


def test_overlaps_are_those_of_counted_cells() -> None:
    boxes, others = whole_boxes(12), whole_boxes(15)
    iou = ops.box_iou(boxes[:, None], others[None])
    general = ops.generalized_box_iou(boxes[:, None], others[None])
    for row, one in enumerate(boxes):
        assert ops.box_area(one) == cells(one).sum()
        for column, other in enumerate(others):
            union, shared = (cells(one) | cells(other)).sum(), (cells(one) & cells(other)).sum()
            around = np.prod(np.maximum(one[2:], other[2:]) - np.minimum(one[:2], other[:2]))
            expected = shared / union if union else 0
            assert iou[row, column] == pytest.approx(expected)
            assert general[row, column] == pytest.approx(
                expected - ((around - union) / around if around else 0), abs=1e-6
            )


def test_the_gradient_pulls_boxes_together_that_do_not_overlap() -> None:
    one, other = jnp.array([0.0, 0.0, 1.0, 1.0]), jnp.array([0.0, 3.0, 1.0, 4.0])
    assert jax.grad(ops.box_iou)(one, other).tolist() == [0, 0, 0, 0]
    gradient = jax.grad(ops.generalized_box_iou)(one, other)
    assert gradient[3] > 0, "the right side moves to the right"
    empty = jnp.zeros(4)
    assert np.isfinite(jax.grad(ops.generalized_box_iou)(empty, empty)).all()


def looped(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, threshold: float) -> np.ndarray:
    """Non-maximum suppression by a loop over boxes."""
    left: list[int] = []
    for number in np.argsort(-scores, kind="stable"):
        rivals = [other for other in left if classes[other] == classes[number]]
        shared = [(cells(boxes[number]) & cells(boxes[other])).sum() for other in rivals]
        union = [(cells(boxes[number]) | cells(boxes[other])).sum() for other in rivals]
        if not any(one > threshold * two for one, two in zip(shared, union, strict=True)):
            left.append(int(number))
    return np.isin(np.arange(len(boxes)), left)


def test_suppression_is_that_of_a_loop_for_each_image_of_a_batch() -> None:
    boxes, scores = whole_boxes(6, 40), GENERATOR.integers(0, 10, (6, 40)) / 10
    classes = GENERATOR.integers(0, 2, (6, 40))
    for threshold in (0.0, 0.25, 0.5):
        suppress = jax.jit(
            lambda *a, threshold=threshold: ops.non_maximum_suppression(*a[:2], threshold=threshold, classes=a[2])
        )
        expected = [looped(*image, threshold) for image in zip(boxes, scores, classes, strict=True)]
        np.testing.assert_array_equal(suppress(boxes, scores.astype(np.float32), classes), expected)


@jax.jit
def suppressed(boxes: jax.Array, scores: jax.Array, threshold: jax.Array) -> jax.Array:
    return ops.non_maximum_suppression(boxes, scores, threshold=threshold)


@pytest.mark.parametrize(
    ("boxes", "scores", "threshold", "left"),
    [
        ([[0, 0, 1, 2], [0, 0, 1, 1]], [0.5, 0.4], 0.5, [True, True]),  # an IoU of exactly the threshold
        ([[0, 0, 1, 2], [0, 0, 1, 1]], [0.5, 0.4], 0.49, [True, False]),
        ([[0, 0, 4, 4], [0, 0, 4, 4]], [0.5, 0.5], 0.5, [True, False]),  # the earlier of equal scores
        ([[0, 0, 4, 4], [0, 0, 4, 4]], [-np.inf, 0.5], 0.5, [False, True]),  # padding
        ([[0, 0, 4, 4], [0, 2, 4, 6], [0, 4, 4, 8]], [0.9, 0.8, 0.7], 0.3, [True, False, True]),
    ],
)
def test_rules_of_suppression(boxes: list, scores: list, threshold: float, left: list) -> None:
    more = 3 - len(scores)  # padding, so that all cases are one program
    boxes, scores = boxes + more * [[0, 0, 4, 4]], scores + more * [-np.inf]
    found = suppressed(np.array(boxes, np.float32), np.array(scores, np.float32), threshold)
    assert found.tolist() == left + more * [False]


def test_no_boxes_and_wrong_shapes() -> None:
    assert ops.non_maximum_suppression(np.zeros((3, 0, 4)), np.zeros((3, 0))).shape == (3, 0)
    with pytest.raises(UsageError, match="boxes of shape \\(2, 3\\) are not boxes"):
        ops.box_iou(np.zeros((2, 3)), np.zeros(4))
    with pytest.raises(UsageError, match="do not go with scores"):
        ops.non_maximum_suppression(np.zeros((2, 4)), np.zeros(3))
