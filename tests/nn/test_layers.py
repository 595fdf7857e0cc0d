"""Layers without kernels: the arguments that they pass to ops, and BatchNorm against Flax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import nn, ops

X = np.random.default_rng(0).standard_normal((2, 7, 6, 4)).astype(np.float32)


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_is_that_of_flax(train):
    options = {"momentum": 0.8, "epsilon": 1e-3, "scale_init": nnx.initializers.normal()}
    theirs = nnx.BatchNorm(4, use_fast_variance=False, rngs=nnx.Rngs(0), **options)
    ours = nn.BatchNorm(4, rngs=nnx.Rngs(0), **options)
    assert jax.tree.structure(nnx.state(ours)) == jax.tree.structure(nnx.state(theirs))
    for _ in range(2):
        expected, actual = theirs(X, use_running_average=not train), ours(X, train=train)
        np.testing.assert_allclose(actual, expected, atol=1e-6)
    for expected, actual in zip(jax.tree.leaves(nnx.state(theirs)), jax.tree.leaves(nnx.state(ours)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)


def test_instance_norm_is_that_of_each_image_and_channel():
    wide = X.astype(np.float64)
    expected = (wide - wide.mean(axis=(1, 2), keepdims=True)) / np.sqrt(wide.var(axis=(1, 2), keepdims=True) + 0.01)
    np.testing.assert_allclose(nn.InstanceNorm(epsilon=0.01)(X), expected, atol=1e-6)


def test_batch_norm_types():
    layer = nn.BatchNorm(4, dtype=jnp.bfloat16, use_bias=False, use_scale=False, rngs=nnx.Rngs(0))
    assert layer(jnp.asarray(X, jnp.bfloat16), train=True).dtype == jnp.bfloat16
    assert layer.mean[...].dtype == jnp.float32
    assert not jax.tree.leaves(nnx.state(layer, nnx.Param))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_batch_norm_rounds_half_precision_once(half, dtype, train):
    """Compares with NumPy in float64; parameters and statistics have more digits than the inputs."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(50, 3, (8, 5, 5, 4)), half)
    layer = nn.BatchNorm(4, dtype=dtype, rngs=nnx.Rngs(0))
    vectors = {name: rng.uniform(1, 2, 4).astype(np.float32) for name in ("scale", "bias", "var")}
    vectors["mean"] = rng.uniform(48, 52, 4).astype(np.float32)
    for name, vector in vectors.items():
        getattr(layer, name)[...] = jnp.asarray(vector)
    scale, bias, variance, mean = (np.float64(vectors[name]) for name in ("scale", "bias", "var", "mean"))
    wide = np.float64(np.asarray(x, np.float32))
    if train:
        mean, variance = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
    expected = (wide - mean) / np.sqrt(variance + 1e-5) * scale + bias
    y = layer(x, train=train)
    assert y.dtype == (dtype or "float32")
    one_rounding = float(jnp.finfo(y.dtype).eps) / 2
    np.testing.assert_allclose(np.float64(y), expected, rtol=one_rounding, atol=1e-5)
    if train:
        running = 0.99 * np.float64(vectors["mean"]) + 0.01 * mean
        np.testing.assert_allclose(layer.mean[...], running, rtol=1e-6)


def test_batch_norm_beyond_the_range_of_float16():
    layer = nn.BatchNorm(2, use_running_average=True, scale_init=nnx.initializers.constant(4.0), rngs=nnx.Rngs(0))
    y = layer(jnp.full((1, 2), 30000, jnp.float16))
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, 4 * 30000 / np.sqrt(1 + 1e-5), rtol=1e-6)


def test_layers_hand_on_their_options():
    sliding = {"strides": (2, 1), "padding": 1, "rounding": "ceil", "dilation": (1, 2)}
    pairs = [
        (nn.MaxPool((3, 2), ties="all", **sliding)(X), ops.max_pool(X, (3, 2), **sliding)),
        (
            nn.AvgPool((3, 2), count_include_pad=False, **sliding)(X),
            ops.avg_pool(X, (3, 2), count_include_pad=False, **sliding),
        ),
        (nn.LpPool((3, 2), p=3, **sliding)(X), ops.lp_pool(X, (3, 2), p=3, **sliding)),
        (nn.AdaptiveAvgPool((3, 3))(X), ops.adaptive_avg_pool(X, (3, 3))),
        (nn.AdaptiveMaxPool((3, 3))(X), ops.adaptive_max_pool(X, (3, 3))),
        (
            nn.Upsample((2, 1), method="bilinear", align_corners=True)(X),
            ops.upsample(X, (2, 1), method="bilinear", align_corners=True),
        ),
        (
            nn.LocalResponseNorm((3, 3), alpha=1, beta=0.5, k=1, convention="torch")(X),
            ops.local_response_norm(X, size=(3, 3), alpha=1, beta=0.5, k=1, convention="torch"),
        ),
        (nn.flatten(X), X.reshape(2, -1)),
    ]
    y, indices = ops.max_pool(X, (3, 3), strides=2, return_indices=True)
    both = nn.MaxPool((3, 3), strides=2, return_indices=True)(X)
    pairs += zip(both, (y, indices), strict=True)
    pairs.append((nn.MaxUnpool((7, 6), overlap="add")(y, indices), ops.max_unpool(y, indices, (7, 6), overlap="add")))
    for actual, expected in pairs:
        np.testing.assert_array_equal(actual, expected)
    gradients = [
        jax.grad(lambda x, t=t: nn.MaxPool((2, 2), ties=t)(x).sum())(jnp.ones((2, 2, 1))).sum()
        for t in ("first", "all")
    ]
    assert gradients == [1, 4]


def test_the_centers_of_rbf_output_are_not_trained():
    layer = nn.RBFOutput(np.eye(3, 4, dtype=np.float32))
    np.testing.assert_array_equal(layer(np.float32([1, 0, 0, 0])), [0, 2, 2])
    assert not jax.tree.leaves(nnx.state(layer, nnx.Param))
