"""The products of a convolution in every formulation: against loops, against JAX's transposes, under transforms."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.ops import choice, direct, formulations
from tests.ops import reference
from tests.ops.reference import Axis

TILED = "TILES TILES CANONICAL"
# name: (axes, channels per group, features per group, groups, formulations of output, input and kernel gradient)
CASES = {
    "plain": ([Axis(5, 3, 1, 1, 1), Axis(6, 3, 1, 1, 1)], 9, 4, 1, "CANONICAL " * 3),
    "strided, with unused rows": ([Axis(8, 3, 2, 0, 0), Axis(9, 3, 3, 1, 0)], 17, 3, 1, "CANONICAL " * 3),
    "both dilations": ([Axis(4, 3, 2, 3, 1, 2, 3)], 9, 2, 1, "CANONICAL " * 3),
    "padding beyond the kernel": ([Axis(3, 2, 2, 4, 5), Axis(2, 2, 1, 3, 3)], 17, 2, 1, "CANONICAL " * 3),
    "kernel larger than the input": ([Axis(2, 5, 1, 2, 2), Axis(2, 3, 1, 1, 1)], 9, 2, 1, "CANONICAL " * 3),
    "padding hides the input": ([Axis(1, 2, 3, 3, 0, 1, 2)], 9, 2, 1, "CANONICAL " * 3),
    "groups": ([Axis(5, 3, 2, 1, 1), Axis(4, 2, 1, 0, 1)], 2, 3, 3, "BLOCKS " * 3),
    "groups that stay groups": ([Axis(5, 3, 2, 1, 1)], 16, 2, 4, "BLOCKS " * 3),
    "wide groups": ([Axis(5, 3, 2, 1, 1)], 32, 2, 2, "CANONICAL " * 3),
    "pointwise, strided": ([Axis(5, 1, 2), Axis(4, 1, 3, 1, 1)], 9, 3, 1, "CANONICAL CANONICAL MATMUL"),
    "phases": ([Axis(7, 5, 2, 1, 2), Axis(9, 3, 3, 2, 1)], 9, 3, 1, "CANONICAL PHASES CANONICAL"),
    "phases with gaps": ([Axis(9, 2, 3), Axis(5, 1, 2)], 3, 17, 1, "CANONICAL " * 3),
    "tiles": ([Axis(5, 3, 1, 1, 1), Axis(12, 5, 1, 1, 0)], 2, 3, 1, TILED),
    "tiles, both dilations": ([Axis(6, 2, 1, 1, 1, 1, 2), Axis(9, 3, 1, 2, 3, 2, 2)], 1, 3, 1, TILED),
    "strided tiles": ([Axis(6, 2, 2, 1, 1), Axis(20, 3, 2, 2, 3, 1, 2)], 1, 3, 1, "CANONICAL " * 3),
    "tiles of rank 1": ([Axis(9, 4, 1, 2, 0)], 2, 3, 1, TILED),
    "depthwise": ([Axis(5, 3, 1, 1, 1), Axis(4, 3, 2, 1, 1)], 1, 1, 4, "SHIFTS " * 3),
    "depthwise, strided, few taps": ([Axis(7, 2, 2, 1, 2), Axis(5, 2, 3)], 1, 1, 3, "SHIFTS " * 3),
    "depthwise, several features each": ([Axis(4, 2, 1, 0, 1, 2, 2)], 1, 2, 3, "SHIFTS " * 3),
    "slabs": ([Axis(4, 2, 2, 1, 1, 1, 2), Axis(4, 3, 2, 1, 1), Axis(3, 2, 1, 0, 1, 2, 1)], 2, 3, 2, "SLABS " * 3),
    "slabs of four axes": ([Axis(2, 2, 1, 1, 0), Axis(3, 2), Axis(3, 2), Axis(2, 1)], 1, 2, 1, "SLABS " * 3),
    "windows": ([Axis(3, 2, 1, 1, 1, 2), Axis(4, 3, 1, 2, 2, 3)], 3, 2, 1, "WINDOWS " * 3),
    "windows of three axes": ([Axis(2, 2, 1, 1, 1, 2), *[Axis(1, 2, 1, 1, 1, 2)] * 2], 2, 3, 1, "WINDOWS " * 3),
}  # fmt: skip
PRODUCTS = ["output", "input_gradient", "kernel_gradient"]


def laxs_conv(x, kernel, **options):
    """The same convolution with the derivatives that JAX derives."""
    return formulations.channels_last(
        x,
        kernel,
        window_strides=options["strides"],
        padding=options["padding"],
        lhs_dilation=options["input_dilation"],
        rhs_dilation=options["kernel_dilation"],
        feature_group_count=options["feature_group_count"],
    )


def arguments(axes, channels, features, groups, *, batch=2, dtype="float64"):
    """``x``, kernel, a cotangent of the output, and the options."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(batch, *(axis.size for axis in axes), channels * groups))
    kernel = generator.normal(size=(*(axis.window for axis in axes), channels, features * groups))
    dy = generator.normal(size=(batch, *reference.output_shape(axes), features * groups))
    options = {
        "strides": tuple(axis.stride for axis in axes),
        "padding": tuple((axis.low, axis.high) for axis in axes),
        "input_dilation": tuple(axis.input_dilation for axis in axes),
        "kernel_dilation": tuple(axis.dilation for axis in axes),
        "feature_group_count": groups,
    }
    return *(jnp.asarray(array, dtype) for array in (x, kernel, dy)), options


