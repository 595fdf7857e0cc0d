"""Boxes: intersection over union, its generalised form as a loss, and non-maximum suppression.

A box is two corners, ``(top, left, bottom, right)`` or ``(x0, y0, x1, y1)``: the order of the axes makes no difference.
Boxes are continuous, so one from 0 to 1 is one pixel wide.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, Number


def box_area(boxes: Shaped[AnyArray, "*n 4"]) -> Float[Array, "*n"]:
    """The areas of boxes; 0 where the corners are in the wrong order.

    Args:
      boxes: Two corners each, (..., 4).

    Returns:
      (...).

    >>> box_area(jnp.array([[0.0, 0.0, 2.0, 3.0], [1.0, 1.0, 1.0, 5.0]])).tolist()
    [6.0, 0.0]
    """
    boxes = _floats("box_area", "boxes", boxes)
    return jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0).prod(axis=-1)


def box_iou(boxes: Shaped[AnyArray, "..."], others: Shaped[AnyArray, "..."]) -> Float[Array, "..."]:
    """The intersection over union of boxes, one by one; 0 where both are empty.

    Args:
      boxes: Two corners each, (..., 4).
      others: Of a shape that broadcasts with it; ``boxes[:, None]`` and ``others[None]`` give every pair.

    Returns:
      From 0 to 1, of the shape that both broadcast to, without the last axis.

    Raises:
      UsageError: The last axis is not 4.

    >>> box_iou(jnp.array([0.0, 0.0, 2.0, 2.0]), jnp.array([[0.0, 0.0, 2.0, 1.0], [5.0, 5.0, 6.0, 6.0]])).tolist()
    [0.5, 0.0]
    """
    one, other = (_floats("box_iou", name, each) for name, each in (("boxes", boxes), ("others", others)))
    return _parts(one, other)[0]


def generalized_box_iou(boxes: Shaped[AnyArray, "..."], others: Shaped[AnyArray, "..."]) -> Float[Array, "..."]:
    """IoU minus the share of the smallest box around both that neither covers: from -1 to 1, 1 for equal boxes.

    Unlike the IoU it has a gradient where boxes do not overlap. As a loss, take one minus it.

    Args:
      boxes: Two corners each, (..., 4).
      others: Of a shape that broadcasts with it.

    Returns:
      Of the shape that both broadcast to, without the last axis.

    Raises:
      UsageError: The last axis is not 4.

    References:
      Rezatofighi et al., "Generalized intersection over union", CVPR 2019.

    >>> one, other = jnp.array([0.0, 0.0, 1.0, 1.0]), jnp.array([0.0, 3.0, 1.0, 4.0])
    >>> float(generalized_box_iou(one, other)), float(generalized_box_iou(one, one))
    (-0.5, 1.0)
    """
    op = "generalized_box_iou"
    one, other = (_floats(op, name, each) for name, each in (("boxes", boxes), ("others", others)))
    iou, union = _parts(one, other)
    around = jnp.maximum(one[..., 2:], other[..., 2:]) - jnp.minimum(one[..., :2], other[..., :2])
    whole = jnp.maximum(around, 0).prod(axis=-1)
    return iou - jnp.where(whole > 0, (whole - union) / jnp.where(whole > 0, whole, 1), 0)


def non_maximum_suppression(
    boxes: Shaped[AnyArray, "..."],
    scores: Shaped[AnyArray, "..."],
    *,
    threshold: Number = 0.5,
    classes: Shaped[AnyArray, "..."] | None = None,
) -> Bool[Array, "..."]:
    """Which boxes are left when each one suppresses those of lower scores that overlap it by more than a threshold.

    An IoU that equals the threshold does not suppress. Of equal scores the earlier box is first. A box that is
    suppressed suppresses no other.

    Args:
      boxes: Two corners each, (..., n, 4).
      scores: (..., n). A box whose score is minus infinity is not left and suppresses none, such as padding.
      threshold: Of the IoU.
      classes: Class numbers, (..., n): only boxes of one class suppress each other. None for one class.

    Returns:
      True for the boxes that are left, (..., n), in the order in which they are given.

    Raises:
      UsageError: The shapes do not fit each other.

    >>> boxes = jnp.array([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0], [0.0, 5.0, 10.0, 15.0]])
    >>> non_maximum_suppression(boxes, jnp.array([0.8, 0.9, 0.7])).tolist()
    [False, True, True]
    """
    op = "non_maximum_suppression"
    boxes, scores = _floats(op, "boxes", boxes), jnp.asarray(scores)
    numbers = jnp.zeros(scores.shape, jnp.int32) if classes is None else jnp.asarray(classes)
    if not scores.size and boxes.shape[:-1] == scores.shape == numbers.shape:
        return jnp.zeros(scores.shape, bool)
    if boxes.shape[:-1] != scores.shape or numbers.shape != scores.shape or not scores.ndim:
        raise UsageError(
            f"{op}: boxes of shape {boxes.shape} do not go with scores of {scores.shape} and classes of {numbers.shape}"
        )

    return _left(boxes, scores, numbers, threshold)


@jax.jit  # outside of jit, the loop would be compiled again at each call
def _left(boxes: Array, scores: Array, numbers: Array, threshold: Number) -> Array:
    """Which boxes are left, for any number of leading axes."""

    def one(boxes: Array, scores: Array, numbers: Array) -> Array:
        order = jnp.argsort(-scores, stable=True)
        boxes, numbers = boxes[order], numbers[order]
        rivals = (_parts(boxes[:, None], boxes[None])[0] > threshold) & (numbers[:, None] == numbers[None])
        later = jnp.arange(len(scores))

        def suppress(place: Array, left: Array) -> Array:
            return left & ~(left[place] & rivals[place] & (later > place))

        left = jax.lax.fori_loop(0, len(scores), suppress, scores[order] > -jnp.inf)
        return jnp.zeros(len(scores), bool).at[order].set(left)

    function = one
    for _ in scores.shape[:-1]:
        function = jax.vmap(function)
    return function(boxes, scores, numbers)


def _parts(one: Array, other: Array) -> tuple[Array, Array]:
    """IoU and union of boxes."""
    sides = jnp.minimum(one[..., 2:], other[..., 2:]) - jnp.maximum(one[..., :2], other[..., :2])
    shared = jnp.maximum(sides, 0).prod(axis=-1)
    areas = (jnp.maximum(each[..., 2:] - each[..., :2], 0).prod(axis=-1) for each in (one, other))
    union = sum(areas) - shared
    return jnp.where(union > 0, shared / jnp.where(union > 0, union, 1), 0), union


def _floats(op: str, name: str, boxes: Shaped[AnyArray, "..."]) -> Array:
    array = jnp.asarray(boxes)
    if not array.ndim or array.shape[-1] != 4:
        raise UsageError(f"{op}: {name} of shape {array.shape} are not boxes, whose last axis is 4")
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.float32)
