"""Adaptive and global pools against NumPy slices."""

import itertools

import jax
import numpy as np
import pytest

from cnn_jax import ops


def windows(size, output):
    return [slice(i * size // output, -(-(i + 1) * size // output)) for i in range(output)]


@pytest.mark.parametrize(
    ("space", "output"), [((7,), (3,)), ((7, 10), (3, 4)), ((5, 4), (5, 2)), ((4, 5, 3), (3, 2, 5))]
)
def test_against_slices(space, output):
    x = np.random.default_rng(0).integers(-3, 4, (2, *space, 3)).astype(np.float32)  # integers, so that there are ties
    average, maximum = np.zeros((2, *output, 3)), np.zeros((2, *output, 3))
    indices, dx = np.zeros(maximum.shape, int), np.zeros(x.shape)
    for place in itertools.product(*(enumerate(windows(*axis)) for axis in zip(space, output, strict=True))):
        p, cut = [i for i, _ in place], tuple(window for _, window in place)
        for n, c in itertools.product(range(2), range(3)):
            values = x[n, ..., c][cut]
            average[(n, *p, c)], maximum[(n, *p, c)] = values.mean(), values.max()
            first = np.unravel_index(values.argmax(), values.shape)
            q = tuple(window.start + i for window, i in zip(cut, first, strict=True))
            indices[(n, *p, c)] = np.ravel_multi_index(q, space)
            dx[(n, *q, c)] += 1

    @jax.jit
    def run(x):
        gradient = jax.grad(lambda x: ops.adaptive_max_pool(x, output).sum())(x)
        return ops.adaptive_avg_pool(x, output), *ops.adaptive_max_pool(x, output, return_indices=True), gradient

    for actual, expected in zip(run(x), (average, maximum, indices, dx), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_the_average_is_its_adjoint():
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        x, dy = rng.standard_normal((2, 7, 9, 2)), rng.standard_normal((2, 3, 4, 2))
        y, vjp = jax.vjp(lambda x: ops.adaptive_avg_pool(x, (3, 4)), x)
        np.testing.assert_allclose((y * dy).sum(), (x * vjp(dy)[0]).sum(), rtol=1e-12)


def test_global_pools():
    x = np.random.default_rng(0).integers(-3, 4, (2, 3, 4, 5)).astype(np.float32)
    flat = x.reshape(2, 12, 5)
    np.testing.assert_allclose(ops.global_avg_pool(x), flat.mean(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(ops.global_max_pool(x), flat.max(axis=1))
    for pool in (ops.global_avg_pool, ops.global_max_pool):
        assert pool(x, keepdims=True).shape == (2, 1, 1, 5)
    gradient = jax.grad(lambda x: ops.global_max_pool(x).sum())(x)
    expected = (np.arange(12)[:, None] == flat.argmax(axis=1)[:, None]).reshape(x.shape)
    np.testing.assert_array_equal(gradient, expected)
