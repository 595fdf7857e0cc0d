"""Abstract networks, created once for all tests of this folder, and networks with random values."""

import functools

import numpy as np
from flax import nnx

from cnn_jax import models, weights
from cnn_jax.weights.layouts import paths

VGG = {"input_shape": (32, 32, 3), "width": 1 / 64}


@functools.cache
def abstract(name, **options):
    return nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **options))


def drawn(model):
    """Fills an abstract model with random numbers."""
    rng = np.random.default_rng(0)
    leaves = paths(nnx.state(model)).items()
    return weights.load(model, {path: rng.normal(size=leaf.shape).astype(np.float32) for path, leaf in leaves}).model
