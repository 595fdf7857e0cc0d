"""Normalisation and dropout can replace Flax's: the same program, arguments, attributes and rules."""

import inspect
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import models, nn
from cnn_jax.errors import UsageError
from tests.nn import stock_program

STOCK = "from flax.nnx import BatchNorm, Conv, Dropout, Linear, avg_pool, max_pool"
OURS = "from cnn_jax.nn import BatchNorm, Conv, Dropout, Linear\nfrom cnn_jax.ops import avg_pool, max_pool"
X = np.random.default_rng(0).standard_normal((6, 4, 4, 3)).astype(np.float32) * 3 + 2


def test_a_stock_program_with_the_import_replaced():
    source = Path(stock_program.__file__).read_text()
    assert source.count(STOCK) == 1
    replaced: dict[str, Any] = {"__name__": "replaced"}
    exec(compile(source.replace(STOCK, OURS), "replaced", "exec"), replaced)
    assert replaced["BatchNorm"] is nn.BatchNorm
    expected, actual = stock_program.main(), replaced["main"]()
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(right.dtype, jnp.floating):
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
        else:  # keys and counts of the random streams
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(
                *(jax.random.key_data(a) if a.dtype != jnp.uint32 else a for a in (left, right))
            )


@pytest.mark.parametrize("name", ["BatchNorm", "Dropout", "Linear"])
def test_constructors_and_attributes_are_those_of_flax(name):
    ours, theirs = getattr(nn, name), getattr(nnx, name)
    defaults = [
        {key: entry.default for key, entry in inspect.signature(kind).parameters.items()} for kind in (ours, theirs)
    ]
    # Equal defaults that are functions do not compare equal with ==.
    assert list(map(repr, defaults[0].items())) == list(map(repr, defaults[1].items()))
    arguments = {"BatchNorm": (3,), "Dropout": (0.5,), "Linear": (3, 4)}[name]
    attributes = [set(vars(kind(*arguments, rngs=nnx.Rngs(0)))) for kind in (ours, theirs)]
    assert attributes[0] == attributes[1]
    calls = [inspect.signature(kind.__call__).parameters for kind in (ours, theirs)]
    assert list(calls[1]) == [key for key in calls[0] if key != "train"]


BATCH_NORMS = {
    "defaults": ({}, {}),
    "first axis": ({"axis": 0}, {}),
    "mask": ({}, {"mask": np.random.default_rng(1).random((6, 4, 4, 1)) < 0.5}),
    "mask along an axis": ({"axis": 1}, {"mask": np.random.default_rng(1).random((6, 1, 4, 3)) < 0.5}),
    "given in the call": ({"use_running_average": False}, {"use_running_average": True}),
    "bare": ({"use_bias": False, "use_scale": False}, {}),
    "of another type": ({"dtype": jnp.float16}, {}),
    "whole numbers": ({}, {}),
    "metadata": ({"scale_metadata": {"a": 1}, "bias_metadata": {"b": 2}, "use_fast_variance": False}, {}),
    "own promotion": ({"promote_dtype": lambda arrays, dtype: [a * 1.5 for a in arrays]}, {}),
}


@pytest.mark.parametrize("name", BATCH_NORMS)
def test_batch_norm_is_that_of_flax(name):
    options, call = BATCH_NORMS[name]
    x = jnp.asarray(X).astype(jnp.int32) if name == "whole numbers" else X
    size = x.shape[options.get("axis", -1)]
    layers = [kind(size, momentum=0.8, rngs=nnx.Rngs(0), **options) for kind in (nn.BatchNorm, nnx.BatchNorm)]
    for layer in layers:
        layer.mean[...] += 0.5
        running = layer.mean
        layer.y = layer(x, **call)
        assert layer.mean is running  # updated in place, as in Flax
    ours, theirs = layers
    assert ours.y.dtype == theirs.y.dtype
    tolerance = 2e-3 if ours.y.dtype == jnp.float16 else 2e-5
    np.testing.assert_allclose(ours.y, theirs.y, rtol=tolerance, atol=tolerance)
    tolerance = 1e-4 if ours.y.dtype == jnp.float16 else 1e-5  # Flax rounds the input before it computes the statistics
    np.testing.assert_allclose(ours.mean[...], theirs.mean[...], rtol=tolerance)
    np.testing.assert_allclose(ours.var[...], theirs.var[...], rtol=10 * tolerance)
    assert getattr(ours.scale, "a", None) == getattr(theirs.scale, "a", None)


