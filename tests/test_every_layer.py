"""What holds for every public op, filter and layer: JAX's strict rules, batches without images, open batch sizes.

Tables of all of them are in ``tests/every_layer.py``.
"""

import functools
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
MANY = 7  # images, a number that no other axis has


@functools.cache
def program(name):
    return PROGRAMS[name]()


def test_every_public_name_is_in_the_tables():
    def missing(module, *tables):
        names = {name for name in module.__all__ if callable(getattr(module, name))} - {"Timing"} - NOT_OF_A_BATCH
        return names - {entry.partition(",")[0].split(" ")[0].removeprefix("filters.") for t in tables for entry in t}

    assert not missing(ops, OPS)
    assert not missing(nn, LAYERS)
    assert not missing(filters, OPS, FILTERS)
    assert inspect.isfunction(ops.tune)


@pytest.fixture
def strict():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.mark.parametrize("name", PROGRAMS)
def test_strict_promotion(name, strict):
    """Made and traced only: that is where JAX refuses."""
    one = program(name)
    for dtype in (jnp.float32, jnp.bfloat16):
        weights = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), one.weights)
        _, gradients = jax.eval_shape(outputs_and_gradients(one), one.batch(2, dtype), weights)
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("name", FILTERS)
def test_filters_under_strict_promotion(name, strict):
    assert FILTERS[name]().dtype == jnp.float32


def everything(batches):
    """The outputs and gradients of all programs, as one program, which takes one compilation."""
    weights = {name: program(name).weights for name in PROGRAMS}

    def run(batches, weights):
        return {name: outputs_and_gradients(program(name))(batches[name], weights[name]) for name in PROGRAMS}

    return compiled(run)(batches, weights)


@pytest.fixture(scope="module")
def of_no_image():
    return everything({name: program(name).batch(0) for name in PROGRAMS})


@pytest.mark.parametrize("name", PROGRAMS)
def test_empty_batch(name, of_no_image):
    """Shapes are those of a batch with images, but for their number; no weight has a gradient, and nothing is NaN."""
    one = program(name)
    many = jax.eval_shape(outputs_and_gradients(one), one.batch(MANY), one.weights)
    for none, some in zip(jax.tree.leaves(of_no_image[name]), jax.tree.leaves(many), strict=True):
        assert none.shape == tuple(0 if size == MANY else size for size in some.shape)
        assert none.dtype == some.dtype
        assert np.isfinite(none).all()
    _, (_, gradients) = of_no_image[name]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


@pytest.fixture(scope="module")
def exported():
    """Every program with a batch size that is left open, as a function of the batch and the weights."""
    (size,) = export.symbolic_shape("size")

    def one(name):
        run = jax.jit(outputs_and_gradients(program(name)))
        batch = [jax.ShapeDtypeStruct((size, *shape), jnp.float32) for shape in program(name).inputs]
        return export.export(run)(batch, program(name).weights)

    return {name: one(name) for name in PROGRAMS}
