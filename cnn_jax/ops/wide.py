"""Sums of half-precision arrays in float32, also in the gradients.

The transpose of a broadcast, a gather or a pad is a sum. XLA's CPU backend computes it in the dtype of its terms: a
bfloat16 sum of ones stays at 256. If the values are float32 before they are broadcast, the sums are float32 too. JAX's
own ``sum`` and ``mean``, matrix products and convolutions do not need this.
"""

from collections.abc import Callable

from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.ops.arguments import accumulator, as_dtype, wider


def in_float32(function: Callable[..., Array], *arrays: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """Calls a function with its arrays in at least float32 and rounds the result to the dtype that they promote to.

    >>> import jax.numpy as jnp
    >>> in_float32(lambda x: (x + 1000) - 1000, jnp.array([1.0, 2.0], jnp.bfloat16))
    Array([1, 2], dtype=bfloat16)
    """
    dtype = wider(*(array.dtype for array in arrays))
    wide = accumulator(dtype)
    return as_dtype(function(*(as_dtype(array, wide) for array in arrays)), dtype)


def affine(
    x: Shaped[Array, "..."],
    *,
    scale: Shaped[Array, "..."] | None = None,
    bias: Shaped[Array, "..."] | None = None,
) -> Shaped[Array, "..."]:
    """Computes ``x * scale + bias`` in at least float32 and rounds once.

    Args:
      x: An array of shape ``(..., *shape)``.
      scale: An array of shape ``shape``, often ``(C,)``; 1 by default.
      bias: An array of shape ``shape``; 0 by default.

    Returns:
      An array with the shape of ``x`` and the dtype that all arguments promote to.

    >>> import jax.numpy as jnp
    >>> affine(jnp.array([1.0, 2.0]), scale=jnp.array(3.0), bias=jnp.array([0.0, 1.0]))
    Array([3., 7.], dtype=float32)
    """
    given = {name: array for name, array in {"scale": scale, "bias": bias}.items() if array is not None}

    def apply(x: Array, *vectors: Array) -> Array:
        for name, vector in zip(given, vectors, strict=True):
            vector = lax.broadcast_to_rank(vector, x.ndim)
            x = x * vector if name == "scale" else x + vector
        return x

    return in_float32(apply, x, *given.values())
