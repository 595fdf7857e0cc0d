"""Pools by the native kernels: against loops in float64, NaNs, under transforms, over devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnn_jax import native, ops
from tests.compiled import compiled
from tests.ops.pool_reference import Case, build
from tests.ops.reference import Axis

pytestmark = pytest.mark.usefixtures("kernels")
CALL = "cnn_jax_window_"
CHANNELS = (5, 16, 70)  # XLA for some passes; one vector; several at once, and a last one that overlaps


def assert_pools_are_exact(case, *, include):
    """Maxima and averages with their gradients, in one compiled program."""

    def pools(x, dy):
        largest, of_largest = jax.vjp(lambda x: ops.max_pool(x, case.window, **case.options), x)
        average, of_average = jax.vjp(
            lambda x: ops.avg_pool(x, case.window, count_include_pad=include, **case.options), x
        )
        return largest, of_largest(dy)[0], average, of_average(dy)[0]

    y, dx, mean, dmean = compiled(pools)(case.x, case.dy)
    largest, _, of_largest = case.max_pool("first")
    np.testing.assert_array_equal(y, largest)
    np.testing.assert_allclose(dx, of_largest, rtol=0, atol=1e-5)
    for actual, expected in zip((mean, dmean), case.avg_pool(include), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(rng=st.randoms(use_true_random=True))
def test_random_pools(rng):
    assert_pools_are_exact(build(rng.choice, np.float32, CHANNELS), include=rng.choice([True, False]))


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_many_random_pools(data):
    def pick(options):
        return data.draw(st.sampled_from(options))

    assert_pools_are_exact(build(pick, np.float32, CHANNELS), include=pick([True, False]))


def test_threads_share_large_pools():
    rng = np.random.default_rng(0)
    axes = (Axis(33, 3, 2, 1, 1), Axis(34, 3, 2, 1, 1))
    x, dy = rng.integers(0, 3, (3, 33, 34, 16)), rng.standard_normal((3, 17, 17, 16))
    assert_pools_are_exact(Case(axes, "floor", x.astype(np.float32), dy.astype(np.float32)), include=True)


def gradient(x, **options):
    """The maxima and the gradient, the same function for all windows of one size."""
    y, vjp = jax.vjp(lambda x: ops.max_pool(x, (3, 2), strides=(2, 1), padding=((1, 1), (1, 0)), **options), x)
    return y, vjp(jnp.cos(jnp.arange(y.size, dtype=y.dtype).reshape(y.shape)))[0]


def without_kernels(function, *arguments):
    native.enable(False, environ={})
    jax.clear_caches()
    return jax.device_get(compiled(function)(*arguments))


def test_nan_and_infinity_win_where_they_win_without_kernels():
    rng = np.random.default_rng(0)
    x = rng.choice([np.nan, -np.inf, np.inf, 0.0, 1.0], (2, 9, 8, 21), p=[0.1, 0.5, 0.1, 0.2, 0.1]).astype(np.float32)
    program = jax.jit(gradient).lower(x)
    assert program.as_text().count(f"@{CALL}maxima") == 2
    ours = program.compile()(x)
    for actual, expected in zip(ours, without_kernels(gradient, x), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)
    last = [np.float32([0, np.nan, 1, np.nan, 2]).reshape(1, 5, 1).repeat(c, 2) for c in (2, 17)]
    for line in last:  # the gradient goes to the last NaN of a window
        found = jax.grad(lambda x: jnp.sum(ops.max_pool(x, (5,))))
        np.testing.assert_array_equal(found(line), [[[0], [0], [0], [1], [0]]] * np.ones_like(line))


def transforms(x):
    """What must be the same with and without the kernels."""

    def loss(x):
        y = ops.max_pool(x, (2, 2), strides=1, padding=1)
        return jnp.sum(jnp.sin(ops.avg_pool(y, (3, 2), strides=2)) ** 2) + jnp.sum(ops.global_avg_pool(y) ** 3)

    pools = {ties: functools.partial(ops.max_pool, window=(2, 2), ties=ties) for ties in ("split", "all")}
    return {
        "gradient": jax.grad(loss)(x),
        "jvp": jax.jvp(loss, (x,), (jnp.cos(x),)),
        "forward over reverse": jax.jvp(jax.grad(loss), (x,), (jnp.cos(x),)),
        "vmap": jax.vmap(jax.grad(loss), 1)(jnp.stack([x, 2 * x], 1)),
        "scan": jax.lax.scan(lambda x, scale: (x - scale * jax.grad(loss)(x), loss(x)), x, jnp.arange(1.0, 3.0)),
        "remat": jax.grad(jax.checkpoint(loss))(x),
        "indices": ops.max_pool(x, (3, 3), return_indices=True),
        "bfloat16": jax.grad(lambda x: loss(x.astype("bfloat16")).astype("float32"))(x),
        **{ties: jax.grad(lambda x, pool=pool: jnp.sum(pool(jnp.round(x)) ** 2))(x) for ties, pool in pools.items()},
    }


def test_every_transform_is_that_without_kernels():
    x = np.random.default_rng(0).standard_normal((3, 7, 8, 19), np.float32)
    program = jax.jit(transforms).lower(x)
    assert CALL in program.as_text()
    ours = jax.device_get(program.compile()(x))
    for name, expected in without_kernels(transforms, x).items():
        for actual, wanted in zip(jax.tree.leaves(ours[name]), jax.tree.leaves(expected), strict=True):
            near = 0.01 if name == "bfloat16" else 1e-5
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=near * np.abs(wanted).max(), err_msg=name)


def test_over_devices_each_pools_its_own_images():
    """Under shard_map by the kernels, under automatic partitioning by XLA; exported programs do without."""
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.PartitionSpec("batch")
    x = jnp.asarray(np.random.default_rng(0).standard_normal((16, 9, 9, 16), np.float32))

    def loss(x):
        return jnp.sum(jnp.sin(ops.max_pool(x, (3, 3), strides=2)) ** 2)

    expected = jax.grad(loss)(x)
    mapped = jax.jit(jax.shard_map(jax.grad(loss), mesh=mesh, in_specs=split, out_specs=split)).lower(x)
    assert CALL in mapped.as_text()
    np.testing.assert_allclose(mapped.compile()(x), expected, atol=1e-6)
    placed = jax.device_put(x, jax.sharding.NamedSharding(mesh, split))
    program = jax.jit(jax.grad(loss)).lower(placed).compile()
    assert CALL not in program.as_text()
    assert "all-gather" not in program.as_text()
    np.testing.assert_allclose(program(placed), expected, atol=1e-6)
    assert CALL not in jax.export.export(jax.jit(jax.grad(loss)))(x).mlir_module()