DROPOUTS = {
    "of a stream": (lambda kind: kind(0.5, rngs=nnx.Rngs(3)), dict),
    "of another stream": (lambda kind: kind(0.5, rng_collection="noise", rngs=nnx.Rngs(noise=3)), dict),
    "of a stream by itself": (lambda kind: kind(0.5, rngs=nnx.Rngs(3).dropout), dict),
    "of rngs at the call": (lambda kind: kind(0.5, rngs=nnx.Rngs(0)), lambda: {"rngs": nnx.Rngs(1)}),
    "of a key at the call": (lambda kind: kind(0.5), lambda: {"rngs": jax.random.key(0)}),
    "of maps": (lambda kind: kind(0.5, broadcast_dims=(1, 2)), lambda: {"rngs": jax.random.key(0)}),
    "of all": (lambda kind: kind(1.0), dict),
    "of none": (lambda kind: kind(0.0), dict),
    "deterministic": (lambda kind: kind(0.5, deterministic=True), dict),
    "deterministic at the call": (lambda kind: kind(0.5), lambda: {"deterministic": True}),
    "not deterministic at the call": (
        lambda kind: kind(0.5, deterministic=True, rngs=nnx.Rngs(0)),
        lambda: {"deterministic": False},
    ),
}


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout_is_that_of_flax(name):
    make, call = DROPOUTS[name]
    ours, theirs = make(nn.Dropout), make(nnx.Dropout)
    for _ in range(2):
        np.testing.assert_array_equal(ours(X, **call()), theirs(jnp.asarray(X), **call()))


def network():
    rngs = nnx.Rngs(0)
    inner = nn.Sequence({"dropout": nn.Dropout(0.5, rngs=rngs), "norm": nn.BatchNorm(3, rngs=rngs)})
    stock = nn.Sequence({"dropout": nnx.Dropout(0.5, rngs=rngs), "norm": nnx.BatchNorm(3, rngs=rngs)})
    return nn.Sequence(
        {"residual": nn.Residual({"inner": inner}), "both": nn.Parallel({"ours": inner, "stock": stock})}
    )


def in_training(model, **options):
    """Whether a call updates the statistics."""
    norms = [module for _, module in nnx.iter_modules(model) if isinstance(module, nnx.BatchNorm)]
    before = [np.asarray(norm.mean[...]) for norm in norms]
    model(X, **options)
    moved = [(norm.mean[...] != mean).all() for norm, mean in zip(norms, before, strict=True)]
    assert len(moved) == 2
    assert all(moved) == any(moved)
    return all(moved)


def test_train_goes_before_the_call_and_that_before_the_attribute():
    model = network()
    assert in_training(model)  # the initial mode of Flax's layers
    model.eval()
    assert not in_training(model)
    assert in_training(model, train=True)
    assert not in_training(model)
    model.train()
    assert in_training(model)
    assert not in_training(model, train=False)
    layer = nn.BatchNorm(3, use_running_average=True, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(layer(X, True, train=False), layer(X, use_running_average=True))
    layer(X, use_running_average=True, train=True)
    assert (layer.mean[...] != 0).all()
    dropout = nn.Dropout(0.5, deterministic=True, rngs=nnx.Rngs(0))
    assert (dropout(X, deterministic=True, train=True) == 0).any()
    assert (dropout(X, deterministic=False, train=False) == X).all()
    assert nnx.view(layer, use_running_average=False).use_running_average is False


def test_nothing_says_whether_to_train():
    x = jnp.ones((2, 3))
    with pytest.raises(UsageError, match=r"^BatchNorm: training mode is not set; call model.train\(\) or .*train="):
        nn.BatchNorm(3, use_running_average=None, rngs=nnx.Rngs(0))(x)
    with pytest.raises(UsageError, match=r"^Dropout: training mode is not set"):
        nn.Dropout(0.5, deterministic=None)(x)


def test_networks_are_made_to_evaluate():
    model = models.create("lenet_5_modern", dropout_rate=0.5, input_shape=(28, 28, 1))
    x = np.random.default_rng(0).standard_normal((2, 28, 28, 1)).astype(np.float32)
    np.testing.assert_array_equal(model(x), model(x, train=False))
    model.train()
    np.testing.assert_array_equal(model(x, rngs=jax.random.key(0)), model(x, train=True, rngs=jax.random.key(0)))
