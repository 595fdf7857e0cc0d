"""The rule of ``method='auto'``: the sizes of its programs, and its results for large windows."""

import itertools
import math
from functools import partial

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import filters, ops
from cnn_jax.ops import choice, direct, methods
from cnn_jax.ops.canonical import windows

PRODUCTS = {"output": ("x", "kernel"), "input_gradient": ("dy", "kernel"), "kernel_gradient": ("x", "dy")}
LARGEST = 800  # equations; XLA compiles 730 of SHIFTS in 0.7 s of CPU, 4,500 in half a minute


def equations(jaxpr):
    """The number of equations of a program, those inside of loops and branches included."""
    return sum(
        1 + sum(map(equations, jax.extend.core.jaxprs_in_params(equation.params)))
        for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns
    )


def grid():
    """Windows of 1 to 1,024 entries and what else changes the choice: rank, channels, groups, stride, dilation."""
    spaces = [(1, 16000, (5, 128, 1024)), (2, 96, (7, 11, 63)), (3, 24, (5, 17))]
    layers = [(1, 1, 1), (3, 24, 1), (8, 8, 8), (8, 16, 4)]
    steps = [(1, 1), (1, 2), (2, 1), (16, 1)]
    for rank, size, sides in spaces:
        for side, (channels, features, groups), (stride, rate) in itertools.product(sides, layers, steps):
            if (side - 1) * rate < size:
                yield (
                    (2, *(size,) * rank, channels),
                    (*(side,) * rank, channels // groups, features),
                    stride,
                    rate,
                    groups,
                )
    yield (2, 400, 9, 9, 1), (101, 3, 3, 1, 4), 1, 1, 1
    yield (2, 9, 9, 400, 1), (3, 3, 101, 1, 4), 1, 1, 1


def test_no_product_is_a_long_program():
    sizes = {}
    for x, kernel, stride, rate, groups in grid():
        rank, ones = len(x) - 2, (1,) * (len(x) - 2)
        options = ((stride,) * rank, ((0, 0),) * rank, ones, (rate,) * rank, groups)
        plan = direct.plan_of(x, kernel, *options)
        arrays = {role: jax.ShapeDtypeStruct(shape, jnp.float32) for role, shape in plan.shapes.items()}
        for product, roles in PRODUCTS.items():
            chosen = partial(getattr(choice.formulation(product, plan), product), plan)
            program = jax.make_jaxpr(chosen)(*(arrays[role] for role in roles))
            sizes[product, x, kernel, stride, rate] = equations(program)
    assert len(sizes) > 250
    longest = max(sizes, key=sizes.__getitem__)
    assert sizes[longest] <= LARGEST, longest


@pytest.mark.parametrize(
    ("x", "kernel"),
    [((4, 16000, 1), (401, 1, 64)), ((1, 16000, 1), (1024, 1, 1)), ((1, 512, 512, 1), (63, 63, 1, 1)),
     ((2, 63, 63, 3), (63, 63, 3, 4))],
)  # fmt: skip
def test_no_call_of_conv_is_a_long_program(x, kernel):
    """With its gradients, and with whatever method the shapes choose."""
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (x, kernel)]
    program = jax.make_jaxpr(jax.grad(lambda x, kernel: jnp.sum(ops.conv(x, kernel) ** 2), (0, 1)))(*arrays)
    assert equations(program) <= LARGEST


def correlate(x, kernel, stride=1, rate=1):
    """All windows, written out by NumPy, times the kernel."""
    reach = [(side - 1) * rate + 1 for side in kernel.shape[:-2]]
    axes = tuple(range(1, x.ndim - 1))
    seen = np.lib.stride_tricks.sliding_window_view(x, reach, axes)
    seen = seen[(slice(None), *(slice(None, None, stride),) * len(axes))]
    seen = seen[(..., *(slice(None, None, rate),) * len(axes))]
    return np.tensordot(np.moveaxis(seen, len(axes) + 1, -1), kernel, len(axes) + 1)


