"""The output layer of LeNet-5."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, check_array, check_filled
from cnn_jax.ops.wide import in_float32


def rbf_output(x: Shaped[AnyArray, "*batch features"], centers: Shaped[AnyArray, "..."]) -> Any:
    """LeNet-5's output: the squared Euclidean distance between the features and the centre of each class.

    The predicted class is the one with the smallest distance. In the paper the centres are fixed: they are bitmaps of
    the characters, 7 by 12 pixels of -1 and +1.

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
