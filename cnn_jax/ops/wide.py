"""Sums in float32 of what is in half precision, in the gradients too.

The transpose of a broadcast, a gather or a pad is a sum, which XLA's CPU backend forms in the type of its terms: a
bfloat16 stays at 256 when ones are added to it. Where the values are float32 when they are spread, so are the sums.
JAX's own ``sum`` and ``mean``, matrix products and convolutions need none of this.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.ops.arguments import as_dtype, wider


def in_float32(function: Callable[..., Array], *arrays: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """Calls a function with its arrays in float32 at least, and rounds the result to the type that they promote to.

    >>> in_float32(lambda x: (x + 1000) - 1000, jnp.array([1.0, 2.0], jnp.bfloat16))
    Array([1, 2], dtype=bfloat16)
    """
    dtype = wider(*(array.dtype for array in arrays))
    wide = wider(dtype, jnp.float32)
    return as_dtype(function(*(as_dtype(array, wide) for array in arrays)), dtype)


def affine(
    x: Shaped[Array, "..."],
    *,
    scale: Shaped[Array, "..."] | None = None,
    bias: Shaped[Array, "..."] | None = None,
) -> Shaped[Array, "..."]:
    """``x * scale + bias``, computed in float32 at least and rounded once.

    Args:
      x: ``(..., *shape)``.
      scale: ``shape``, often ``(C,)``; 1 by default.
      bias: ``shape``; 0 by default.

    Returns:
      The shape of ``x``, in the type that all promote to.

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
