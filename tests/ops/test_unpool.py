"""Unpooling and upsampling against NumPy and hand-computed values."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import ops


def test_max_unpool_against_a_loop():
    x = np.random.default_rng(0).standard_normal((2, 5, 6, 3)).astype(np.float32)
    y, indices = ops.max_pool(x, (2, 2), return_indices=True)
    expected = np.zeros_like(x)
    for n, i, j, c in np.ndindex(y.shape):
        expected[(n, *divmod(int(indices[n, i, j, c]), 6), c)] = y[n, i, j, c]
    np.testing.assert_array_equal(ops.max_unpool(y, indices, (5, 6)), expected)
    # Without a batch, and with two batch axes.
    np.testing.assert_array_equal(ops.max_unpool(y[0], indices[0], (5, 6)), expected[0])
    np.testing.assert_array_equal(ops.max_unpool(y[None], indices[None], (5, 6)), expected[None])


def test_indices_outside_the_map_are_dropped_where_they_cannot_be_checked():
    unpool = jax.jit(functools.partial(ops.max_unpool, output_shape=(4,)))
    unpooled = unpool(jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[1], [-1], [4]]))
    np.testing.assert_array_equal(unpooled[:, 0], [0, 1, 0, 0])


@pytest.mark.parametrize("channels", [2, 16])
def test_added_overlaps_make_the_adjoint_of_the_pool(channels):
    x = np.random.default_rng(0).standard_normal((2, 7, 6, channels)).astype(np.float32)
    pool = functools.partial(ops.max_pool, window=(3, 3), strides=2, padding=1)

    @jax.jit
    def run(x):
        y, vjp = jax.vjp(pool, x)
        _, indices = pool(x, return_indices=True)
        return ops.max_unpool(y, indices, (7, 6), overlap="add"), vjp(y)[0], ops.max_unpool(y, indices, (7, 6))

    added, gradient, placed = run(x)
    np.testing.assert_allclose(added, gradient, rtol=1e-6)
    np.testing.assert_array_equal(placed, np.where(gradient != 0, x, 0))


def test_the_gradient_of_max_unpool_reads_where_it_wrote():
    indices = jnp.array([1, 2])[:, None]
    gradient = jax.grad(lambda y: (ops.max_unpool(y, indices, (4,))[:, 0] * jnp.arange(4.0)).sum())(jnp.ones((2, 1)))
    np.testing.assert_array_equal(gradient[:, 0], [1, 2])


CASES = {  # window, strides, padding, sizes: those that do not overlap, with and without a rest; others
    "2x2": ((2, 2), (2, 2), 0, (6, 8)),
    "2x3 with a rest": ((2, 3), (2, 3), 0, (7, 8)),
    "gaps": ((2, 2), (3, 3), 0, (7, 9)),
    "overlapping": ((3, 3), (2, 2), 0, (7, 9)),
    "padded": ((2, 2), (2, 2), 1, (6, 6)),
    "3-D": ((2, 2, 2), (2, 2, 2), 0, (4, 5, 6)),
    "1-D": ((4,), (4,), 0, (9,)),
}


@pytest.mark.parametrize("case", CASES)
def test_max_unpool_and_its_gradient_against_loops(case):
    """Whichever way it is computed. Each kept value gets the gradient of its place, others get none."""
    window, strides, padding, sizes = CASES[case]
    random = np.random.default_rng(0)
    x, dy = (random.standard_normal((2, *sizes, 3)).astype(np.float32) for _ in range(2))
    options = {"strides": strides, "padding": padding, "return_indices": True}

    @jax.jit
    def run(x, dy):
        pooled, indices = ops.max_pool(x, window, **options)
        y, pull_back = jax.vjp(lambda pooled: ops.max_unpool(pooled, indices, sizes), pooled)
        _, tangent = jax.jvp(lambda pooled: ops.max_unpool(pooled, indices, sizes), (pooled,), (2 * pooled,))
        return pooled, indices, y, pull_back(dy)[0], tangent

    pooled, indices, y, gradient, tangent = map(np.asarray, run(x, dy))
    expected, places = np.zeros_like(x), np.zeros_like(pooled)
    for n, *place, c in np.ndindex(pooled.shape):
        to = np.unravel_index(indices[(n, *place, c)], sizes)
        expected[(n, *to, c)] = pooled[(n, *place, c)]
        places[(n, *place, c)] = dy[(n, *to, c)]
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(tangent, 2 * expected)
    if case == "overlapping":  # one of the windows that share a maximum is kept
        np.testing.assert_allclose((gradient * pooled).sum(), (dy * expected).sum(), rtol=1e-5)
        assert ((gradient == places) | (gradient == 0)).all()
    else:
        np.testing.assert_array_equal(gradient, places)


def test_indices_of_another_window_are_followed():
    """They are in the map, though not in the windows that the sizes suggest."""
    y, indices = jnp.array([[1.0], [2.0]]), jnp.array([[3], [0]])
    unpool = jax.jit(functools.partial(ops.max_unpool, output_shape=(4,)))
    np.testing.assert_array_equal(unpool(y, indices)[:, 0], [2, 0, 0, 1])
    both = jax.vmap(unpool)(jnp.stack([y, y]), jnp.stack([indices, indices[::-1]]))
    np.testing.assert_array_equal(both[..., 0], [[2, 0, 0, 1], [1, 0, 0, 2]])


def test_upsampling_by_hand():
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]])[..., None]
    nearest = [[1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2], [3, 3, 3, 4, 4, 4], [3, 3, 3, 4, 4, 4]]
    np.testing.assert_array_equal(ops.upsample(x, (2, 3))[..., 0], nearest)
    nails = [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(ops.upsample(x, (2, 2), method="bed_of_nails")[..., 0], nails)
    corners = ops.upsample(x, (2, 2), method="bilinear", align_corners=True)[..., 0]
    np.testing.assert_allclose(corners, np.add.outer(2 * np.arange(4) / 3, 1 + np.arange(4) / 3), rtol=1e-6)
    np.testing.assert_array_equal(ops.upsample(x[:1, :1], (3, 2), method="bilinear"), np.ones((3, 2, 1)))


def test_bilinear_is_what_resizing_does():
    x = np.random.default_rng(0).standard_normal((2, 5, 4, 3)).astype(np.float32)
    expected = jax.image.resize(x, (2, 10, 12, 3), "bilinear")
    np.testing.assert_allclose(ops.upsample(x, (2, 3), method="bilinear"), expected, atol=1e-5)
