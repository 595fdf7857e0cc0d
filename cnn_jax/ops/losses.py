"""Losses of classification: softmax and sigmoid cross-entropy, focal losses, squared error, and class weights.

Every function returns one number for each example, or for each class where classes are independent; the mean is the
caller's.

Class labels follow one rule. A label of ``ignore_label`` (-1 by default; PyTorch's ``ignore_index`` is -100, Optax has
no such label) has a loss of exactly 0, and its logits a gradient of exactly 0 even if they are infinite or NaN. Any
other label that is not one of the K classes is an error that names it. In a compiled program, where no value can be
looked at, its loss is infinite, the cross-entropy of a class without probability, and its gradient 0: never NaN, and
never a 0 that goes unnoticed. PyTorch raises an error on a CPU; Optax takes -1 as the last class and returns NaN for K.

The mean over the examples that are not ignored, as PyTorch forms it::

  losses.sum() / jnp.maximum((labels != -1).sum(), 1)

Labels that are distributions have no value that is ignored.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import (
    AnyArray,
    Number,
    as_array,
    check_number,
    concrete,
    integer,
    is_traced,
    may_differ_from_zero,
)
from cnn_jax.ops.labels import IGNORED, check_integers, read_labels, read_outputs, read_shares

ClassWeights = Sequence[int | float] | Shaped[AnyArray, "..."]  # (K,)


def softmax_cross_entropy(
    logits: Shaped[AnyArray, "*batch classes"],
    labels: Shaped[AnyArray, "..."],
    *,
    label_smoothing: Number = 0.0,
    class_weights: ClassWeights | None = None,
    ignore_label: int = IGNORED,
) -> Shaped[Array, "*batch"]:
    """Cross-entropy between the labels and the softmax of the logits, in nats, per example.

    Args:
      logits: ``(*batch, K)``; the two half-precision types are computed in float32.
      labels: Integers ``(*batch)`` in ``0..K-1``, or distributions ``(*batch, K)`` that sum to 1.
      label_smoothing: The part of every label's probability that is shared equally among all K classes, in [0, 1).
      class_weights: ``(K,)``; the term of each class is multiplied by its weight, as in PyTorch. So the loss of an
        example is that of its class times the class's weight. PyTorch's mean of class labels divides by the sum of
        the weights, ``losses.sum() / class_weights[labels].sum()``; a plain mean divides by the number of examples.
        With :func:`balanced_class_weights` both are the same over the set that the weights were made from.
      ignore_label: The integer label that has neither loss nor gradient.

    Returns:
      ``(*batch)``, float32 or float64. In a compiled program the loss of a label out of range is infinite.

    Raises:
      UsageError: Labels or weights of a wrong shape, smoothing outside [0, 1), a label out of range whose value is
        known.

    References:
      Szegedy et al., Rethinking the Inception architecture for computer vision, 2016 (label smoothing).

    >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]]))
    >>> softmax_cross_entropy(logits, jnp.array([0, -1])) / jnp.log(2)
    Array([1., 0.], dtype=float32)
    """
    op = "softmax_cross_entropy"
    return _softmax_loss(op, logits, labels, label_smoothing, class_weights, ignore_label)


def softmax_focal_loss(
    logits: Shaped[AnyArray, "*batch classes"],
    labels: Shaped[AnyArray, "..."],
    *,
    gamma: Number = 2.0,
    label_smoothing: Number = 0.0,
    class_weights: ClassWeights | None = None,
    ignore_label: int = IGNORED,
) -> Shaped[Array, "*batch"]:
    """Focal loss of the softmax: cross-entropy, in which the term of a class of probability p counts (1 - p)^gamma.

    Examples that are already classified well contribute little. The paper has one sigmoid per class, see
    :func:`sigmoid_focal_loss`; this is the form for one class per example.

    Args:
      logits: ``(*batch, K)``; the two half-precision types are computed in float32.
      labels: Integers ``(*batch)`` in ``0..K-1``, or distributions ``(*batch, K)`` that sum to 1.
      gamma: At least 0; 0 gives :func:`softmax_cross_entropy`.
      label_smoothing: As in :func:`softmax_cross_entropy`.
      class_weights: ``(K,)``, the alpha of the paper; as in :func:`softmax_cross_entropy`.
      ignore_label: The integer label that has neither loss nor gradient.

    Returns:
      ``(*batch)``, float32 or float64.

    Raises:
      UsageError: As :func:`softmax_cross_entropy`, and ``gamma`` below 0.

    References:
      Lin et al., Focal loss for dense object detection, 2017.

    >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
    >>> softmax_focal_loss(logits, jnp.array([0])) / jnp.log(2)
    Array([0.25], dtype=float32)
    """
    op = "softmax_focal_loss"
    check_number(op, "gamma", gamma, least=0)
    return _softmax_loss(op, logits, labels, label_smoothing, class_weights, ignore_label, gamma=gamma)


def sigmoid_cross_entropy(
    logits: Shaped[AnyArray, "*batch classes"],
    labels: Shaped[AnyArray, "..."],
    *,
    label_smoothing: Number = 0.0,
    pos_weight: ClassWeights | None = None,
    ignore_label: int = IGNORED,
) -> Shaped[Array, "*batch classes"]:
    """Cross-entropy of each class on its own, for examples that have any number of classes, in nats.

    Args:
      logits: ``(*batch, K)``, of which the sigmoid is the probability of each class; half precision is computed in
        float32.
      labels: ``(*batch, K)``: whether each class is there, as booleans or as numbers from 0 to 1.
      label_smoothing: The part of every label that is replaced by one half, in [0, 1).
      pos_weight: ``(K,)``; multiplies the loss of the class being there, as in PyTorch. A usual value is the number of
        examples without the class over that of examples with it.
      ignore_label: The label of a class of which nothing is known, such as -1 among numbers; it has neither loss nor
        gradient.

    Returns:
      ``(*batch, K)``, float32 or float64: the loss of each class, as in PyTorch (``reduction='none'``) and Optax. In a
      compiled program that of a label out of range is infinite.

    Raises:
      UsageError: Labels or weights of a wrong shape, smoothing outside [0, 1), a label out of range whose value is
        known.

    >>> sigmoid_cross_entropy(jnp.zeros((1, 3)), jnp.array([[1, 0, -1]])) / jnp.log(2)
    Array([[1., 1., 0.]], dtype=float32)
    """
    op = "sigmoid_cross_entropy"
    _check_smoothing(op, label_smoothing)
    logits, labels, known, ignored = _independent(op, logits, labels, ignore_label)
    if may_differ_from_zero(label_smoothing):
        labels = (1 - label_smoothing) * labels + label_smoothing / 2
    present, absent = jax.nn.softplus(-logits), jax.nn.softplus(logits)
    weighted = labels if pos_weight is None else labels * _per_class(op, "pos_weight", pos_weight, logits)
    return _counted(_expected(weighted, present) + _expected(1 - labels, absent), known, ignored)


def sigmoid_focal_loss(
    logits: Shaped[AnyArray, "*batch classes"],
    labels: Shaped[AnyArray, "..."],
    *,
    alpha: Number | None = 0.25,
    gamma: Number = 2.0,
    ignore_label: int = IGNORED,
) -> Shaped[Array, "*batch classes"]:
    """Focal loss of each class on its own: :func:`sigmoid_cross_entropy` times (1 - p)^gamma, p that of the label.

    Args:
      logits: ``(*batch, K)``; half precision is computed in float32.
      labels: ``(*batch, K)``: whether each class is there, as booleans or as numbers from 0 to 1, which mix the losses
        of the two.
      alpha: The weight of a class that is there; that of one that is not is ``1 - alpha``. None for no weights. The
        defaults are the paper's and torchvision's; Optax has ``alpha=None``.
      gamma: At least 0.
      ignore_label: The label of a class of which nothing is known; it has neither loss nor gradient.

    Returns:
      ``(*batch, K)``, float32 or float64. The paper divides their sum by the number of classes that are there.

    Raises:
      UsageError: As :func:`sigmoid_cross_entropy`; ``alpha`` outside [0, 1], ``gamma`` below 0.

    References:
      Lin et al., Focal loss for dense object detection, 2017.

    >>> sigmoid_focal_loss(jnp.zeros((1, 2)), jnp.array([[1, 0]])) / jnp.log(2)
    Array([[0.0625, 0.1875]], dtype=float32)
    """
    op = "sigmoid_focal_loss"
    check_number(op, "gamma", gamma, least=0)
    if alpha is not None:
        check_number(op, "alpha", alpha)
        if not is_traced(alpha) and not 0 <= alpha <= 1:
            raise UsageError(f"{op}: alpha={alpha} must be from 0 to 1, or None for no weights")
    logits, labels, known, ignored = _independent(op, logits, labels, ignore_label)
    present, absent = jax.nn.softplus(-logits), jax.nn.softplus(logits)  # -log p, -log(1 - p)
    of_present, of_absent = labels, 1 - labels
    if alpha is not None:
        of_present, of_absent = alpha * of_present, (1 - alpha) * of_absent
    if may_differ_from_zero(gamma):
        of_present, of_absent = of_present * jnp.exp(-gamma * absent), of_absent * jnp.exp(-gamma * present)
    return _counted(_expected(of_present, present) + _expected(of_absent, absent), known, ignored)


def balanced_class_weights(
    labels: Shaped[AnyArray, "..."], *, num_classes: int, ignore_label: int = IGNORED
) -> Float[Array, " classes"]:
    """Class weights with which every class has the same share in a sum of losses: n / (k * count of the class).

    Args:
      labels: Integers of any shape in ``0..K-1``, such as all labels of a training set.
      num_classes: K.
      ignore_label: The label that is not counted.

    Returns:
      ``(K,)``, float32: n labels in k classes that occur, as scikit-learn's ``class_weight='balanced'``. The mean of
      the labels' weights is 1. A class that does not occur has the weight 0.

    Raises:
      UsageError: A label out of range whose value is known; in a compiled program it is not counted.

    References:
      King and Zeng, Logistic regression in rare events data, 2001.

    >>> balanced_class_weights(jnp.array([0, 0, 0, 1]), num_classes=2)
    Array([0.6666667, 2.       ], dtype=float32)
    """
    op = "balanced_class_weights"
    num_classes = integer(op, "num_classes", num_classes)
    check_integers(op, "labels", labels)
    classes, known, _ = read_labels(op, labels, num_classes, ignore_label)
    counts = jnp.zeros(num_classes, jnp.int32).at[jnp.where(known, classes, num_classes)].add(1, mode="drop")
    return balanced_weights_of_counts(counts)


def balanced_weights_of_counts(counts: Shaped[AnyArray, " classes"]) -> Float[Array, " classes"]:
    """:func:`balanced_class_weights` of labels that are already counted.

    Args:
      counts: ``(K,)``, integers: how many labels each class has.

    >>> balanced_weights_of_counts(jnp.array([3, 1]))
    Array([0.6666667, 2.       ], dtype=float32)
    """
    occurring = counts.clip(min=1).astype(jnp.float32) * (counts > 0).sum().astype(jnp.float32)
    return jnp.where(counts > 0, counts.sum().astype(jnp.float32) / occurring, 0)


def squared_error(
    outputs: Shaped[AnyArray, "*batch classes"],
    labels: Shaped[AnyArray, "..."],
    *,
    targets: tuple[float, float] = (-1.0, 1.0),
    ignore_label: int = IGNORED,
) -> Shaped[Array, "*batch"]:
    """Mean squared difference between the outputs and one target for the right class, another for all wrong ones.

    :func:`mean_squared_error` is that for a regression to real targets.

    Args:
      outputs: ``(*batch, K)``; the two half-precision types are computed in float32.
      labels: Integers ``(*batch)`` in ``0..K-1``, or distributions ``(*batch, K)``, whose targets lie in between.
      targets: Of a wrong class and of the right one; -1 and 1 are where LeCun's scaled tanh bends most.
      ignore_label: The integer label that has neither loss nor gradient.

    Returns:
      ``(*batch)``, float32 or float64: the mean over the classes. In a compiled program the loss of a label out of
      range is infinite.

    Raises:
      UsageError: Labels of a wrong shape, a label out of range whose value is known.

    References:
      LeCun et al., Backpropagation applied to handwritten zip code recognition, 1989.

    >>> squared_error(jnp.array([[1.0, -1.0, 0.0]]), jnp.array([0])) * 3
    Array([1.], dtype=float32)
    """
    outputs, distribution, known, ignored = _of_classes("squared_error", "outputs", outputs, labels, ignore_label)
    if not isinstance(targets, Sequence) or len(targets) != 2:
        raise UsageError(f"squared_error: targets={targets!r} must be two: of a wrong class and of the right one")
    wrong, right = targets
    losses = jnp.square(outputs - (wrong + (right - wrong) * distribution)).mean(axis=-1)
    return _counted(losses, known, ignored)


def _softmax_loss(
    op: str,
    logits: AnyArray,
    labels: AnyArray,
    label_smoothing: Number,
    class_weights: Any,
    ignore_label: int,
    *,
    gamma: Number = 0.0,
) -> Array:
    """Cross-entropy, where the term of each class is also multiplied by ``(1 - p) ** gamma``."""
    _check_smoothing(op, label_smoothing)
    logits, target, known, ignored = _of_classes(op, "logits", logits, labels, ignore_label)
    if may_differ_from_zero(label_smoothing):
        # In proportion to the row's sum, which is 1, or less where ignored labels were mixed in.
        shared = target.sum(axis=-1, keepdims=True) / logits.shape[-1]
        target = (1 - label_smoothing) * target + label_smoothing * shared
    if class_weights is not None:
        target = target * _per_class(op, "class_weights", class_weights, logits)
    log_probabilities = jax.nn.log_softmax(logits)
    if may_differ_from_zero(gamma):
        missing = -jnp.expm1(log_probabilities)  # 1 - p; the power of 0 has no derivative, and counts nothing
        target = target * jnp.where(missing > 0, jnp.where(missing > 0, missing, 1) ** gamma, 0)
    return _counted(_expected(target, 0 - log_probabilities).sum(axis=-1), known, ignored)


def _of_classes(
    op: str, name: str, outputs: AnyArray, labels: AnyArray, ignore_label: int
) -> tuple[Array, Array, Bool[Array, "..."], Bool[Array, "..."]]:
    """Checks outputs and labels of exclusive classes.

    Returns:
      The outputs in at least float32, 0 where there is no known label; the labels as distributions of the same type;
      whether each is known; whether each is ignored.
    """
    outputs, labels = read_outputs(op, name, outputs), labels if is_traced(labels) else as_array(op, "labels", labels)
    whole = jnp.issubdtype(labels.dtype, jnp.integer)
    expected = outputs.shape[:-1] if whole else outputs.shape
    if labels.shape != expected or labels.dtype == bool:
        kind = "integer" if whole else labels.dtype.name
        raise UsageError(
            f"{op}: {kind} labels of shape {labels.shape} do not go with {name} of shape {outputs.shape}; "
            f"give integers of shape {outputs.shape[:-1]} or floating-point distributions of shape {outputs.shape}"
        )
    if not whole:
        every = jnp.ones(outputs.shape[:-1], bool)
        return outputs, jnp.asarray(labels).astype(outputs.dtype), every, ~every
    classes, known, ignored = read_labels(op, labels, outputs.shape[-1], ignore_label)
    # Masked before anything is computed: no gradient passes, and infinities and NaN of ignored examples do not spread.
    outputs = jnp.where(known[..., None], outputs, 0)
    return outputs, jax.nn.one_hot(classes, outputs.shape[-1], dtype=outputs.dtype), known, ignored


def _independent(
    op: str, logits: AnyArray, labels: AnyArray, ignore_label: int
) -> tuple[Array, Array, Bool[Array, "..."], Bool[Array, "..."]]:
    """Checks logits and labels of independent classes; returns both, which labels are known and which are ignored."""
    logits = read_outputs(op, "logits", logits)
    if jnp.shape(labels) != logits.shape:
        raise UsageError(
            f"{op}: labels of shape {jnp.shape(labels)} do not go with logits of shape {logits.shape}; give one label "
            f"for each class, such as jax.nn.one_hot(labels, {logits.shape[-1]})"
        )
    shares, known, ignored = read_shares(op, labels, logits.dtype, ignore_label)
    return jnp.where(known, logits, 0), shares, known, ignored


def _expected(shares: Array, surprise: Array) -> Array:
    """The product, in which a share of 0 makes 0 of an infinite surprise, and neither gradient is NaN."""
    return shares * jnp.where((shares == 0) & jnp.isinf(surprise), 0, surprise)


def _counted(losses: Array, known: Bool[Array, "..."], ignored: Bool[Array, "..."]) -> Array:
    """The losses, 0 where the label is ignored, infinite where it is out of range."""
    return jnp.where(known, losses, jnp.where(ignored, 0, jnp.inf).astype(losses.dtype))


def _per_class(op: str, name: str, weights: Any, logits: Array) -> Array:
    """Weights as an array that is broadcast to the logits."""
    array = as_array(op, name, weights)
    if array.shape != logits.shape[-1:]:
        raise UsageError(
            f"{op}: {name} of shape {array.shape} must have one weight for each of {logits.shape[-1]} classes"
        )
    values = concrete(array)
    if values is not None and not (np.isfinite(values) & (values >= 0)).all():
        wrong = values[~(np.isfinite(values) & (values >= 0))][0]
        raise UsageError(f"{op}: {name} has a weight of {wrong:g}; weights must be finite and at least 0")
    return lax.broadcast_to_rank(array.astype(logits.dtype), logits.ndim)


def _check_smoothing(op: str, label_smoothing: Any) -> None:
    if not is_traced(label_smoothing) and not (isinstance(label_smoothing, int | float) and 0 <= label_smoothing < 1):
        raise UsageError(f"{op}: label_smoothing={label_smoothing!r} must be at least 0 and less than 1")
