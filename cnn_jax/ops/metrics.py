"""Metrics of classification: top-k, confusion matrix, precision, recall, F1, and calibration.

They are pure functions that also compile. The counts of several batches can be added, so that a metric of a whole set
is exact. A label of ``ignore_label`` (-1 by default) is not counted, nor is the padding of a last batch, if its labels
are set to that: ``jnp.where(mask, labels, -1)``. Any other label out of range is an error that names it; in a compiled
program, where no value can be looked at, it is a wrong answer for :func:`in_top_k` and :func:`calibration_bins`, has no
row in :func:`confusion_matrix`, and makes the losses infinite.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, as_array, concrete, integer
from cnn_jax.ops.labels import IGNORED, Labels, check_integers, read_labels, read_outputs
from cnn_jax.ops.primitives import one_program


class ClassScores(NamedTuple):
    """Scores of each class, or their averages.

    Attributes:
      precision: The fraction of the examples predicted as the class that belong to it.
      recall: The fraction of the examples of the class that are predicted as it.
      f1: The harmonic mean of both.
      support: The number of examples that have the class.
    """

    precision: Float[Array, "..."]
    recall: Float[Array, "..."]
    f1: Float[Array, "..."]
    support: Shaped[Array, "..."]


class ClassCounts(NamedTuple):
    """How often each class is right, predicted and true. Those of several batches may be added up.

    They are the diagonal, the column sums and the row sums of a confusion matrix. Examples that have several classes at
    once have no confusion matrix, but they have these counts.

    Attributes:
      hits: The number of examples of the class that are predicted as it, ``(K,)``.
      predicted: The number of examples that are predicted as the class, ``(K,)``.
      support: The number of examples that have the class, ``(K,)``.
    """

    hits: Shaped[AnyArray, " classes"]
    predicted: Shaped[AnyArray, " classes"]
    support: Shaped[AnyArray, " classes"]


class CalibrationBins(NamedTuple):
    """Examples sorted by confidence into bins of equal width, from 0 to 1. Those of several batches may be added up.

    Attributes:
      total: The number of examples in each bin.
      confidence: The sum of their confidences, so that ``confidence / total`` is the mean.
      correct: The number of them that are classified correctly, so that ``correct / total`` is the accuracy.
    """

    total: Int[Array, " bins"]
    confidence: Float[Array, " bins"]
    correct: Int[Array, " bins"]


def in_top_k(
    outputs: Shaped[AnyArray, "*batch classes"],
    labels: Shaped[AnyArray, "..."],
    *,
    k: int = 1,
    ignore_label: int = IGNORED,
) -> Bool[Array, "..."]:
    """Whether the right class is among the k greatest outputs, per example; its mean is the top-k accuracy.

    Args:
      outputs: ``(*batch, K)``: logits or probabilities. Of equal outputs the first is taken as the greater one, as
        ``jnp.argmax`` and ``jax.lax.top_k`` do; NaN is greater than any number, and never right.
      labels: Integers ``(*batch)`` in ``0..K-1``.
      k: From 1 to K.
      ignore_label: The label for which the answer is False. Divide by the number of the others,
        ``(labels != ignore_label).sum()``.

    Returns:
      Booleans ``(*batch)``.

    Raises:
      UsageError: Labels of a wrong shape, ``k`` outside 1 to K, a label out of range whose value is known.

    >>> in_top_k(jnp.array([[0.1, 0.6, 0.3]] * 3), jnp.array([1, 2, -1]), k=2)
    Array([ True,  True, False], dtype=bool)
    """
    op = "in_top_k"
    outputs, (classes, known, _) = _outputs_and_labels(op, "outputs", outputs, labels, ignore_label)
    k, num_classes = integer(op, "k", k), outputs.shape[-1]
    if not 1 <= k <= num_classes:
        raise UsageError(f"{op}: k={k} must be from 1 to the number of classes, {num_classes}")
    own = jnp.take_along_axis(outputs, jnp.maximum(classes, 0)[..., None], axis=-1)
    places = jax.lax.broadcasted_iota(jnp.int32, outputs.shape, outputs.ndim - 1)
    ahead = ~(outputs <= own) | ((outputs == own) & (places < classes[..., None]))
    return known & (ahead.sum(axis=-1) < k)


def confusion_matrix(
    labels: Shaped[AnyArray, "..."],
    predicted: Shaped[AnyArray, "..."],
    *,
    num_classes: int,
    ignore_label: int = IGNORED,
) -> Int[Array, "classes classes"]:
    """How often each class was taken for each other.

    Args:
      labels: Integers of any shape in ``0..K-1``: the right classes.
      predicted: Integers of the same shape, such as ``outputs.argmax(axis=-1)``.
      num_classes: K.
      ignore_label: The label that is not counted.

    Returns:
      ``(K, K)``, int32: of each right class (rows) how many examples were given each class (columns), as in
      scikit-learn.

    Raises:
      UsageError: Arrays of different shapes or not of integers, a class out of range whose value is known.

    >>> confusion_matrix(jnp.array([0, 0, 1, -1]), jnp.array([0, 1, 1, 1]), num_classes=2)
    Array([[1, 1],
           [0, 1]], dtype=int32)
    """
    op = "confusion_matrix"
    num_classes = integer(op, "num_classes", num_classes)
    check_integers(op, "labels", labels)
    check_integers(op, "predicted", predicted)
    if labels.shape != predicted.shape:
        raise UsageError(f"{op}: labels of shape {labels.shape} do not go with predicted of shape {predicted.shape}")
    rows, known, _ = read_labels(op, labels, num_classes, ignore_label)
    columns, given, _ = read_labels(op, predicted, num_classes, None, name="predicted class")
    places = jnp.where(known & given, rows * num_classes + columns, num_classes**2)
    counts = jnp.zeros(num_classes**2, jnp.int32).at[places].add(1, mode="drop")
    return counts.reshape(num_classes, num_classes)


def precision_recall_f1(confusion: Shaped[AnyArray, "..."] | ClassCounts) -> ClassScores:
    """Precision, recall, F1 and number of examples of each class.

    Args:
      confusion: ``(K, K)`` of :func:`confusion_matrix`; or counts, whole numbers or fractions of all examples.

    Returns:
      ``precision``, ``recall``, ``f1`` of shape ``(K,)``, float32, and ``support``, as it is counted. As in
      scikit-learn, a score whose denominator is 0 is 0, as the recall of a class without examples.

    Raises:
      UsageError: A matrix that is not square.

    >>> precision_recall_f1(jnp.array([[3, 1], [0, 4]])).recall
    Array([0.75, 1.  ], dtype=float32)
    """
    return _class_scores(_checked("precision_recall_f1", confusion))


def macro_average(confusion: Shaped[AnyArray, "..."] | ClassCounts) -> ClassScores:
    """The unweighted means of the classes' precision, recall and F1, in which rare classes count as much as others.

    Args:
      confusion: As for :func:`precision_recall_f1`.

    Returns:
      ``precision``, ``recall``, ``f1`` and the total ``support``, scalars. As in scikit-learn the means are those of
      the classes that occur among the labels or the predictions.

    Raises:
      UsageError: A matrix that is not square.

    >>> macro_average(jnp.array([[3, 1], [0, 4]])).recall
    Array(0.875, dtype=float32)
    """
    return _averages(_checked("macro_average", confusion))


def calibration_bins(
    probabilities: Shaped[AnyArray, "*batch classes"],
    labels: Shaped[AnyArray, "..."],
    *,
    bins: int = 15,
    ignore_label: int = IGNORED,
) -> CalibrationBins:
    """Confidence and accuracy in bins of equal confidence: what a reliability diagram shows.

    The confidence is the probability of the most probable class. The bins are ``(0, 1/bins]``, ``(1/bins, 2/bins]``
    and so on.

    Args:
      probabilities: ``(*batch, K)``, the softmax of the logits; half precision is computed in float32.
      labels: Integers ``(*batch)`` in ``0..K-1``.
      bins: Their number.
      ignore_label: The label that is not counted.

    Returns:
      ``total``, ``confidence`` and ``correct`` of each bin, sums of shape ``(bins,)``. Add those of several batches,
      and see :func:`expected_calibration_error`.

    Raises:
      UsageError: Labels of a wrong shape; values outside [0, 1] and labels out of range, where they are known.

    References:
      Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, 2017.

    >>> calibration_bins(jnp.array([[0.3, 0.7], [0.9, 0.1]]), jnp.array([0, 0]), bins=2).correct
    Array([0, 1], dtype=int32)
    """
    op = "calibration_bins"
    bins = integer(op, "bins", bins, least=1)
    values = concrete(probabilities)
    if values is not None and not ((values >= 0) & (values <= 1.001)).all():
        raise UsageError(f"{op}: probabilities must be from 0 to 1; give jax.nn.softmax(logits)")
    probabilities, (classes, known, ignored) = _outputs_and_labels(
        op, "probabilities", probabilities, labels, ignore_label
    )
    return _sorted_into_bins(probabilities, classes, known, ignored, bins=bins)


def expected_calibration_error(bins: CalibrationBins) -> Float[Array, ""]:
    """The mean distance between confidence and accuracy of the bins, weighted by their numbers of examples.

    Args:
      bins: Of :func:`calibration_bins`.

    Returns:
      A scalar from 0 to 1; 0 where nothing was counted.

    References:
      Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, 2015.

    >>> expected_calibration_error(calibration_bins(jnp.array([[0.25, 0.75], [0.0, 1.0]]), jnp.array([0, 1])))
    Array(0.375, dtype=float32)
    """
    return _calibration_error(bins)


def _ratio(numerator: Any, denominator: Any) -> Array:
    """The quotient in float32; 0 where the denominator is 0."""
    quotient = numerator.astype(jnp.float32) / jnp.where(denominator > 0, denominator, 1).astype(jnp.float32)
    return jnp.where(denominator > 0, quotient, 0)


def _checked(op: str, confusion: AnyArray | ClassCounts) -> Array | ClassCounts:
    if isinstance(confusion, ClassCounts):
        return ClassCounts(*(as_array(op, "confusion", counts) for counts in confusion))
    matrix = as_array(op, "confusion", confusion)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise UsageError(f"{op}: confusion of shape {matrix.shape} must be (classes, classes)")
    return matrix


def _counts(confusion: Array | ClassCounts) -> ClassCounts:
    if isinstance(confusion, ClassCounts):
        return confusion
    return ClassCounts(jnp.diagonal(confusion), confusion.sum(axis=0), confusion.sum(axis=1))


@one_program()
def _class_scores(confusion: Array | ClassCounts) -> ClassScores:
    hits, given, support = _counts(confusion)
    f1 = _ratio(2 * hits, support + given)
    return ClassScores(_ratio(hits, given), _ratio(hits, support), f1, jnp.asarray(support))


@one_program()
def _averages(confusion: Array | ClassCounts) -> ClassScores:
    counts = _counts(confusion)
    occurring = counts.support + counts.predicted > 0
    precision, recall, f1, support = _class_scores(counts)
    classes = occurring.sum()  # the others have scores of 0
    precision, recall, f1 = (_ratio(scores.sum(), classes) for scores in (precision, recall, f1))
    return ClassScores(precision, recall, f1, support.sum())


@one_program("bins")
def _sorted_into_bins(
    probabilities: Array, classes: Array, known: Array, ignored: Array, *, bins: int
) -> CalibrationBins:
    confidences = probabilities.max(axis=-1).reshape(-1, 1)
    correct = (known & (probabilities.argmax(axis=-1) == classes)).reshape(-1, 1)
    edges = jnp.asarray(np.linspace(0, 1, bins + 1)[None, 1:-1], confidences.dtype)
    index = (confidences > edges).sum(axis=-1, keepdims=True, dtype=jnp.int32)
    members = (index == jnp.arange(bins, dtype=jnp.int32)[None]) & ~ignored.reshape(-1, 1)
    return CalibrationBins(
        members.sum(axis=0, dtype=jnp.int32),
        jnp.where(members, confidences, 0).sum(axis=0),
        (members & correct).sum(axis=0, dtype=jnp.int32),
    )


@one_program()
def _calibration_error(bins: CalibrationBins) -> Array:
    distances = jnp.abs(bins.confidence - bins.correct.astype(bins.confidence.dtype))
    return _ratio(distances.sum(), bins.total.sum())


def _outputs_and_labels(
    op: str, name: str, outputs: AnyArray, labels: AnyArray, ignore_label: int
) -> tuple[Array, Labels]:
    outputs = read_outputs(op, name, outputs)
    check_integers(op, "labels", labels)
    if labels.shape != outputs.shape[:-1]:
        raise UsageError(
            f"{op}: labels of shape {labels.shape} do not go with {name} of shape {outputs.shape}; "
            f"give integers of shape {outputs.shape[:-1]}"
        )
    return outputs, read_labels(op, labels, outputs.shape[-1], ignore_label)
