"""The three products of a convolution by the native kernels: against float64, under transforms, over devices."""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from cnn_jax import native, ops
from cnn_jax.errors import UsageError
from cnn_jax.ops import direct
from cnn_jax.ops.formulations import NATIVE
from cnn_jax.runtime.memory import release_freed_memory
from tests.native import by_taps
from tests.ops.reference import Axis, output_shape

pytestmark = pytest.mark.usefixtures("kernels")
CALL = "cnn_jax_convolution"


def arguments(axes, per_group, features, groups=1, batch=2, seed=0):
    """``x``, kernel, ``dy`` and the plan."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, *(axis.size for axis in axes), per_group * groups), np.float32)
    kernel = rng.standard_normal((*(axis.window for axis in axes), per_group, features * groups), np.float32)
    dy = rng.standard_normal((batch, *output_shape(axes), features * groups), np.float32)
    plan = direct.plan_of(
        x.shape,
        kernel.shape,
        [axis.stride for axis in axes],
        tuple((axis.low, axis.high) for axis in axes),
        (1,) * len(axes),
        [axis.dilation for axis in axes],
        groups,
    )
    return x, kernel, dy, plan


@partial(jax.jit, static_argnums=0)
def products(plan, x, kernel, dy):
    return NATIVE.output(plan, x, kernel), NATIVE.input_gradient(plan, dy, kernel), NATIVE.kernel_gradient(plan, x, dy)


def assert_products_are_exact(axes, per_group, features, groups=1, batch=2):
    """Compares the three products with float64, within the bound of sums in float32."""
    x, kernel, dy, plan = arguments(axes, per_group, features, groups, batch)
    exact = by_taps.products(x, kernel, dy, axes, groups)
    sizes = by_taps.products(*map(np.abs, (x, kernel, dy)), axes, groups)
    terms = np.prod(kernel.shape[:-1]), np.prod(kernel.shape) // per_group, np.prod(dy.shape[:-1])
    for name, actual, wanted, size, count in zip(
        ("output", "input gradient", "kernel gradient"), products(plan, x, kernel, dy), exact, sizes, terms, strict=True
    ):
        error = np.abs(np.asarray(actual, np.float64) - wanted)
        assert np.all(error <= (count + 4) * 2.0**-24 * size), f"{name}: {error.max()}"


@st.composite
def cases(draw):
    """Any rank, window, stride, padding (negative, too), dilation and groups; few or many channels."""
    pick = lambda *options: draw(st.sampled_from(options))  # noqa: E731
    rank = pick(1, 2, 2, 2, 3)
    axes = []
    for _ in range(rank):
        size, window = pick(*range(1, {1: 40, 2: 20, 3: 7}[rank])), pick(1, 2, 3, 3, 5)
        stride, dilation = pick(1, 1, 2, 3), pick(1, 1, 1, 2)
        reach = (window - 1) * dilation + 1
        low = pick(*range(-min(2, size - 1), reach + 2))
        high = pick(*range(-min(2, size - 1 + min(low, 0)), reach + 2))
        axes.append(Axis(size, window, stride, low, max(high, reach - size - low), 1, dilation))
    groups = pick(1, 1, 1, 2, 3)
    most = 130 if groups == 1 and np.prod([axis.size for axis in axes]) < 200 else 20
    channels = st.integers(1, most) | st.sampled_from([c for c in (8, 16, 32, 64) if c <= most])
    return axes, draw(channels), draw(channels), groups, pick(1, 2, 3)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_random_convolutions(case):
    assert_products_are_exact(*case)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_many_random_convolutions(case):
    assert_products_are_exact(*case)


# name: what it is the case of, in the source -> axes, channels and features per group, groups, batch
PATHS = {
    "a large kernel gradient in several parts": ([Axis(20, 3, 1, 1, 1), Axis(24, 3, 1, 1, 1)], 128, 96, 1, 5),
    "one of which an image has several parts": ([Axis(40, 1), Axis(38, 1)], 72, 1408, 1, 1),
    "a large one in groups": ([Axis(9, 3, 1, 1, 1), Axis(8, 3, 1, 1, 1)], 48, 64, 4, 2),
    "a large one whose features fill no vector": ([Axis(6, 3, 1, 1, 1), Axis(6, 3, 1, 1, 1)], 128, 100, 1, 2),
    "images in rows": ([Axis(130, 3, 1, 1, 1), Axis(130, 3, 1, 1, 1)], 20, 17, 1, 1),
    "all pixels as one row": ([Axis(9, 1), Axis(11, 1)], 70, 50, 1, 7),
    "a volume": ([Axis(9, 3, 1, 1, 1), Axis(12, 3, 2, 1, 1), Axis(13, 3, 1, 1, 1)], 16, 32, 1, 3),
    "a window without any input": ([Axis(2, 2, 1, 3, 3), Axis(3, 1, 3, 2, 2)], 3, 5, 1, 1),
    "depthwise, with channels that fill no vector": ([Axis(9, 3, 2, 1, 1), Axis(14, 4, 1, 2, 1)], 1, 1, 37, 2),
    "depthwise in several pieces": ([Axis(40, 3, 1, 1, 1, 1, 2), Axis(33, 3, 2, 1, 1)], 1, 1, 64, 3),
    "depthwise, of rank 3": ([Axis(4, 3, 1, 1, 1), Axis(5, 2, 2, 0, 1), Axis(6, 3, 1, 1, 1)], 1, 1, 20, 2),
    "groups of two": ([Axis(7, 3, 1, 1, 1), Axis(12, 3, 2, 1, 1)], 2, 2, 9, 2),
    "groups of four, the last vector of which overlaps": ([Axis(7, 3, 2, 1, 1), Axis(19, 3, 1, 1, 1)], 4, 4, 7, 3),
    "groups of eight": ([Axis(9, 3, 1, 0, 1), Axis(11, 2, 1, 1, 0, 1, 2)], 8, 8, 5, 2),
    "a large one of a strided window of one": ([Axis(9, 1, 2, 0, 0), Axis(12, 1, 3, 1, 1)], 256, 400, 1, 2),
    "a large one of a window of one along one axis": ([Axis(9, 1, 2, 0, 0), Axis(12, 3, 2, 1, 1)], 128, 272, 1, 2),
    "a stride beyond the window": ([Axis(9, 1, 3, 0, 0), Axis(9, 2, 4, 0, 0)], 9, 20, 1, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
def test_each_path_of_the_kernels(name):
    assert_products_are_exact(*PATHS[name])


def test_nan_and_infinity_reach_what_holds_them_and_nothing_else():
    axes = [Axis(9, 3, 2, 1, 1, 1, 2), Axis(17, 3, 1, 1, 1)]
    for value in (np.nan, np.inf):
        x, kernel, dy, plan = arguments(axes, 5, 20)
        x[1, 5, 7, 2], dy[0, 2, 5, 3] = value, value
        with np.errstate(invalid="ignore"):
            wanted = by_taps.products(x, kernel, dy, axes, 1)
        for actual, expected in zip(products(plan, x, kernel, dy), wanted, strict=True):
            assert 0 < np.isfinite(expected).sum() < expected.size
            np.testing.assert_array_equal(np.isfinite(actual), np.isfinite(expected))


def test_denormals_are_kept():
    """In the results, and by what else this process computes."""
    tiny = np.float32(1e-41)
    x, kernel, _, plan = arguments([Axis(4, 1), Axis(40, 1)], 1, 1)
    y = NATIVE.output(plan, jnp.full(x.shape, tiny), jnp.ones(kernel.shape))
    flushed = bool(jax.jit(lambda x: x * 1.5)(tiny) == 0)  # XLA's own threads may do that
    assert flushed or np.all(np.asarray(y) == tiny)
    assert np.float32(1e-41) * np.float32(1.5) > 0


def loss(x, kernel):
    return jnp.sum(jnp.sin(ops.conv(x, kernel, padding=1)) ** 2)


def transforms(x, kernel):
    """What must be the same with and without the kernels."""
    kernels = jnp.stack([kernel, -kernel])

    def step(carry, scale):
        return carry - 0.01 * jax.grad(loss, 1)(x * scale, carry), loss(x, carry)

    return {
        "gradients": jax.grad(loss, (0, 1))(x, kernel),
        "jvp": jax.jvp(loss, (x, kernel), (jnp.cos(x), kernel)),
        "forward over reverse": jax.jvp(jax.grad(loss), (x, kernel), (jnp.cos(x), kernel)),
        "vmap of both": jax.vmap(jax.grad(loss, 1))(jnp.stack([x, 2 * x]), kernels),
        "vmap of kernels": jax.vmap(loss, (None, 0))(x, kernels),
        "scan": jax.lax.scan(step, kernel, jnp.arange(1.0, 4.0)),
        "remat": jax.grad(jax.checkpoint(loss), 1)(x, kernel),
        "bfloat16": ops.conv(x.astype("bfloat16"), kernel.astype("bfloat16")).astype("float32"),
    }


def test_transforms_are_those_of_xla():
    x, kernel, *_ = arguments([Axis(9, 3), Axis(10, 3)], 8, 16)
    kernel /= 8  # outputs of about 1, whose rounding the sine does not enlarge
    program = jax.jit(transforms).lower(x, kernel)
    assert CALL in program.as_text()
    ours = program.compile()(x, kernel)
    native.enable(False, environ={})
    jax.clear_caches()
    program = jax.jit(transforms).lower(x, kernel)
    assert CALL not in program.as_text(), "so that the two are different programs for the compilation cache, too"
    theirs = program.compile()(x, kernel)
    for name, wanted in theirs.items():
        for actual, expected in zip(jax.tree.leaves(ours[name]), jax.tree.leaves(wanted), strict=True):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(
                actual, expected, rtol=0, atol=2e-5 * scale + (name == "bfloat16") * 0.01 * scale
            )


def test_other_types_and_exported_programs_do_without():
    x, kernel, *_ = arguments([Axis(9, 3), Axis(10, 3)], 8, 16)
    conv = jax.jit(partial(ops.conv, method="native"))
    assert CALL in conv.lower(x, kernel).as_text()
    assert CALL not in jax.export.export(conv)(x, kernel).mlir_module()
    with jax.enable_x64(True):
        assert CALL not in conv.lower(x.astype("float64"), kernel.astype("float64")).as_text()


def test_over_devices_each_computes_its_own_images():
    """Under shard_map by the kernels, under automatic partitioning by XLA, which does not gather the batch."""
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    x, kernel = map(jnp.asarray, arguments([Axis(9, 3), Axis(10, 3)], 8, 16, batch=16)[:2])
    split, whole = PartitionSpec("batch"), PartitionSpec()
    gradients = jax.grad(loss, (0, 1))
    expected = gradients(x, kernel)

    def each(x, kernel):
        return gradients(x, jax.lax.pcast(kernel, "batch", to="varying"))[0]

    mapped = jax.jit(jax.shard_map(each, mesh=mesh, in_specs=(split, whole), out_specs=split)).lower(x, kernel)
    assert CALL in mapped.as_text()
    np.testing.assert_allclose(mapped.compile()(x, kernel), expected[0], atol=1e-3)

    placed = jax.device_put(x, NamedSharding(mesh, split)), jax.device_put(kernel, NamedSharding(mesh, whole))
    program = jax.jit(gradients).lower(*placed).compile()
    assert CALL not in program.as_text()
    assert "all-gather" not in program.as_text()
    for actual, wanted in zip(program(*placed), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


def test_what_it_is_not_for():
    with pytest.raises(UsageError, match="method='native' is for up to three axes without input dilation, not 1x1x1x1"):
        ops.conv(jnp.ones((1, 2, 2, 2, 2, 1)), jnp.ones((1, 1, 1, 1, 1, 1)), method="native")
    with pytest.raises(UsageError, match="not 3 with input_dilation \\(2,\\)"):
        ops.conv(jnp.ones((1, 5, 1)), jnp.ones((3, 1, 1)), input_dilation=2, method="native")


def test_memory_that_stays_is_bounded():
    """After 100 shapes, each of which needs some: at most three blocks of 8 MiB for each thread (parallel.h)."""
    rng = np.random.default_rng(0)

    def resident():
        release_freed_memory()  # what compiling took, which the C library would keep
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def run(number):
        size, channels = rng.integers(4, 40, 2)
        axes = [Axis(int(size), 3, 1, 1, 1), Axis(40, 3, 1, 1, 1)]
        x, _, dy, plan = arguments(axes, 8 * int(channels), 40, seed=number)
        jax.block_until_ready(jax.jit(partial(NATIVE.kernel_gradient, plan))(x, dy))

    for number in range(10):
        run(number)
    before = resident()
    for number in range(90):
        run(number)
    assert resident() - before < 3 * (8 << 20) * (1 + (os.cpu_count() or 1)) + (32 << 20)
