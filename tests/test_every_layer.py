"""Properties of all public ops, filters and layers: JAX's strict rules, empty batches, symbolic batch sizes.

``tests/every_layer.py`` has the tables of all of them.
"""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from cnn_jax import filters, nn, ops
from tests.compiled import compiled
from tests.every_layer import FILTERS, LAYERS, OPS, PROGRAMS, floating, outputs_and_gradients

# Ops of shapes alone.
NOT_OF_A_BATCH = {"tune", "ClassCounts", "Overlaps", "mel_filters"}
MANY = 13  # images, a number that no other axis has


@functools.cache
def program(name):
    return PROGRAMS[name]()


def test_every_public_name_is_in_the_tables():
    def missing(module, *tables):
        names = {name for name in module.__all__ if callable(getattr(module, name))} - {"Timing"} - NOT_OF_A_BATCH
        return names - {re.match(r"\w+", entry.removeprefix("filters.")).group() for t in tables for entry in t}

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
    """Layers are only created and traced, since tracing raises the errors; half precision gives different dtypes."""
    one = program(name)
    weights = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), one.weights)
    _, gradients = jax.eval_shape(outputs_and_gradients(one), one.batch(2, jnp.bfloat16), weights)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("name", FILTERS)
def test_filters_under_strict_promotion(name, strict):
    assert FILTERS[name]().dtype == jnp.float32


def together(make, size):
    """The results of ``make(program)`` for a batch, for all programs in one compilation."""
    batches = {name: program(name).batch(size) for name in PROGRAMS}
    weights = {name: program(name).weights for name in PROGRAMS}

    def run(batches, weights):
        return {name: make(name)(batches[name], weights[name]) for name in PROGRAMS}

    return compiled(run)(batches, weights)


@pytest.fixture(scope="module")
def of_no_image():
    return together(lambda name: outputs_and_gradients(program(name)), 0)


@pytest.mark.parametrize("name", PROGRAMS)
def test_empty_batch(name, of_no_image):
    """Except for the batch size, shapes equal those of another batch; gradients of weights are 0, nothing is NaN."""
    outputs, (gradients, of_weights) = of_no_image[name]
    some = jax.eval_shape(program(name).function, program(name).batch(MANY), program(name).weights)
    for none, many in zip(jax.tree.leaves(outputs), jax.tree.leaves(some), strict=True):
        assert none.shape == tuple(0 if size == MANY else size for size in many.shape)
        assert none.dtype == many.dtype
    assert [leaf.shape for leaf in gradients] == [(0, *shape) for shape in program(name).inputs]
    assert all(np.isfinite(leaf).all() for leaf in floating(outputs))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_weights))


@pytest.fixture(scope="module")
def exported():
    """Every program, exported with a symbolic batch size."""
    (size,) = export.symbolic_shape("size")

    def one(name):
        batch = [jax.ShapeDtypeStruct((size, *shape), jnp.float32) for shape in program(name).inputs]
        return export.export(jax.jit(program(name).function))(batch, program(name).weights)

    return {name: one(name) for name in PROGRAMS}


@pytest.fixture(scope="module", params=[pytest.param(1, marks=pytest.mark.slow), 5])
def as_they_are_and_exported(request, exported):
    size = request.param
    return together(lambda name: program(name).function, size), together(lambda name: exported[name].call, size)


@pytest.mark.parametrize("name", PROGRAMS)
def test_export_with_an_open_batch_size(name, as_they_are_and_exported):
    """The exported program gives the same results as the program itself, for any batch size."""
    expected, actual = (jax.tree.leaves(results[name]) for results in as_they_are_and_exported)
    for left, right in zip(actual, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)


# Ops that define their gradients, instead of leaving them to JAX.
WITH_OWN_GRADIENTS = [
    *("conv", "conv, strided", "conv, wide", "conv, volume", "conv, groups", "conv, one by one", "depthwise_conv"),
    *("max_pool", "max_pool, split ties", "avg_pool", "avg_pool, wide", "local_response_norm", "relu, guided"),
]


def test_gradients_are_exported_with_an_open_batch_size():
    (size,) = export.symbolic_shape("size")
    batches = {name: program(name).batch(5) for name in WITH_OWN_GRADIENTS}
    weights = {name: program(name).weights for name in WITH_OWN_GRADIENTS}

    def run(batches, weights):
        return {
            name: outputs_and_gradients(program(name))(batches[name], weights[name])[1] for name in WITH_OWN_GRADIENTS
        }

    open_batches = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype), batches)
    exported = export.export(jax.jit(run))(open_batches, weights)
    expected, actual = compiled(run)(batches, weights), compiled(exported.call)(batches, weights)
    for left, right in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4 * max(1, np.abs(right).max()))
