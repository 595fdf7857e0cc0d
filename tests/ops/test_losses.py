"""Losses against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from cnn_jax import ops


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_cross_entropy(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((4, 3, 5)), rng.integers(0, 5, (4, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    target = (1 - smoothing) * np.eye(5)[labels] + smoothing / 5
    expected = -(target * np.log(probabilities)).sum(axis=-1)
    with jax.enable_x64(True):
        for kind in (labels, np.eye(5)[labels]):
            losses = ops.softmax_cross_entropy(logits, kind, label_smoothing=smoothing)
            np.testing.assert_allclose(losses, expected, rtol=1e-12)
        gradient = jax.grad(lambda z: ops.softmax_cross_entropy(z, labels, label_smoothing=smoothing).sum())(logits)
        np.testing.assert_allclose(gradient, probabilities - target, atol=1e-12)


def test_softmax_cross_entropy_of_extreme_logits():
    logits = jnp.array([[1e4, 0.0], [0.0, 1e4], [0.0, -jnp.inf]])
    np.testing.assert_array_equal(ops.softmax_cross_entropy(logits, jnp.array([0, 0, 0])), [0, 1e4, 0])
    assert ops.softmax_cross_entropy(jnp.zeros((2, 3), jnp.bfloat16), jnp.array([0, 1])).dtype == jnp.float32


def test_rbf_output():
    rng = np.random.default_rng(0)
    x, centers = rng.standard_normal((6, 84)), rng.choice([-1.0, 1.0], (10, 84))
    with jax.enable_x64(True):
        expected = [[((one - center) ** 2).sum() for center in centers] for one in x]
        np.testing.assert_allclose(ops.rbf_output(x, centers), expected, rtol=1e-12)
        check_grads(ops.rbf_output, (x, centers), order=1, modes=["rev"])
        np.testing.assert_array_equal(ops.rbf_output(centers[3], centers).argmin(), 3)
