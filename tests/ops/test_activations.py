"""Activation functions against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops


@pytest.mark.parametrize("rule", ["standard", "deconvnet", "guided"])
def test_relu_rules(rule):
    x, dy = (grid.ravel() for grid in np.meshgrid([-2.0, -0.0, 0.0, 3.0], [-1.0, 0.0, 2.0]))
    y, vjp = jax.vjp(lambda x: ops.relu(x, rule=rule), jnp.asarray(x, jnp.float32))
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    passes = {"standard": x > 0, "deconvnet": dy > 0, "guided": (x > 0) & (dy > 0)}[rule]
    np.testing.assert_array_equal(vjp(jnp.asarray(dy, jnp.float32))[0], np.where(passes, dy, 0))


def test_scaled_tanh():
    # Efficient BackProp: f(±1) = ±1, and the second derivative is largest in size there.
    np.testing.assert_allclose(ops.scaled_tanh(np.float32([-1, 1])), [-1, 1], atol=1e-4)
    points = jnp.linspace(0, 3, 301)
    second = jax.vmap(jax.grad(jax.grad(ops.scaled_tanh)))(points)
    np.testing.assert_allclose(points[np.abs(second).argmax()], 1, atol=0.02)
