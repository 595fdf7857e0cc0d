"""What holds for every public op, filter and layer: JAX's strict rules, batches without images, open batch sizes.

Tables of all of them are in ``tests/every_layer.py``.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from cnn_jax import filters, nn, ops
from tests.compiled import compiled
from tests.every_layer import FILTERS, LAYERS, OPS, PROGRAMS, floating, outputs_and_gradients

# Ops of shapes alone.
NOT_OF_A_BATCH = {"tune"}
# The statistics of no numbers: no gradient to speak of.
PREPARED = {}


def program(name):
    """Each is made once."""
    if name not in PREPARED:
        PREPARED[name] = PROGRAMS[name]()
    return PREPARED[name]


def test_every_public_name_is_in_the_tables():
    def missing(module, *tables):
        names = {name for name in module.__all__ if callable(getattr(module, name))} - {"Timing"} - NOT_OF_A_BATCH
        return names - {entry.partition(",")[0].split(" ")[0].removeprefix("filters.") for t in tables for entry in t}

    assert not missing(ops, OPS)
    assert not missing(nn, LAYERS)
    assert not missing(filters, OPS, FILTERS)
    assert inspect.isfunction(ops.tune)


@pytest.mark.parametrize("name", PROGRAMS)
def test_strict_promotion(name):
    """Traced only: JAX refuses implicit promotions where it traces them."""
    one = program(name)
    run = outputs_and_gradients(one)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        for dtype in (jnp.float32, jnp.bfloat16):
            weights = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), one.weights)
            outputs, gradients = jax.eval_shape(run, one.batch(2, dtype), weights)
            assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(gradients))
            assert jax.tree.leaves(outputs)
