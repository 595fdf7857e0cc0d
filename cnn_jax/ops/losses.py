"""What networks are trained to make small: softmax cross-entropy, squared error, and the output layer of LeNet-5.

Every function returns one number per example (or class); means and masks are the caller's.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, Number, check_array, check_filled, is_traced, may_differ_from_zero
from cnn_jax.ops.canonical import accumulator
from cnn_jax.ops.wide import in_float32


def softmax_cross_entropy(
    logits: Shaped[AnyArray, "*batch classes"], labels: Shaped[AnyArray, "..."], *, label_smoothing: Number = 0.0
) -> Shaped[Array, "*batch"]:
    """Cross-entropy between the labels and the softmax of the logits, in nats, per example.

    Args:
      logits: ``(*batch, K)``; the two half-precision types are computed in float32.
      labels: Integers ``(*batch)`` in ``0..K-1``, or distributions ``(*batch, K)`` that sum to 1. As XLA does, an
        integer outside that range counts as no class at all and gives a loss of 0, apart from the smoothing.
      label_smoothing: The part of every label's probability that is shared equally among all K classes, in [0, 1).

    Returns:
      ``(*batch)``, float32 or float64.

    Raises:
      UsageError: Labels of a wrong shape, smoothing outside [0, 1).

    References:
      Szegedy et al., Rethinking the Inception architecture for computer vision, 2016 (label smoothing).

    >>> logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
    >>> softmax_cross_entropy(logits, jnp.array([0])) / jnp.log(2)
    Array([1.], dtype=float32)
    """
    op = "softmax_cross_entropy"
    if not is_traced(label_smoothing) and not (isinstance(label_smoothing, int | float) and 0 <= label_smoothing < 1):
        raise UsageError(f"{op}: label_smoothing={label_smoothing!r} must be at least 0 and less than 1")
    logits, target = _with_distributions(op, "logits", logits, labels)
    if may_differ_from_zero(label_smoothing):
        target = (1 - label_smoothing) * target + label_smoothing / logits.shape[-1]
    # A class that the label rules out adds nothing, even where its probability is 0 and its logarithm infinite.
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.where(target == 0, 0, target * log_probabilities).sum(axis=-1)


def squared_error(
    outputs: Shaped[AnyArray, "*batch classes"],
    labels: Shaped[AnyArray, "..."],
    *,
    targets: tuple[float, float] = (-1.0, 1.0),
) -> Shaped[Array, "*batch"]:
    """Mean squared difference between the outputs and one target for the right class, another for all wrong ones.

    Args:
      outputs: ``(*batch, K)``; the two half-precision types are computed in float32.
      labels: Integers ``(*batch)`` in ``0..K-1``, or distributions ``(*batch, K)``, whose targets lie in between.
      targets: Of a wrong class and of the right one; -1 and 1 are where LeCun's scaled tanh bends most.

    Returns:
      ``(*batch)``, float32 or float64: the mean over the classes.

    Raises:
      UsageError: Labels of a wrong shape.

    References:
      LeCun et al., Backpropagation applied to handwritten zip code recognition, 1989.

    >>> squared_error(jnp.array([[1.0, -1.0, 0.0]]), jnp.array([0])) * 3
    Array([1.], dtype=float32)
    """
    outputs, distribution = _with_distributions("squared_error", "outputs", outputs, labels)
    if not isinstance(targets, Sequence) or len(targets) != 2:
        raise UsageError(f"squared_error: targets={targets!r} must be two: of a wrong class and of the right one")
    wrong, right = targets
    return jnp.square(outputs - (wrong + (right - wrong) * distribution)).mean(axis=-1)


def rbf_output(x: Shaped[AnyArray, "*batch features"], centers: Shaped[AnyArray, "..."]) -> Any:
    """LeNet-5's output: the squared Euclidean distance between the features and the centre of each class.

    Small means likely, so that the class is the smallest. In the paper the centres are pictures of the characters,
    7 by 12 pixels of -1 and +1, and they are fixed.

    Args:
      x: ``(*batch, F)``.
      centers: ``(K, F)``.

    Returns:
      ``(*batch, K)``.

    Raises:
      UsageError: Shapes that do not match.

    References:
      LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998, section II.B.

    >>> rbf_output(jnp.array([1.0, 2.0]), jnp.array([[1.0, 2.0], [0.0, 0.0]]))
    Array([0., 5.], dtype=float32)
    """
    op = "rbf_output"
    x, centers = check_array(op, "x", x, empty=True), check_array(op, "centers", centers)
    if centers.ndim != 2 or x.ndim < 1 or x.shape[-1] != centers.shape[-1]:
        raise UsageError(
            f"{op}: centers of shape {centers.shape} do not go with x of shape {x.shape}; "
            f"centers must be (classes, {x.shape[-1] if x.ndim else 'features'})"
        )
    check_filled(op, "x", x, [x.ndim - 1])

    # Differences, not |x|² - 2 x c + |c|²: that loses all digits next to a centre.
    def distances(x: Array, centers: Array) -> Array:
        return jnp.square(x[..., None, :] - lax.broadcast_to_rank(centers, x.ndim + 1)).sum(axis=-1)

    return in_float32(distances, x, centers)


def _with_distributions(op: str, name: str, outputs: AnyArray, labels: AnyArray) -> tuple[jax.Array, jax.Array]:
    """Checks both; gives the outputs in at least float32, and the labels as distributions of the same type."""
    outputs, labels = check_array(op, name, outputs, empty=True), jnp.asarray(labels)
    if outputs.ndim < 1:
        raise UsageError(f"{op}: {name} must have an axis of classes, got a scalar")
    check_filled(op, name, outputs, [outputs.ndim - 1])
    outputs = outputs.astype(accumulator(outputs.dtype))
    whole = jnp.issubdtype(labels.dtype, jnp.integer)
    expected = outputs.shape[:-1] if whole else outputs.shape
    if labels.shape != expected or labels.dtype == bool:
        kind = "integer" if whole else labels.dtype.name
        raise UsageError(
            f"{op}: {kind} labels of shape {labels.shape} do not go with {name} of shape {outputs.shape}; "
            f"give integers of shape {outputs.shape[:-1]} or floating-point distributions of shape {outputs.shape}"
        )
    if whole:
        return outputs, jax.nn.one_hot(labels, outputs.shape[-1], dtype=outputs.dtype)
    return outputs, labels.astype(outputs.dtype)