@pytest.mark.parametrize("name", CASES)
def test_products_are_the_loops(name):
    axes, channels, features, groups, chosen = CASES[name]
    with jax.enable_x64(True):
        x, kernel, dy, options = arguments(axes, channels, features, groups)
        plan = direct.plan_of(x.shape, kernel.shape, **options)
        for product, wanted in zip(PRODUCTS, chosen.split(), strict=True):
            assert choice.formulation(product, plan) is getattr(formulations, wanted), product
        y, gradients = jax.vjp(partial(direct.conv, **options), x, kernel)
        np.testing.assert_allclose(y, reference.conv(x, kernel, axes, groups=groups), rtol=0, atol=1e-12)
        dx, dk = gradients(dy)
        np.testing.assert_allclose(dx, reference.conv_transpose(dy, kernel, axes, groups=groups), rtol=0, atol=1e-12)
        np.testing.assert_allclose(dk, reference.kernel_gradient(x, dy, axes, groups=groups), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("both dilations", "TRANSPOSED"),
        ("groups", "TRANSPOSED"),
        ("slabs", "TRANSPOSED"),
        ("strided tiles", "TILES"),
        ("both dilations", "COLUMNS"),
    ],
)
def test_formulations_that_are_not_chosen_here_agree(name, other):
    """What an accelerator computes, and what a change of the rule would."""
    axes, channels, features, groups, _ = CASES[name]
    with jax.enable_x64(True):
        x, kernel, dy, options = arguments(axes, channels, features, groups)
        plan, wanted = direct.plan_of(x.shape, kernel.shape, **options), getattr(formulations, other)
        np.testing.assert_allclose(wanted.output(plan, x, kernel), reference.conv(x, kernel, axes, groups=groups))
        dx = reference.conv_transpose(dy, kernel, axes, groups=groups)
        np.testing.assert_allclose(wanted.input_gradient(plan, dy, kernel), dx, atol=1e-12)
        dk = reference.kernel_gradient(x, dy, axes, groups=groups)
        np.testing.assert_allclose(wanted.kernel_gradient(plan, x, dy), dk, atol=1e-12)


def test_derivatives_of_third_order():
    axes, channels, features, groups, _ = CASES["both dilations"]
    with jax.enable_x64(True):
        x, kernel, _, options = arguments(axes, channels, features, groups)

        def third(conv):
            def loss(x, kernel):
                return jnp.sum(conv(x, kernel, **options) ** 4)

            def slope(x, kernel):
                return sum(jnp.sum(jnp.sin(gradient)) for gradient in jax.grad(loss, (0, 1))(x, kernel))

            def bend(x, kernel):
                return sum(jnp.sum(gradient**2) for gradient in jax.grad(slope, (0, 1))(x, kernel))

            return jax.jit(jax.grad(bend, (0, 1)))(x, kernel)

        for ours, jaxs in zip(third(direct.conv), third(laxs_conv), strict=True):
            np.testing.assert_allclose(ours, jaxs, rtol=1e-9)