# name: input, kernel, stride, kernel dilation, groups, the method that the shapes choose
LARGE = {
    "one channel": ((2, 600, 1), (101, 1, 2), 1, 1, 1, "fft"),
    "an image": ((2, 40, 44, 1), (15, 17, 1, 3), 1, 1, 1, "fft"),
    "a volume": ((1, 18, 19, 20, 2), (9, 7, 8, 2, 1), 1, 1, 1, "fft"),
    "dilated": ((1, 120, 124, 1), (17, 15, 1, 1), 1, 2, 1, "fft"),
    "depthwise": ((2, 40, 40, 3), (13, 13, 1, 6), 1, 1, 3, "fft"),
    "depthwise, strided": ((1, 80, 80, 3), (21, 21, 1, 3), 2, 1, 3, "fft"),
    "depthwise, far apart": ((1, 70, 70, 3), (15, 15, 1, 3), 13, 1, 3, "direct"),
    "many features": ((1, 600, 1), (101, 1, 64), 1, 1, 1, "direct"),
    "tiles": ((2, 24, 40, 2), (11, 9, 2, 4), 1, 1, 1, "direct"),
    "strided": ((1, 50, 50, 3), (31, 31, 3, 8), 4, 1, 1, "direct"),
    "one window": ((2, 33, 33, 3), (16, 16, 3, 4), 20, 2, 1, "im2col"),
    "outer axis": ((1, 60, 6, 7, 8), (41, 2, 3, 8, 8), 1, 1, 1, "direct"),
    "kernel larger than the output": ((2, 23, 23, 16), (15, 15, 16, 9), 1, 1, 1, "direct"),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_large_windows_are_right(name):
    """Against sums over all windows; the gradients by the identity of the trilinear form, which is linear in each."""
    shape, kernel_shape, stride, rate, groups, method = LARGE[name]
    generator = np.random.default_rng(0)
    rank = len(shape) - 2
    x, kernel = generator.normal(size=shape), generator.normal(size=kernel_shape)

    def by_group(array):
        return np.split(array, groups, axis=-1)

    def reference(x, kernel):
        parts = zip(by_group(x), by_group(kernel), strict=True)
        return np.concatenate([correlate(*part, stride, rate) for part in parts], axis=-1)

    wanted = reference(x, kernel)
    dy = generator.normal(size=wanted.shape)
    dx, dk = generator.normal(size=shape), generator.normal(size=kernel_shape)
    options = {"strides": stride, "kernel_dilation": rate, "feature_group_count": groups}
    geometry = windows(
        "conv", shape[1:-1], kernel_shape[:-2], strides=stride, padding="VALID", input_dilation=1,
        kernel_dilation=rate, rounding="floor",
    )  # fmt: skip
    assert methods.auto(shape, kernel_shape, geometry, groups) == method

    @jax.jit
    def run(x, kernel, dy):
        y, back = jax.vjp(lambda x, kernel: ops.conv(x, kernel, **options), x, kernel)
        return y, *back(dy)

    y, to_x, to_kernel = run(*(jnp.asarray(array, jnp.float32) for array in (x, kernel, dy)))
    terms = math.prod(kernel_shape[:-1])
    np.testing.assert_allclose(y, wanted, rtol=0, atol=2e-6 * terms)
    for gradient, direction, other in (
        (to_x, dx, reference(dx, kernel)),
        (to_kernel, dk, reference(x, dk)),
    ):
        size = np.linalg.norm(np.asarray(gradient, np.float64)) * np.linalg.norm(direction)
        assert abs(np.vdot(np.asarray(gradient, np.float64), direction) - np.vdot(dy, other)) < 1e-6 * size, rank


def test_a_wide_gaussian_is_the_product_of_its_axes():
    """Sigma 10, a window of 81 x 81: filtered at once it is the two narrow ones, one after the other."""
    image = np.random.default_rng(0).normal(size=(96, 110, 2)).astype("float32")
    kernel, line = filters.gaussian(10), np.asarray(filters.gaussian(10, rank=1), np.float64)
    assert kernel.shape == (81, 81)
    extended = np.pad(image.astype(np.float64), ((40, 40), (40, 40), (0, 0)), mode="reflect")
    rows = np.apply_along_axis(np.convolve, 0, extended, line, mode="valid")
    wanted = np.apply_along_axis(np.convolve, 1, rows, line, mode="valid")
    apply = jax.jit(filters.apply)
    np.testing.assert_allclose(apply(image, kernel), wanted, rtol=0, atol=1e-5)
    assert equations(jax.make_jaxpr(apply)(image, kernel)) <= LARGEST
