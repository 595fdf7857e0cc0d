"""Pools against NumPy loops and hand-computed values, and under JAX's transforms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from cnn_jax import ops
from tests.compiled import compiled
from tests.ops.pool_reference import build


def assert_equals_loops(case, *, include, p):
    """Every pool, with its gradient, in one compiled program."""
    pools = {ties: functools.partial(ops.max_pool, ties=ties) for ties in ("first", "split", "all")}
    pools["avg"] = functools.partial(ops.avg_pool, count_include_pad=include)
    pools["lp"] = functools.partial(ops.lp_pool, p=p)
    with jax.enable_x64(True):

        @compiled
        def run(x, dy):
            results = {}
            for name, pool in pools.items():
                y, vjp = jax.vjp(lambda x, pool=pool: pool(x, case.window, **case.options), x)
                results[name] = y, vjp(dy)[0]
            return results, ops.max_pool(x, case.window, return_indices=True, **case.options)[1]

        results, actual_indices = jax.device_get(run(case.x, case.dy))
    for ties in ("first", "split", "all"):
        y, indices, dx = case.max_pool(ties)
        np.testing.assert_array_equal(results[ties][0], y)
        np.testing.assert_allclose(results[ties][1], dx, atol=1e-12)
        np.testing.assert_array_equal(actual_indices, indices)
    for name, expected in {"avg": case.avg_pool(include), "lp": case.lp_pool(p)}.items():
        np.testing.assert_allclose(results[name][0], expected[0], atol=1e-12)
        np.testing.assert_allclose(results[name][1], expected[1], atol=1e-12)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(rng=st.randoms(use_true_random=True))
def test_every_pool_and_gradient_against_loops(rng):
    assert_equals_loops(build(rng.choice), include=rng.choice([True, False]), p=rng.choice([1, 2, 2.5]))


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_pool_and_gradient_against_loops_by_thousands(data):
    def pick(options):
        return data.draw(st.sampled_from(options))

    assert_equals_loops(build(pick), include=pick([True, False]), p=pick([1, 2, 2.5]))


def test_small_windows_by_hand():
    x = jnp.array([[1.0, 5.0, 2.0], [4.0, 5.0, 0.0], [7.0, 8.0, 9.0]])[..., None]
    np.testing.assert_array_equal(ops.max_pool(x, (2, 2), strides=1)[..., 0], [[5, 5], [8, 9]])
    np.testing.assert_array_equal(ops.max_pool(x, (2, 2), rounding="ceil")[..., 0], [[5, 2], [8, 9]])
    np.testing.assert_array_equal(ops.avg_pool(x, (2, 2), rounding="ceil")[..., 0], [[3.75, 1], [7.5, 9]])
    # XLA multiplies by the rounded 1 / 9.
    np.testing.assert_array_max_ulp(np.asarray(ops.avg_pool(x, (3, 3))[..., 0]), np.float32([[41 / 9]]), maxulp=1)


def test_where_tied_gradients_go():
    x = jnp.array([2.0, 2.0, 1.0, 2.0])[:, None]
    for ties, expected in {"first": [3, 0, 0, 0], "split": [1, 1, 0, 1], "all": [3, 3, 0, 3]}.items():
        gradient = jax.vjp(functools.partial(ops.max_pool, window=(4,), ties=ties), x)[1](jnp.full((1, 1), 3.0))[0]
        np.testing.assert_allclose(gradient[:, 0], expected, rtol=1e-6)


def test_tied_gradients_go_the_same_way_in_every_order():
    x = jnp.array([2.0, 2.0, 1.0, 2.0])[:, None]
    for ties, row in {"first": [1, 0, 0, 0], "split": [1 / 3, 1 / 3, 0, 1 / 3], "all": [1, 1, 0, 1]}.items():
        hessian = jax.hessian(lambda x, ties=ties: ops.max_pool(x, (4,), ties=ties)[0, 0] ** 3)(x)
        # y**3 has the second derivative 6 y = 12; each differentiation passes through the pool once.
        np.testing.assert_allclose(hessian[:, 0, :, 0], 12 * np.outer(row, row), rtol=1e-6)


def test_a_last_window_counts_what_it_has():
    # The pitfall: dividing by the size of the whole window where part of it lies beyond the padded input.
    x = jnp.arange(1.0, 6.0)[:, None]
    np.testing.assert_array_equal(ops.avg_pool(x, (2,), rounding="ceil")[:, 0], [1.5, 3.5, 5])
    np.testing.assert_allclose(ops.avg_pool(x, (3,), strides=2, padding=1, rounding="ceil")[:, 0], [1, 3, 3])
    included = ops.avg_pool(x, (4,), strides=3, padding=1, rounding="ceil")[:, 0]
    np.testing.assert_allclose(included, [6 / 4, 12 / 4])
    # Six entries and one of padding, windows of 4 at every 2: the last has 5, 6 and padding; the fourth lies outside.
    x = jnp.arange(1.0, 7.0)[:, None]
    last = ops.avg_pool(x, (4,), strides=2, padding=[(0, 1)], rounding="ceil")[:, 0]
    np.testing.assert_allclose(last, [2.5, 4.5, 11 / 3])


@pytest.mark.parametrize("channels", [1, 16])
def test_infinities_and_nans(channels):
    # A window of -inf has its maximum in the input and not in the padding; a NaN is a maximum.
    x = np.full((4, 4, channels), -np.inf, np.float32)
    x[3, 3] = np.nan
    pool = compiled(functools.partial(ops.max_pool, window=(3, 3), strides=2, padding=1, return_indices=True))
    y, indices = pool(x)
    assert np.isnan(y[1, 1]).all()
    assert (np.asarray(y)[:1] == -np.inf).all()
    np.testing.assert_array_equal(indices[..., 0], [[0, 1], [4, 15]])
    for ties in ("first", "split", "all"):
        gradient = compiled(jax.grad(lambda x, ties=ties: ops.max_pool(x, (2, 2), ties=ties).sum()))(x)
        assert gradient[3, 3, 0] == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtypes(dtype):
    x = jnp.arange(24, dtype=dtype).reshape(2, 6, 2)

    @compiled
    def run(x):
        for pool in (ops.max_pool, ops.avg_pool, ops.lp_pool):
            y, vjp = jax.vjp(lambda x, pool=pool: pool(x, (3,)), x)
            assert (y.dtype.name, vjp(y)[0].dtype.name, y.shape) == (dtype, dtype, (2, 2, 2))
        # 2049 entries of 1 sum up to 2048 in float16, to 256 in bfloat16, unless they are summed in float32.
        return ops.avg_pool(jnp.ones((2049, 1), dtype), (2049,))

    assert run(x)[0, 0] == 1


@pytest.mark.parametrize("channels", [3, 16])
def test_finite_differences_of_second_order(channels):
    with jax.enable_x64(True):
        x = np.random.default_rng(0).permutation(5 * 4 * channels).reshape(5, 4, channels) / 100 - 0.205

        @jax.jit
        def energy(x):
            options = {"window": (3, 2), "strides": 2, "padding": 1}
            maxima = ops.max_pool(x, **options) + ops.max_pool(x, ties="split", **options)
            return (maxima**3 + ops.avg_pool(x, **options) ** 3 + ops.lp_pool(x, **options) ** 3).sum()

        check_grads(energy, (x,), order=2, modes=["rev"])


def test_forward_mode():
    """Tangents against gradients: <J d, y> = <d, J' y>, and Hessians by forward over reverse and twice reverse."""
    x = np.random.default_rng(0).integers(-2, 3, (2, 6, 20, 2)).astype(np.float32) + 0.25  # with ties, without zeros
    tied = [functools.partial(ops.max_pool, ties=ties) for ties in ("split", "all")]
    pools = [ops.max_pool, ops.avg_pool, ops.lp_pool, *tied]
    cases = [functools.partial(pool, window=(3, w), strides=2, padding=1) for pool in pools for w in (2, 18)]
    cases += [functools.partial(ops.adaptive_max_pool, output_size=(4, 3))]
    cases += [functools.partial(ops.local_response_norm, size=size, alpha=0.3) for size in (3, (3, 3), (1, 19))]

    def run(x, direction):
        for case in cases:
            y, tangent = jax.jvp(case, (x,), (direction,))
            expected, vjp = jax.vjp(case, x)
            hessian = jax.jvp(jax.grad(lambda x, case=case: (case(x) ** 3).sum()), (x,), (direction,))
            reverse = jax.grad(lambda x, case=case: jnp.vdot(jax.grad(lambda x: (case(x) ** 3).sum())(x), direction))(x)
            yield (y, expected), (jnp.vdot(tangent, y), jnp.vdot(direction, vjp(y)[0])), (hessian[1], reverse)

    for pairs in compiled(lambda *arrays: list(run(*arrays)))(x, x[::-1, ::-1]):
        for actual, expected in pairs:
            np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=1e-3)


