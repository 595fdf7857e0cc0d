"""What losses and metrics read: outputs, and class labels, of which some are ignored and some are wrong."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, accumulator, as_array, check_array, check_filled, concrete, integer

IGNORED = -1  # the default of ignore_label; PyTorch's ignore_index is -100


class Labels(NamedTuple):
    """Integer labels, read for one number of classes.

    Attributes:
      classes: The labels, 32-bit at least; -1 where they are ignored or out of range.
      known: Whether a label is that of a class.
      ignored: Whether a label is ignored. What is neither known nor ignored is out of range, in compiled programs only.
    """

    classes: Int[Array, "..."]
    known: Bool[Array, "..."]
    ignored: Bool[Array, "..."]


def read_outputs(op: str, name: str, outputs: Shaped[AnyArray, "..."]) -> Shaped[Array, "*batch classes"]:
    """The outputs in at least float32; the batch may be empty."""
    outputs = check_array(op, name, outputs, empty=True)
    if outputs.ndim < 1:
        raise UsageError(f"{op}: {name} must have an axis of classes, got a scalar")
    check_filled(op, name, outputs, [outputs.ndim - 1])
    return outputs.astype(accumulator(outputs.dtype))


def read_labels(
    op: str, labels: Shaped[AnyArray, "..."], num_classes: int, ignore_label: int | None, *, name: str = "label"
) -> Labels:
    """Sorts integer labels into known and ignored ones.

    Args:
      op: The calling op, for the error line.
      labels: Integers of any shape and width, such as uint8 with 255 for "ignored".
      num_classes: K; known labels are ``0..K-1``.
      ignore_label: The label that is ignored, which may be that of a class, such as a background of 0; None for none.
      name: What is called a label in the error line.

    Returns:
      The labels. Whether one of a compiled program is out of range is not known before it runs.

    Raises:
      UsageError: A label is out of range and its value is known, as outside ``jit`` and ``vmap``.
    """
    if ignore_label is not None:
        ignore_label = integer(op, "ignore_label", ignore_label)
    if (values := concrete(labels)) is not None:
        wrong = values[((values < 0) | (values >= num_classes)) & (values != ignore_label)]
        if wrong.size:
            raise UsageError(
                f"{op}: {name} {wrong[0]} is none of the {num_classes} classes, 0 to {num_classes - 1}"
                + (f", and not ignored (ignore_label={ignore_label})" if ignore_label is not None else "")
            )
    labels = jnp.asarray(labels)
    if labels.dtype.itemsize < 4:  # too narrow to be compared with every number of classes
        labels = labels.astype(jnp.int32)
    limits = jnp.iinfo(labels.dtype)
    if ignore_label is not None and limits.min <= ignore_label <= limits.max:
        ignored = jnp.equal(labels, ignore_label)
    else:
        ignored = jnp.zeros_like(labels, bool)
    known = (labels >= 0) & (labels < num_classes) & ~ignored
    return Labels(jnp.where(known, labels, 0).astype(jnp.int32) - (~known).astype(jnp.int32), known, ignored)


def read_shares(
    op: str, labels: Shaped[AnyArray, "..."], dtype: jnp.dtype, ignore_label: int
) -> tuple[Float[Array, "..."], Bool[Array, "..."], Bool[Array, "..."]]:
    """Reads labels that state for each class separately whether it is present: booleans, or numbers from 0 to 1.

    Args:
      op: The calling op, for the error line.
      labels: Booleans or numbers of any shape.
      dtype: Of the result.
      ignore_label: The label that is ignored.

    Returns:
      The labels, 0 where they are not known; whether they are known; whether they are ignored.

    Raises:
      UsageError: A label that is neither from 0 to 1 nor ignored, where its value is known.
    """
    ignore_label = integer(op, "ignore_label", ignore_label)
    if (values := concrete(labels)) is not None:
        values = values.astype(np.float64)
        wrong = values[(values != ignore_label) & ~((values >= 0) & (values <= 1))]
        if wrong.size:
            raise UsageError(
                f"{op}: label {wrong[0]:g} of a class is not from 0 to 1, and not ignored (ignore_label={ignore_label})"
            )
    shares = as_array(op, "labels", labels).astype(dtype)
    ignored = jnp.equal(shares, ignore_label)
    known = (shares >= 0) & (shares <= 1) & ~ignored
    return jnp.where(known, shares, 0), known, ignored


def check_integers(op: str, name: str, labels: Shaped[AnyArray, "..."]) -> None:
    """Raises a ``UsageError`` unless the labels are integers."""
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise UsageError(f"{op}: {name} of dtype {labels.dtype.name} must be integers, one class per example")
