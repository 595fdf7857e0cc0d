"""Abstract networks, their tables, and networks whose arrays are created without compilation."""

import functools
from typing import Any

import jax
import numpy as np
from flax import nnx

from cnn_jax import geometry, models
from cnn_jax.models.keys import Keys


@functools.cache
def abstract(name: str, **options: Any) -> nnx.Module:
    """The abstract network at its published size."""
    chosen = models.variant(name)
    return nnx.eval_shape(
        lambda: chosen.builder(
            num_classes=chosen.num_classes,
            input_shape=chosen.input_shape,
            width=1.0,
            dtype=None,
            rngs=Keys(nnx.Rngs(0)),
            **options,
        )
    )


@functools.cache
def table(name: str, **options: Any) -> dict[str, geometry.Row]:
    """The rows of the network's table by name, for the published input shape."""
    return {row.name: row for row in geometry.trace(abstract(name, **options), models.variant(name).input_shape)}


def total(name: str, **options: Any) -> geometry.Row:
    """The totals of the network's table."""
    return geometry.total(list(table(name, **options).values()))


def filled(abstract: nnx.Module) -> nnx.Module:
    """The network with random parameters and statistics from NumPy; variances and scales are positive."""
    graph, state = nnx.split(abstract)
    generator = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        values = generator.normal(size=leaf.shape) / np.sqrt(max(np.prod(leaf.shape[:-1]), 1))
        return jax.numpy.asarray(np.abs(values) + 0.5 if len(leaf.shape) == 1 else values, leaf.dtype)

    return nnx.merge(graph, jax.tree.map(draw, state))