@pytest.mark.parametrize("name", ["groups", "tiles of rank 1", "pointwise, strided"])
def test_many_models_are_what_vmap_makes_of_laxs(name):
    """vmap over inputs, over kernels, over both and over both twice: outputs and both gradients."""
    axes, channels, features, groups, _ = CASES[name]
    with jax.enable_x64(True):
        x, kernel, dy, options = arguments(axes, channels, features, groups)
        xs = jnp.multiply.outer(jnp.array([1.0, -2.0, 3.0]), x)
        kernels = kernel + jnp.arange(3.0).reshape(-1, *(1,) * kernel.ndim)

        @partial(jax.jit, static_argnums=0)
        def vmapped(conv, x, kernel, xs, kernels):
            def products(x, kernel):
                y, gradients = jax.vjp(partial(conv, **options), x, kernel)
                return y, *gradients(dy)

            each = jax.vmap(products)
            return {
                "inputs": jax.vmap(products, (0, None))(xs, kernel),
                "kernels": jax.vmap(products, (None, 0))(x, kernels),
                "both twice": jax.vmap(each, (None, 0))(xs, jnp.stack([kernels, kernels[::-1]])),
            }

        ours, laxs = (vmapped(conv, x, kernel, xs, kernels) for conv in (direct.conv, laxs_conv))
        for over, results in ours.items():
            for actual, wanted in zip(results, laxs[over], strict=True):
                np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-10, err_msg=over)


def test_gradient_of_a_kernel_that_many_models_share():
    """The sum over models: what vmap of one kernel's use must give back."""
    axes, channels, features, groups, _ = CASES["groups"]
    with jax.enable_x64(True):
        x, kernel, _, options = arguments(axes, channels, features, groups)
        xs = jnp.stack([x, 2 * x, -x])

        def loss(conv, kernel):
            return jnp.sum(jnp.sin(jax.vmap(lambda x: conv(x, kernel, **options))(xs)))

        ours, jaxs = (jax.grad(partial(loss, conv))(kernel) for conv in (direct.conv, laxs_conv))
        np.testing.assert_allclose(ours, jaxs, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["plain", "tiles", "depthwise"])
def test_narrow_floats_are_summed_in_wide_ones(name, dtype):
    """Results are those of the loop, rounded once: at most a unit in the last place from the exact ones."""
    axes, channels, features, groups, _ = CASES[name]
    x, kernel, dy, options = arguments(axes, channels, features, groups, dtype=dtype)
    y, gradients = jax.vjp(partial(direct.conv, **options), x, kernel)
    exact = [
        reference.conv(x, kernel, axes, groups=groups),
        reference.conv_transpose(dy, kernel, axes, groups=groups),
        reference.kernel_gradient(x, dy, axes, groups=groups),
    ]
    unit = float(jnp.finfo(dtype).eps)
    for actual, wanted in zip((y, *gradients(dy)), exact, strict=True):
        assert actual.dtype == dtype
        np.testing.assert_allclose(np.asarray(actual, np.float64), wanted, rtol=unit, atol=1e-5)


def test_an_empty_output_has_zero_gradients():
    x, kernel = jnp.ones((2, 3, 1)), jnp.ones((5, 1, 2))
    options = arguments([Axis(3, 5)], 1, 2, 1, dtype="float32")[-1]
    y, gradients = jax.vjp(partial(direct.conv, **options), x, kernel)
    assert y.shape == (2, 0, 2)
    assert [float(jnp.abs(gradient).max()) for gradient in gradients(y)] == [0.0, 0.0]


def test_the_loop_of_a_scan_holds_no_permuted_convolution():
    """Why gradients are as fast in a loop: all convolutions there are channels last, as XLA:CPU wants them."""
    axes, channels, features, groups, _ = CASES["plain"]
    x, kernel, _, options = arguments(axes, channels, features, groups, dtype="float32")

    def train(conv):
        def step(kernel, _):
            return kernel - jax.grad(lambda kernel: jnp.sum(conv(x, kernel, **options) ** 2))(kernel), None

        return jax.jit(lambda kernel: jax.lax.scan(step, kernel, length=2)[0]).lower(kernel).as_text()

    def layouts(text):
        return {line.split("dim_numbers = ")[1].split(",")[0] for line in text.splitlines() if "dim_numbers = " in line}

    assert layouts(train(direct.conv)) <= {"[b"}  # native kernels are no convolutions for XLA
    assert layouts(train(laxs_conv)) > {"[b"}


