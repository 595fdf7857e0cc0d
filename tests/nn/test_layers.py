"""Layers without kernels: what they hand on to the ops, and BatchNorm against Flax's."""

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


def test_batch_norm_types():
    layer = nn.BatchNorm(4, dtype=jnp.bfloat16, use_bias=False, use_scale=False, rngs=nnx.Rngs(0))
    assert layer(jnp.asarray(X, jnp.bfloat16), train=True).dtype == jnp.bfloat16
    assert layer.mean[...].dtype == jnp.float32
    assert not jax.tree.leaves(nnx.state(layer, nnx.Param))


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
