"""Normalisations against their formulas in NumPy, float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from cnn_jax import ops
from tests.compiled import compiled


def reference_lrn(x, *, size, alpha, beta, k, convention):
    """The formula of the AlexNet paper, channel by channel, or position by position where size is a window.

    PyTorch takes the neighbours from ``c - size // 2`` to ``c + (size - 1) // 2``, ONNX those from
    ``c - floor((size - 1) / 2)`` to ``c + ceil((size - 1) / 2)``.
    """
    window = size if isinstance(size, tuple) else (size,)
    first = x.ndim - len(window) - isinstance(size, tuple)
    sums = np.zeros_like(x)
    for offset in np.ndindex(window):
        front = [(n - 1) // 2 if convention == "onnx" else n // 2 for n in window]
        shifts = [o - n for o, n in zip(offset, front, strict=True)]
        moved = np.square(x)
        for axis, shift in enumerate(shifts, start=first):
            moved = np.roll(moved, -shift, axis)
            position = np.arange(x.shape[axis]) + shift
            outside = (position < 0) | (position >= x.shape[axis])
            moved = np.moveaxis(np.where(outside, 0, np.moveaxis(moved, axis, -1)), -1, axis)
        sums += moved
    return x / (k + alpha / (1 if convention == "paper" else np.prod(window)) * sums) ** beta


@pytest.mark.parametrize(("size", "channels"), [(5, 4), (5, 20), (2, 20), ((3, 3), 3), ((3, 2), 16)])
@pytest.mark.parametrize("convention", ["paper", "torch", "onnx"])
def test_local_response_norm(size, channels, convention):
    numbers = {"alpha": 0.3, "beta": 0.75, "k": 2.0}
    norm = functools.partial(ops.local_response_norm, size=size, convention=convention, **numbers)
    with jax.enable_x64(True):
        x = np.random.default_rng(0).standard_normal((2, 4, 5, channels))
        y = jax.jit(norm)(x)
        np.testing.assert_allclose(y, reference_lrn(x, size=size, convention=convention, **numbers), rtol=1e-12)
        check_grads(jax.jit(norm), (x,), order=1, modes=["rev"])


def test_local_response_norm_of_onnx_at_an_even_size():
    """By hand: channel c sees c and c + 1, where PyTorch's sees c - 1 and c."""
    x = jnp.array([1.0, 2.0, 3.0])
    numbers = {"size": 2, "alpha": 2.0, "beta": 1.0, "k": 1.0}
    onnx = ops.local_response_norm(x, convention="onnx", **numbers)
    np.testing.assert_allclose(onnx, [1 / (1 + 1 + 4), 2 / (1 + 4 + 9), 3 / (1 + 9)], rtol=1e-6)
    torch = ops.local_response_norm(x, convention="torch", **numbers)
    np.testing.assert_allclose(torch, [1 / (1 + 1), 2 / (1 + 1 + 4), 3 / (1 + 4 + 9)], rtol=1e-6)