@pytest.mark.parametrize("name", ["both dilations", "groups", "tiles", "depthwise", "slabs", "phases"])
def test_every_mode_of_differentiation_is_that_of_laxs(name):
    """Forward mode, mixed orders and linearisation, of functions that are not linear in what is convolved."""
    axes, channels, features, groups, _ = CASES[name]
    with jax.enable_x64(True):
        x, kernel, dy, options = arguments(axes, channels, features, groups)
        direction, other = jnp.cos(x), jnp.sin(kernel)

        @partial(jax.jit, static_argnums=0)
        def derivatives(conv, x, kernel):
            def loss(x, kernel):
                return jnp.sum(jnp.sin(conv(x, kernel, **options)) * dy)

            def along(x, kernel):
                return jax.jvp(loss, (x, kernel), (direction, other))[1]

            linear = jax.linearize(partial(conv, **options), x, kernel)[1]
            line = jnp.arange(2.0)
            return {
                "jvp": jax.jvp(partial(conv, **options), (x, kernel), (direction, other)),
                "jvp of one operand": jax.jvp(lambda x: conv(x, kernel, **options), (x,), (direction,)),
                "linearize": linear(direction, other),
                "jacfwd": jax.jacfwd(lambda t: conv(x + t[0] * direction, kernel + t[1] * other, **options))(line),
                "forward over reverse": jax.jvp(jax.grad(loss, (0, 1)), (x, kernel), (direction, other)),
                "reverse over forward": jax.grad(along, (0, 1))(x, kernel),
                "hessian": jax.hessian(lambda t: loss(x + t[0] * direction, kernel + t[1] * other))(line),
                "forward over forward": jax.jvp(along, (x, kernel), (direction, other)),
                "vmap of jvp": jax.vmap(lambda d: jax.jvp(lambda k: conv(x, k, **options), (kernel,), (d,))[1])(
                    jnp.stack([other, kernel])
                ),
            }

        ours, laxs = (derivatives(conv, x, kernel) for conv in (direct.conv, laxs_conv))
        for mode, results in laxs.items():
            for actual, wanted in zip(jax.tree.leaves(ours[mode]), jax.tree.leaves(results), strict=True):
                np.testing.assert_allclose(actual, wanted, rtol=1e-9, atol=1e-9, err_msg=mode)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("name", ["both dilations", "tiles", "depthwise", "slabs", "phases", "groups"])
def test_complex_numbers(name, dtype):
    """A product of complex arrays is four products of real ones; the gradients are JAX's, without conjugation."""
    axes, channels, features, groups, _ = CASES[name]
    with jax.enable_x64(dtype == "complex128"):
        *real, options = arguments(axes, channels, features, groups, dtype=jnp.finfo(dtype).dtype)
        x, kernel, dy = ((array + 1j * np.cos(3 * array)).astype(dtype) for array in map(np.asarray, real))

        @jax.jit
        def run(x, kernel, dy):
            y, pull = jax.vjp(partial(direct.conv, **options), x, kernel)
            return y, pull(dy), jax.vjp(partial(laxs_conv, **options), x, kernel)[1](dy)

        y, ours, laxs = run(x, kernel, dy)
        parts = partial(reference.conv, axes=axes, groups=groups)
        wanted = parts(x.real, kernel.real) - parts(x.imag, kernel.imag)
        wanted = wanted + 1j * (parts(x.real, kernel.imag) + parts(x.imag, kernel.real))
        tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == "complex64" else {"rtol": 1e-10, "atol": 1e-10}
        np.testing.assert_allclose(y, wanted, **tolerance)
        for actual, expected in zip(ours, laxs, strict=True):
            assert actual.dtype == dtype
            np.testing.assert_allclose(actual, expected, **tolerance)
