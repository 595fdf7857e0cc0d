"""Dropout: shared masks, the rate, and the scale of the remaining values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.75])
def test_rate_and_mean(rate):
    x = jnp.full((100, 100), 3.0)
    y = np.asarray(ops.dropout(x, rate, key=jax.random.key(0)))
    np.testing.assert_allclose(y[y != 0], 3 / (1 - rate), rtol=1e-6)
    deviation = np.sqrt(rate * (1 - rate) / y.size)
    assert abs((y == 0).mean() - rate) <= 4 * deviation


def test_entries_dropped_together():
    x = jnp.ones((3, 4, 5, 20))
    y = np.asarray(ops.dropout(x, 0.5, key=jax.random.key(0), broadcast_dims=(-1,)))
    assert (y == y[..., :1]).all()
    assert len(np.unique(y[..., 0])) == 2
    y = np.asarray(ops.spatial_dropout(x, 0.5, key=jax.random.key(0)))
    assert (y == y[:, :1, :1]).all()
    assert len(np.unique(y[:, 0, 0])) == 2


def test_gradient_and_type():
    x = jnp.arange(1.0, 9.0, dtype=jnp.bfloat16)
    y, vjp = jax.vjp(lambda x: ops.dropout(x, 0.5, key=jax.random.key(3)), x)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(vjp(jnp.ones_like(y))[0] * x, y)
