"""Creates networks for tests without compiling for every parameter and every test."""

import functools

import jax
from flax import nnx

from cnn_jax import models
from tests.compiled import compiled


def create(name: str, **options) -> nnx.Module:
    """Like :func:`cnn_jax.models.create`, but all calls with the same options return the same parameters."""
    return nnx.clone(nnx.merge(*_drawn(name, **options)))  # a merged module shares its variables with the state


@functools.cache
def _drawn(name: str, **options):
    def build(key):
        return models.create(name, rngs=nnx.Rngs(key), **options)

    graph, _ = nnx.split(nnx.eval_shape(lambda: build(jax.random.key(0))))
    draw = compiled(lambda key: nnx.state(build(key)))
    return graph, draw(jax.random.key(0))
