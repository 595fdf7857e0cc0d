"""Class maps: how often each class is right in each image, IoU and Dice from these counts, and the soft Dice loss.

Whether IoU and Dice are those of each image, averaged, or those of a whole set, is up to the caller: of counts that are
added up they are those of the set. What a class counts that is neither there nor predicted is an option without a usual
value, because all of 0, 1 and "not at all" are in use.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, Number, check_number, integer
from cnn_jax.ops.labels import IGNORED, check_integers, read_labels, read_outputs
from cnn_jax.ops.losses import ClassWeights
from cnn_jax.ops.metrics import ClassCounts


class Overlaps(NamedTuple):
    """How far the predicted part and the true part of each class overlap.

    Attributes:
      iou: Intersection over union, ``(..., K)``; also called the Jaccard index.
      dice: Twice the intersection over the sum of both, ``(..., K)``; the same as F1 of pixels.
    """

    iou: Float[Array, "... classes"]
    dice: Float[Array, "... classes"]


def class_counts(
    labels: Shaped[AnyArray, "..."],
    predicted: Shaped[AnyArray, "..."],
    *,
    num_classes: int,
    ignore_label: int = IGNORED,
) -> ClassCounts:
    """The number of pixels of each class in each image: those that are right, predicted, and there.

    Args:
      labels: Integers ``(batch, *space)`` in ``0..K-1``.
      predicted: Integers of the same shape, such as ``logits.argmax(axis=-1)``.
      num_classes: K.
      ignore_label: The label of pixels that are not counted, whatever is predicted for them.

    Returns:
      Three arrays ``(batch, K)``, float32.

    Raises:
      UsageError: Arrays of different shapes or not of integers, a label out of range whose value is known.

    >>> counts = class_counts(jnp.array([[0, 1, 1, 255]]), jnp.array([[0, 0, 1, 1]]), num_classes=2, ignore_label=255)
    >>> counts.hits, counts.predicted, counts.support
    (Array([[1., 1.]], dtype=float32), Array([[2., 1.]], dtype=float32), Array([[1., 2.]], dtype=float32))
    """
    op = "class_counts"
    num_classes = integer(op, "num_classes", num_classes, least=1)
    check_integers(op, "labels", labels)
    check_integers(op, "predicted", predicted)
    if labels.shape != predicted.shape or not labels.ndim:
        raise UsageError(f"{op}: labels of shape {labels.shape} do not go with predicted of shape {predicted.shape}")
    classes, known, _ = read_labels(op, labels, num_classes, ignore_label)
    flat = (labels.shape[0], math.prod(labels.shape[1:]))
    classes = jnp.where(known, classes, -1).reshape(flat)
    given = jnp.where(known, jnp.asarray(predicted).astype(jnp.int32), -1).reshape(flat)
    there = [classes == number for number in range(num_classes)]
    chosen = [given == number for number in range(num_classes)]

    def counted(masks: list[Array]) -> Array:
        return jnp.stack([mask.sum(axis=1, dtype=jnp.float32) for mask in masks], axis=1)

    both = [one & other for one, other in zip(there, chosen, strict=True)]
    return ClassCounts(counted(both), counted(chosen), counted(there))


def overlaps(counts: ClassCounts, *, empty: float) -> Overlaps:
    """IoU and Dice of each class.

    Args:
      counts: Of :func:`class_counts`, of one image, of several, or of a whole set if they were added up.
      empty: The value of a class that is neither there nor predicted: NaN to leave it out of means that ignore NaN, 1
        for a right prediction, or 0.

    Returns:
      ``iou`` and ``dice``, each with the shape of the counts.

    >>> counts = ClassCounts(jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0]), jnp.array([2.0, 0.0]))
    >>> overlaps(counts, empty=1.0)
    Overlaps(iou=Array([0.33333334, 1.        ], dtype=float32), dice=Array([0.5, 1. ], dtype=float32))
    """
    hits, predicted, support = (jnp.asarray(part, jnp.float32) for part in counts)
    total = predicted + support
    occurs = total > 0

    def ratio(part: Array, whole: Array) -> Array:
        return jnp.where(occurs, part / jnp.where(occurs, whole, 1), empty)

    return Overlaps(ratio(hits, total - hits), ratio(2 * hits, total))


def soft_dice_loss(
    logits: Shaped[AnyArray, "*batch_and_space classes"],
    labels: Shaped[AnyArray, "..."],
    *,
    smooth: Number = 1.0,
    class_weights: ClassWeights | None = None,
    ignore_label: int = IGNORED,
) -> Float[Array, " batch"]:
    """One minus Dice of the softmax probabilities instead of a prediction, per image, as a mean over the classes.

    Of a class with the probabilities p and the labels t, 0 or 1, of the pixels of one image it is
    ``1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)``. Classes have equal weights, whatever their sizes.

    Args:
      logits: ``(batch, *space, K)``; the two half-precision types are computed in float32.
      labels: Integers ``(batch, *space)`` in ``0..K-1``.
      smooth: Above 0. A class that is not there has a loss of 0 if nothing of it is predicted; the larger this number,
        the less do a few pixels count.
      class_weights: ``(K,)``, of the mean over the classes; equal by default.
      ignore_label: The label of pixels that are left out of all sums.

    Returns:
      ``(batch,)``, float32 or float64. In a compiled program that of an image with a label out of range is infinite.

    Raises:
      UsageError: Labels of a wrong shape, ``smooth`` not above 0, a label out of range whose value is known.

    References:
      Milletari, Navab and Ahmadi, V-Net: fully convolutional neural networks for volumetric medical image segmentation,
      2016, which squares p and t in the denominator; Sudre et al., Generalised Dice overlap, 2017, for this form.

    >>> right = jnp.log(jnp.array([[[1.0, 1e-9], [1e-9, 1.0]]]))
    >>> soft_dice_loss(right, jnp.array([[0, 1]])).round(6)
    Array([0.], dtype=float32)
    """
    op = "soft_dice_loss"
    check_number(op, "smooth", smooth, least=0)
    if not isinstance(smooth, jax.core.Tracer) and smooth == 0:
        raise UsageError(f"{op}: smooth=0 must be above 0")
    logits = read_outputs(op, "logits", logits)
    check_integers(op, "labels", labels)
    if labels.shape != logits.shape[:-1] or labels.ndim < 2:
        raise UsageError(
            f"{op}: labels of shape {labels.shape} do not go with logits of shape {logits.shape}; give integers of "
            f"shape {logits.shape[:-1]}"
        )
    classes, known, ignored = read_labels(op, labels, logits.shape[-1], ignore_label)
    counted = known.astype(logits.dtype)[..., None]
    probabilities = jax.nn.softmax(jnp.where(known[..., None], logits, 0)) * counted
    truth = jax.nn.one_hot(classes, logits.shape[-1], dtype=logits.dtype) * counted
    space = tuple(range(1, labels.ndim))
    both, total = (probabilities * truth).sum(axis=space), (probabilities + truth).sum(axis=space)
    losses = 1 - (2 * both + smooth) / (total + smooth)
    weights = jnp.ones(logits.shape[-1], losses.dtype)
    if class_weights is not None:
        weights = jnp.asarray(class_weights).astype(losses.dtype)
    weights = (weights / jnp.maximum(weights.sum(), 1e-12))[None]
    wrong = (~known & ~ignored).any(axis=space)
    return jnp.where(wrong, jnp.inf, (losses * weights).sum(axis=-1))
