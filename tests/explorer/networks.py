"""Networks with arbitrary weights, which no random number generator and no compiler is needed for."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def filled(make: Callable[[nnx.Rngs], Any], *, seed: int = 0) -> Any:
    """A module whose arrays are drawn by NumPy, scaled by their fan-in; statistics and factors are positive."""
    graph, state = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    rng = np.random.default_rng(seed)

    def draw(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        if leaf.ndim < 2:
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        return jnp.asarray(rng.standard_normal(leaf.shape) / np.sqrt(fan_in), leaf.dtype)

    model = nnx.merge(graph, jax.tree.map(draw, state))
    model.eval()
    return model
