"""Convolution against hand-computed values, its algebraic laws and finite differences, and under JAX's transforms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cnn_jax import ops
from tests.compiled import compiled

METHODS = ["direct", "im2col", "toeplitz", "fft", "winograd", "winograd_f43"]


def normal(*shape, seed=0, dtype="float32"):
    return jnp.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape), dtype)


def test_by_hand():
    # 3x3 input, 2x2 kernel: each output is a difference along the diagonal.
    x = jnp.array([[1.0, 2.0, 3.0], [4.0, 6.0, 8.0], [0.0, 1.0, 0.0]])[..., None]
    kernel = jnp.array([[1.0, 0.0], [0.0, -1.0]])[..., None, None]
    np.testing.assert_array_equal(ops.conv(x, kernel)[..., 0], [[-5, -6], [3, 6]])
    np.testing.assert_array_equal(ops.conv(x, kernel, flip_kernel=True)[..., 0], [[5, 6], [-3, -6]])


def test_flipped_full_convolution_is_numpys():
    x, kernel = normal(9), normal(4, seed=1)
    y = ops.conv(x[:, None], kernel[:, None, None], padding="FULL", flip_kernel=True)[:, 0]
    np.testing.assert_allclose(y, np.convolve(x, kernel), atol=1e-5)


def test_flipped_full_convolution_commutes_and_associates():
    a, b, c = normal(5, 6, 1), normal(3, 2, 1, 1), normal(2, 3, 1, 1, seed=1)
    full = functools.partial(ops.conv, padding="FULL", flip_kernel=True)

    def bc(b, c):
        return full(b[..., 0], c)[..., None]

    abc, a_bc, acb = compiled(lambda a, b, c: (full(full(a, b), c), full(a, bc(b, c)), full(full(a, c), b)))(a, b, c)
    np.testing.assert_allclose(abc, a_bc, atol=1e-5)
    np.testing.assert_allclose(abc, acb, atol=1e-5)


def test_periodic_convolution_is_a_circulant_matrix():
    x, kernel = normal(6), normal(3, seed=1)
    circulant = np.zeros((6, 6))
    for row in range(6):
        for tap in range(3):
            circulant[row, (row + tap - 1) % 6] = kernel[tap]
    y = ops.conv(x[:, None], kernel[:, None, None], padding="SAME", boundary="periodic")[:, 0]
    np.testing.assert_allclose(y, circulant @ np.asarray(x), atol=1e-5)


def test_causal_output_sees_no_later_input():
    x, kernel = normal(10, 2), normal(3, 2, 4)
    jacobian = compiled(jax.jacrev(lambda x: ops.conv(x, kernel, padding="CAUSAL", kernel_dilation=2).sum(-1)))(x)
    jacobian = np.asarray(jacobian).any(-1)
    assert jacobian.shape == (10, 10)
    assert not np.triu(jacobian, 1).any()
    assert np.diag(jacobian).all()


def test_a_mask_cuts_connections_and_their_gradients():
    x, kernel = normal(8, 8, 3), normal(3, 3, 3, 4)
    mask = np.array([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]], bool)

    @compiled
    def run(kernel, infinite):
        y, gradient = jax.value_and_grad(lambda k: (ops.conv(x, k, mask=mask) ** 2).sum())(kernel)
        return y, (ops.conv(x, kernel * mask) ** 2).sum(), gradient, ops.conv(x, infinite, mask=mask)

    y, expected, gradient, with_infinities = map(np.asarray, run(kernel, np.where(mask, kernel, np.inf)))
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    assert not gradient[:, :, ~mask].any()
    assert gradient[:, :, mask].all()
    # A masked infinity does no harm, as a product with zero would.
    assert np.isfinite(with_infinities).all()


def test_unbatched_and_several_batch_axes():
    x, kernel = normal(2, 3, 6, 6, 2), normal(3, 3, 2, 4)
    same = functools.partial(ops.conv, padding="SAME")
    y, unbatched = compiled(lambda x, kernel: (same(x, kernel), same(x[1, 2], kernel)))(x, kernel)
    assert y.shape == (2, 3, 6, 6, 4)
    np.testing.assert_allclose(unbatched, y[1, 2], atol=1e-5)


def test_four_dimensions():
    x, kernel = normal(3, 3, 3, 3, 2), normal(2, 2, 2, 2, 2, 3)
    y, direct = compiled(lambda x, k: [ops.conv(x, k, method=method) for method in ("im2col", "direct")])(x, kernel)
    assert y.shape == (2, 2, 2, 2, 3)
    expected = np.einsum("abcdi,abcdio->o", np.asarray(x)[1:, 1:, :2, 1:], kernel)
    np.testing.assert_allclose(y[1, 1, 0, 1], expected, rtol=1e-4)
    np.testing.assert_allclose(direct, y, atol=1e-4)


@pytest.mark.parametrize(
    ("left", "right", "result"),
    [
        ("float32", "bfloat16", "float32"),
        ("float16", "float16", "float16"),
        ("bfloat16", "float16", "float32"),
        ("bfloat16", "bfloat16", "bfloat16"),
    ],
)
def test_dtypes_are_promoted(left, right, result):
    @compiled
    def run(x, kernel, local):
        return ops.conv(x, kernel), ops.conv_transpose(x, kernel), ops.conv_local(x, local)

    for y in run(jnp.ones((4, 1), left), jnp.ones((2, 1, 1), right), jnp.ones((3, 2, 1, 1), right)):
        assert y.dtype == result


def test_depthwise_keeps_the_channels_apart():
    x, kernel = normal(2, 7, 7, 3), normal(3, 3, 3, 2)
    y = ops.depthwise_conv(x, kernel, strides=2, padding="SAME")
    for channel in range(3):
        alone = ops.conv(x[..., channel : channel + 1], kernel[:, :, channel, None], strides=2, padding="SAME")
        np.testing.assert_allclose(y[..., 2 * channel : 2 * channel + 2], alone, atol=1e-5)


def test_separable_is_depthwise_then_pointwise():
    x, depthwise, pointwise = normal(7, 7, 3), normal(3, 3, 3, 2), normal(6, 5)
    whole = np.einsum("hwcm,cmo->hwco", depthwise, pointwise.reshape(3, 2, 5))  # one kernel of rank at most 6
    y = ops.separable_conv(x, depthwise, pointwise, padding="SAME")
    np.testing.assert_allclose(y, ops.conv(x, whole, padding="SAME"), atol=1e-4)


def test_local_with_the_same_kernel_everywhere_is_conv():
    x, kernel = normal(2, 6, 5, 4), normal(3, 2, 2, 6)

    @compiled
    def run(x, kernel):
        y = ops.conv(x, kernel, feature_group_count=2, strides=(1, 2))
        unshared = jnp.broadcast_to(kernel, (*y.shape[1:3], *kernel.shape))
        return y, ops.conv_local(x, unshared, feature_group_count=2, strides=(1, 2))

    y, local = run(x, kernel)
    np.testing.assert_allclose(local, y, atol=1e-5)


# Transposed convolution


@pytest.mark.parametrize(("strides", "padding"), [(1, "VALID"), (2, "SAME"), (3, "SAME"), (2, "VALID"), (3, "VALID")])
def test_transposed_sizes_and_values_are_laxs(strides, padding):
    # lax pads VALID up to max(window, stride) per step, so the two agree where the window is at least the stride.
    y, kernel = normal(2, 5, 4, 3), normal(3, 3, 2, 3)

    @compiled
    def run(y, kernel):
        expected = lax.conv_transpose(y, kernel, (strides, strides), padding, transpose_kernel=True)
        return ops.conv_transpose(y, kernel, strides=strides, padding=padding), expected

    np.testing.assert_allclose(*run(y, kernel), atol=1e-5)


def test_transposed_output_padding_and_shape_agree():
    y, kernel = normal(5, 4, 3), normal(3, 3, 2, 3)
    transpose = functools.partial(ops.conv_transpose, strides=3)

    @compiled
    def run(y, kernel):
        by_padding = [transpose(y, kernel, padding=1, output_padding=extra) for extra in (0, 1, 2)]
        by_shape = [transpose(y, kernel, padding=1, output_shape=(13 + extra, 10 + extra)) for extra in (0, 1, 2)]
        assert transpose(y, kernel, padding="SAME", output_padding=0).shape == (13, 10, 2)
        return by_padding, by_shape

    for extra, (by_padding, by_shape) in enumerate(zip(*run(y, kernel), strict=True)):
        assert by_padding.shape == (13 + extra, 10 + extra, 2)
        np.testing.assert_array_equal(by_padding, by_shape)


def test_transposed_mirrors_the_encoder():
    x = normal(2, 13, 11, 3)
    options = {"strides": 2, "padding": 1, "kernel_dilation": 2, "boundary": "mirror"}
    kernel = normal(3, 3, 3, 4)
    y = compiled(functools.partial(ops.conv, **options))(x, kernel)
    z = normal(*y.shape, seed=2)
    back = compiled(functools.partial(ops.conv_transpose, **options, output_shape=(13, 11)))(z, kernel)
    assert back.shape == x.shape
    np.testing.assert_allclose(np.vdot(y, z), np.vdot(x, back), rtol=1e-4)


# Derivatives


def probe(function, argument, direction, *, step=1e-4):
    """The derivative along a direction by central differences of fourth order."""
    f = [float(function(argument + k * step * direction)) for k in (-2, -1, 1, 2)]
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_by_finite_differences(method):
    steps = {} if method.startswith("winograd") else {"strides": (2, 1), "kernel_dilation": (1, 2)}
    options = {**steps, "padding": [(2, 1), (0, 3)], "boundary": "symmetric", "feature_group_count": 2}
    with jax.enable_x64(True):
        x, kernel = normal(2, 6, 7, 4, dtype="float64"), normal(3, 3, 2, 4, dtype="float64")

        def loss(x, kernel):
            return jnp.sum(jnp.tanh(ops.conv(x, kernel, method=method, **options)))

        dx, dk = compiled(jax.grad(loss, (0, 1)))(x, kernel)
        loss = compiled(loss)
        for seed in range(2):
            ux, uk = (normal(*array.shape, seed=seed + 7, dtype="float64") for array in (x, kernel))
            np.testing.assert_allclose(jnp.vdot(dx, ux), probe(lambda x: loss(x, kernel), x, ux), rtol=1e-7)
            np.testing.assert_allclose(jnp.vdot(dk, uk), probe(lambda k: loss(x, k), kernel, uk), rtol=1e-7)


def test_second_order_by_finite_differences():
    with jax.enable_x64(True):
        x, kernel = normal(5, 2, dtype="float64"), normal(3, 2, 2, dtype="float64")

        def loss(x, kernel):
            return jnp.sum(jnp.tanh(ops.conv(x, kernel, strides=2, padding="SAME")))

        direction = normal(*kernel.shape, seed=3, dtype="float64")

        def slope(kernel):
            return jnp.vdot(jax.grad(loss, 1)(x, kernel), direction)

        second = compiled(jax.grad(slope))(kernel)
        slope = compiled(slope)
        np.testing.assert_allclose(jnp.vdot(second, direction), probe(slope, kernel, direction), rtol=1e-6)


@pytest.mark.parametrize("op", [ops.conv, ops.conv_transpose])
def test_forward_mode(op):
    x, kernel = normal(2, 5, 5, 2), normal(3, 3, 2, 2)
    plain = functools.partial(op, padding="SAME", strides=2)
    out, tangent = compiled(lambda *pair: jax.jvp(plain, pair, pair))(x, kernel)
    np.testing.assert_allclose(tangent, 2 * out, atol=1e-4)  # bilinear
    hessian = compiled(jax.hessian(lambda k: (plain(x, k) ** 2).sum()))(kernel)
    quadratic = np.einsum("abcd,abcdefgh,efgh", kernel, hessian, kernel)
    np.testing.assert_allclose(quadratic, 2 * (np.asarray(out) ** 2).sum(), rtol=1e-4)


# Transformations


@pytest.mark.parametrize("method", METHODS)
def test_vmap_over_inputs_kernels_and_both(method):
    x, kernel = normal(2, 2, 5, 6, 2), normal(2, 3, 3, 2, 3)
    conv = functools.partial(ops.conv, padding="SAME", method=method)

    @compiled
    def everything(x, kernel):
        mapped = [jax.vmap(conv, axes)(*pair) for axes, pair in _pairs(x, kernel)]
        one_by_one = [[conv(x[i], kernel[j]) for j in range(2)] for i in range(2)]
        return mapped, one_by_one

    (over_x, over_kernel, over_both), single = everything(x, kernel)
    for i in range(2):
        np.testing.assert_allclose(over_x[i], single[i][0], atol=2e-4)
        np.testing.assert_allclose(over_kernel[i], single[0][i], atol=2e-4)
        np.testing.assert_allclose(over_both[i], single[i][i], atol=2e-4)


def _pairs(x, kernel):
    return [((0, None), (x, kernel[0])), ((None, 0), (x[0], kernel)), ((0, 0), (x, kernel))]


def network(x, kernels, *, method="auto", wrap=lambda layer: layer):
    def layer(x, kernel):
        return jnp.tanh(ops.conv(x, kernel, padding="SAME", boundary="periodic", method=method))

    for kernel in kernels:
        x = wrap(layer)(x, kernel)
    return jnp.sum(x**2)


def test_gradient_under_vmap_over_kernels():
    x, kernels = normal(2, 6, 6, 2), [normal(3, 3, 3, 2, 2), normal(3, 3, 3, 2, 3)]
    gradient = jax.grad(network, 1)
    together = compiled(jax.vmap(gradient, (None, 0)))(x, kernels)
    for member in range(3):
        alone = compiled(gradient)(x, [kernel[member] for kernel in kernels])
        for left, right in zip(together, alone, strict=True):
            np.testing.assert_allclose(left[member], right, atol=1e-4)


def test_checkpoint_changes_nothing():
    x, kernels = normal(2, 6, 6, 2), [normal(3, 3, 2, 2), normal(3, 3, 2, 3)]
    stored = compiled(jax.grad(network, (0, 1)))(x, kernels)
    again = compiled(jax.grad(functools.partial(network, wrap=jax.checkpoint), (0, 1)))(x, kernels)
    for actual, expected in zip(jax.tree.leaves(again), jax.tree.leaves(stored), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_scan_trains_as_a_loop_does():
    x, kernels = normal(4, 2, 6, 6, 2), [normal(3, 3, 2, 2), normal(3, 3, 2, 3)]

    def step(kernels, x):
        loss, gradient = jax.value_and_grad(network, 1)(x, kernels)
        return jax.tree.map(lambda k, g: k - 0.01 * g, kernels, gradient), loss

    scanned, losses = compiled(lambda kernels, x: jax.lax.scan(step, kernels, x))(kernels, x)
    looped, step = kernels, compiled(step)
    for i in range(4):
        looped, loss = step(looped, x[i])
        np.testing.assert_allclose(losses[i], loss, rtol=1e-4)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), scanned, looped)


@pytest.mark.parametrize("method", ["auto", "im2col", "toeplitz", "fft"])
def test_sharded_over_eight_devices(method):
    assert jax.device_count() == 8
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
    x, kernels = normal(16, 6, 6, 2), [normal(3, 3, 2, 2), normal(3, 3, 2, 3)]
    gradient = compiled(jax.value_and_grad(functools.partial(network, method=method), 1))
    alone = gradient(x, kernels)
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
    copied = jax.device_put(kernels, NamedSharding(mesh, PartitionSpec()))
    together = gradient(split, copied)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), together, alone)
    y = compiled(functools.partial(ops.conv, method=method))(split, kernels[0])
    assert len(y.sharding.device_set) == 8
