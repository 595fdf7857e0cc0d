"""The native kernels by Winograd's algorithm: against float64, at borders, with values that are not finite."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnn_jax.ops import choice
from cnn_jax.ops.formulations import NATIVE, WINOGRAD
from tests.native import by_taps
from tests.native.test_convolution import arguments
from tests.ops.reference import Axis

pytestmark = pytest.mark.usefixtures("kernels")
PRODUCTS = ("output", "input_gradient", "kernel_gradient")


@partial(jax.jit, static_argnums=(0, 1))
def products(plan, formulation, x, kernel, dy):
    return (
        formulation.output(plan, x, kernel),
        formulation.input_gradient(plan, dy, kernel),
        formulation.kernel_gradient(plan, x, dy),
    )


def same(*sizes, window=3):
    """With as many outputs as inputs."""
    return [Axis(size, window, 1, window // 2, window // 2) for size in sizes]


# name -> axes, channels, features, batch
CASES = {
    "whole tiles": (same(8, 12), 16, 32, 2),
    "partial tiles, channels and features": (same(7, 10), 19, 37, 3),
    "negative and wide padding": ([Axis(11, 3, 1, -2, 3), Axis(9, 3, 1, 4, -1)], 17, 16, 2),
    "an image smaller than a tile": ([Axis(2, 3, 1, 1, 1), Axis(1, 3, 1, 2, 2)], 16, 16, 1),
    "threads share the features": (same(13, 14), 112, 98, 2),
    "threads share tiles, for some features at a time": (same(33, 32), 912, 65, 1),
    "a kernel gradient in blocks and pieces": (same(20, 24), 136, 150, 2),
    "windows of 5": (same(9, 14, window=5), 23, 40, 2),
    "windows of 5, negative and wide padding": ([Axis(11, 5, 1, -2, 4), Axis(9, 5, 1, 5, -1)], 65, 70, 1),
    "a volume of windows of 5": (same(3, 4, 7, window=5), 16, 17, 1),
    "a volume": ([Axis(3, 3, 1, 1, 1), Axis(6, 3, 1, 0, 1), Axis(7, 3, 1, 1, 0)], 18, 33, 2),
}


def assert_products_are_exact(axes, channels, features, batch):
    """Within what independent rounding errors add up to, with a margin: far less than the proven bound."""
    x, kernel, dy, plan = arguments(axes, channels, features, 1, batch)
    actual, exact = products(plan, WINOGRAD, x, kernel, dy), by_taps.products(x, kernel, dy, axes, 1)
    terms = np.prod(kernel.shape[:-1]), np.prod(kernel.shape) // channels, np.prod(dy.shape[:-1])
    for name, ours, wanted, count in zip(PRODUCTS, actual, exact, terms, strict=True):
        assert np.abs(ours - wanted).max() <= 500 * 2.0**-24 * (np.sqrt(count) + 4), name


@pytest.mark.parametrize("name", CASES)
def test_products_are_those_of_float64(name):
    assert_products_are_exact(*CASES[name])


@st.composite
def cases(draw):
    """Two or three axes of any size and padding; any channels and features from 16 on."""
    axes, window = [], draw(st.sampled_from((3, 3, 5)))
    for _ in range(draw(st.sampled_from((2, 2, 3)))):
        size, low = draw(st.integers(1, 20)), draw(st.integers(-2, 4))
        low = max(low, 1 - size)
        high = draw(st.integers(max(-2, 1 - size - min(low, 0)), 4))
        axes.append(Axis(size, window, 1, low, max(high, window - size - low)))
    return axes, draw(st.integers(16, 150)), draw(st.integers(16, 150)), draw(st.integers(1, 3))


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases())
def test_many_random_products(case):
    assert_products_are_exact(*case)


@pytest.mark.parametrize(("channels", "window", "factor"), [(16, 3, 3), (128, 3, 3), (384, 3, 3), (64, 5, 5)])
def test_errors_are_a_few_times_those_of_direct_sums(channels, window, factor):
    """The root of the mean square, over inputs as after a ReLU."""
    axes = same(14, 14, window=window)
    x, kernel, dy, plan = arguments(axes, channels, 32)
    x = np.maximum(x, 0)
    exact = by_taps.products(x, kernel, dy, axes, 1)
    fast, direct = (products(plan, formulation, x, kernel, dy) for formulation in (WINOGRAD, NATIVE))
    for name, wanted, ours, theirs in zip(PRODUCTS, exact, fast, direct, strict=True):
        errors = [np.sqrt(np.mean((actual - wanted) ** 2)) for actual in (ours, theirs)]
        assert errors[0] <= factor * errors[1], name


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_what_is_not_finite_reaches_what_it_should(value):
    """In a tile that has other outputs, too. A value of 3e38 is finite, and only overflows when it is transformed."""
    axes = [Axis(13, 3, 1, 1, 1), Axis(14, 3, 1, 2, -1)]
    x, kernel, dy, plan = arguments(axes, 17, 20)
    kernel *= 0.01
    dy *= 0.01
    x[1, 5, 7, 2], dy[1, 4, 6, 3] = value, value
    with np.errstate(invalid="ignore", over="ignore"):
        wanted = [array.astype(np.float32) for array in by_taps.products(x, kernel, dy, axes, 1)]
        actual = products(plan, WINOGRAD, x, kernel, dy)
    for ours, theirs in zip(actual[:2], wanted[:2], strict=True):
        finite = np.isfinite(theirs)
        assert finite.all() if value == 3e38 else 0 < finite.sum() < finite.size
        np.testing.assert_array_equal(np.isfinite(ours), finite)
        np.testing.assert_allclose(np.asarray(ours)[finite], theirs[finite], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(np.isfinite(actual[2]), np.isfinite(wanted[2]))


def test_a_kernel_that_is_not_finite_reaches_its_feature():
    axes = same(9, 9)
    x, kernel, dy, plan = arguments(axes, 16, 16)
    kernel[1, 1, 3, 5] = np.nan
    y, dx, _ = products(plan, WINOGRAD, x, kernel, dy)
    assert np.argwhere(np.isnan(y).any((0, 1, 2))).tolist() == [[5]]
    assert np.argwhere(np.isnan(dx).any((0, 1, 2))).tolist() == [[3]]


def test_an_image_does_not_depend_on_its_batch():
    """Nor on which way the work is shared, nor on a NaN elsewhere."""
    x, kernel, dy, plan = arguments(same(28, 28), 96, 96, batch=13)
    all_y, all_dx, _ = products(plan, WINOGRAD, x, kernel, dy)
    y, dx, _ = products(plan._replace(batch=1), WINOGRAD, x[3:4], kernel, dy[3:4])
    np.testing.assert_array_equal(y[0], all_y[3])
    np.testing.assert_array_equal(dx[0], all_dx[3])
    x[5, 3, 3, 3] = np.nan
    np.testing.assert_array_equal(products(plan, WINOGRAD, x, kernel, dy)[0][3], all_y[3])


def test_where_it_is_used():
    def chosen(axes, channels=64, features=64, **options):
        plan = arguments(axes, channels, features)[-1]._replace(**options)
        return {choice.formulation(product, plan, native=True) for product in PRODUCTS}

    assert chosen(same(7, 9)) == chosen(same(2, 7, 7), 16, 16) == chosen(same(9, 9, window=5)) == {WINOGRAD}
    assert chosen([Axis(9, 3, 2, 1, 1)] * 2) == chosen([Axis(9, 3), Axis(9, 5)]) == {NATIVE}
    assert chosen(same(6, 9)) == chosen(same(9, 9), 15) == chosen(same(9)) == {NATIVE}
    assert chosen(same(9, 9), native=True) == chosen(same(9, 9), precision=jax.lax.Precision.HIGHEST) == {NATIVE}
    assert WINOGRAD not in {choice.formulation(product, arguments(same(9, 9), 64, 64)[-1]) for product in PRODUCTS}


def test_denormals_are_kept():
    tiny = np.float32(1e-41)
    x, kernel, _, plan = arguments([Axis(6, 3)] * 2, 16, 16)
    y = WINOGRAD.output(plan, jnp.full(x.shape, tiny), jnp.ones(kernel.shape))
    flushed = bool(jax.jit(lambda x: x * 1.5)(tiny) == 0)  # XLA's own threads may do that
    assert flushed or np.all(np.abs(np.asarray(y) - 144 * tiny) < 10 * tiny)