def test_vmap_scan_checkpoint_and_any_batch():
    x = np.random.default_rng(0).standard_normal((3, 2, 7, 6, 2), np.float32)
    pool = functools.partial(ops.max_pool, window=(3, 2), strides=2, rounding="ceil")
    gradient = jax.grad(lambda x: (pool(x) ** 2).sum())
    checkpointed = jax.grad(lambda x: (jax.checkpoint(pool)(x) ** 2).sum())

    @compiled
    def run(x):
        outputs = [pool(x), jax.vmap(pool)(x), jax.lax.map(pool, x), jnp.stack([pool(one[0])[None] for one in x])]
        gradients = [gradient(x), jax.vmap(gradient)(x), jax.lax.map(gradient, x), checkpointed(x)]
        return outputs, gradients

    (y, *others), (dx, *gradients) = run(x)
    for other in others:
        np.testing.assert_array_equal(other[:, :1], y[:, :1])
    for other in gradients:
        np.testing.assert_allclose(other, dx, rtol=1e-6)


def test_sharded_over_eight_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x = jax.random.normal(jax.random.key(0), (16, 6, 6, 2))

    def energy(x):
        return (ops.max_pool(x, (3, 3), strides=2) ** 2).sum() + (ops.avg_pool(x, (2, 2)) ** 2).sum()

    gradient = compiled(jax.grad(energy))(jax.device_put(x, sharding))
    assert gradient.sharding.is_equivalent_to(sharding, 4)
    np.testing.assert_allclose(gradient, compiled(jax.grad(energy))(x), rtol=1e-6)