@pytest.mark.parametrize(("size", "beta"), [(3, 0.75), ((2, 3), 0.5)])
def test_local_response_norm_in_every_mode_of_differentiation(size, beta):
    """The Hessian, forward over reverse and the other ways, against that of the formula in float64."""
    norm = functools.partial(ops.local_response_norm, size=size, alpha=0.3, beta=beta)
    with jax.enable_x64(True):
        x = np.random.default_rng(0).standard_normal((3, 4, 2))

        def formula(x):
            window = size if isinstance(size, tuple) else (size,)
            first = 3 - len(window) - isinstance(size, tuple)
            widths = [(0, 0)] * 3
            widths[first : first + len(window)] = [(n // 2, (n - 1) // 2) for n in window]
            squares = jnp.pad(x * x, widths)
            sums = 0
            for offset in np.ndindex(window):
                index = [slice(None)] * 3
                for axis, start in enumerate(offset, start=first):
                    index[axis] = slice(start, start + x.shape[axis])
                sums = sums + squares[tuple(index)]
            return x / (2 + 0.3 * sums) ** beta

        @compiled
        def derivatives(x):
            modes = (jax.jacfwd, jax.jacfwd), (jax.jacfwd, jax.jacrev), (jax.jacrev, jax.jacrev)
            ours = [outer(inner(lambda x: (norm(x) ** 2).sum()))(x) for outer, inner in modes]
            return jax.hessian(lambda x: (formula(x) ** 2).sum())(x), jax.jvp(norm, (x,), (x,))[1], ours

        expected, tangent, ours = derivatives(x)
        for actual in ours:
            np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(tangent, jax.jvp(formula, (x,), (x,))[1], rtol=1e-9)


def test_local_response_norm_defaults_are_those_of_the_paper():
    x = np.full((1, 3), 100.0, np.float32)
    np.testing.assert_allclose(ops.local_response_norm(x), 100 / (2 + 1e-4 * 3e4) ** 0.75 * np.ones((1, 3)), rtol=1e-6)


def test_local_response_norm_in_half_precision():
    # 300 squared is beyond float16.
    assert np.isfinite(np.asarray(ops.local_response_norm(jnp.full((2, 8), 300, jnp.float16)))).all()


@pytest.mark.parametrize("mean", [0.0, 1e4, -3e4])
def test_batch_norm_of_data_far_from_zero(mean):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((64, 5, 4, 3)) + mean).astype(np.float32)
    scale, bias = np.float32([1, 2, 3]), np.float32([0, 1, -1])
    wide = x.astype(np.float64)
    expected = (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + 1e-5) * scale + bias
    average, variance = ops.batch_statistics(x)
    np.testing.assert_allclose(variance, wide.var((0, 1, 2)), rtol=1e-5)
    y = ops.batch_norm(x, mean=average, variance=variance, scale=scale, bias=bias)
    np.testing.assert_allclose(y, expected, atol=1e-5 + 4e-7 * abs(mean))  # the mean itself has 24 bits
    y, average, variance = ops.normalize_by_batch(x, scale=scale, bias=bias)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(average, wide.mean((0, 1, 2)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(variance, wide.var((0, 1, 2)), rtol=1e-5)


def test_batch_statistics_where_the_first_example_is_unlike_the_others():
    """The first estimate of the mean comes from it. What counts is the mean in standard deviations."""
    x = np.random.default_rng(0).standard_normal((64, 5, 4, 3)).astype(np.float32)
    x[0] += 1e5
    average, variance = ops.batch_statistics(x)
    np.testing.assert_allclose(average, x.mean((0, 1, 2), dtype=np.float64), rtol=0, atol=1e-5 * x.std())
    np.testing.assert_allclose(variance, x.var((0, 1, 2), dtype=np.float64), rtol=64 * 1e-6)  # 64 examples


def by_statistics(x, scale, bias):
    mean, variance = ops.batch_statistics(x)
    return ops.batch_norm(x, mean=mean, variance=variance, scale=scale, bias=bias)


def at_once(x, scale, bias):
    return ops.normalize_by_batch(x, scale=scale, bias=bias)[0]


@pytest.mark.parametrize("norm", [by_statistics, at_once])
def test_batch_norm_gradients(norm):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        arguments = rng.standard_normal((6, 3, 2)), rng.standard_normal(2), rng.standard_normal(2)
        check_grads(jax.jit(norm), arguments, order=2, modes=["rev"])


def test_batch_statistics_under_a_mask():
    rng = np.random.default_rng(0)
    x, mask = rng.standard_normal((4, 6, 5, 3)).astype(np.float32) + 1e3, rng.random((4, 6, 5, 1)) < 0.4
    mask[:, 0] = False  # the first example of each of four devices counts for nothing, whatever it holds
    x[:, 0] = np.nan
    wide, weights = np.float64(np.nan_to_num(x)), np.broadcast_to(mask, x.shape)
    mean, variance = jax.vmap(
        lambda x, mask: ops.batch_statistics(x, mask=mask, axis_name="replicas"), axis_name="replicas"
    )(x, mask)
    expected = np.average(wide, (0, 1, 2), weights)
    np.testing.assert_allclose(mean, np.broadcast_to(expected, (4, 3)), rtol=1e-6)
    spread = np.average((wide - expected) ** 2, (0, 1, 2), weights)
    np.testing.assert_allclose(variance, np.broadcast_to(spread, (4, 3)), rtol=1e-4)


def test_batch_statistics_across_mapped_axes():
    x = np.random.default_rng(0).standard_normal((4, 6, 3)).astype(np.float32) + 1e3
    mean, variance = jax.vmap(functools.partial(ops.batch_statistics, axis_name="replicas"), axis_name="replicas")(x)
    for one in range(4):
        np.testing.assert_allclose(mean[one], x.mean((0, 1)), rtol=1e-6)
        np.testing.assert_allclose(variance[one], x.var((0, 1), dtype=np.float64), rtol=1e-3)
