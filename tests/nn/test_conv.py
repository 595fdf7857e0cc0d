"""The convolution layers against Flax's own: one network with the layers swapped, and every option they share."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype

from cnn_jax import geometry, nn, ops
from cnn_jax.errors import UsageError
from tests.compiled import compiled


class Network(nnx.Module):
    def __init__(self, kind, rngs):
        self.first = kind(3, 8, (3, 3), rngs=rngs)
        self.second = kind(8, 8, kernel_size=(3, 2), strides=2, feature_group_count=2, rngs=rngs)
        self.third = kind(8, 4, (2, 2), padding="VALID", kernel_dilation=2, use_bias=False, rngs=rngs)
        self.output = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, x):
        x = jnp.tanh(self.first(x))
        x = jnp.tanh(self.second(x))
        return self.output(self.third(x).mean(axis=(1, 2)))


def test_conv_stands_in_for_flax_in_a_network():
    x, target = jax.random.normal(jax.random.key(0), (2, 12, 10, 3)), jnp.ones((2, 5))
    results = []
    for kind in (nnx.Conv, nn.Conv):
        graph, params = nnx.split(Network(kind, nnx.Rngs(0)))

        def loss(params, graph=graph):
            output = nnx.merge(graph, params)(x)
            return ((output - target) ** 2).mean(), output

        gradients, output = compiled(jax.grad(loss, has_aux=True))(params)
        results.append((params, output, gradients))
    (params, output, gradients), (our_params, our_output, our_gradients) = results
    assert jax.tree.structure(params) == jax.tree.structure(our_params)
    for expected, actual in zip(jax.tree.leaves(params), jax.tree.leaves(our_params), strict=True):
        np.testing.assert_array_equal(actual, expected)
    np.testing.assert_allclose(our_output, output, atol=1e-6)
    for expected, actual in zip(jax.tree.leaves(gradients), jax.tree.leaves(our_gradients), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-6)


def halved(arrays, **_):
    return promote_dtype(arrays, dtype=jnp.float16)


SHARED = {
    "defaults": {},
    "one dimension": {"kernel_size": 3, "space": (9,)},
    "three dimensions": {"kernel_size": (2, 3, 2), "space": (4, 5, 3), "strides": (1, 2, 1)},
    "strided": {"strides": (2, 3)},
    "none for one": {"strides": None, "kernel_dilation": None, "input_dilation": None},
    "valid": {"padding": "VALID"},
    "one int": {"padding": 2},
    "ints": {"padding": (1, 0)},
    "pairs": {"padding": [(1, 2), (0, 1)]},
    "circular": {"padding": "CIRCULAR", "kernel_size": (4, 3), "kernel_dilation": (1, 2)},
    "reflect": {"padding": "REFLECT", "strides": 2},
    "causal": {"padding": "CAUSAL", "kernel_size": 3, "space": (9,), "kernel_dilation": 2},
    "input dilation": {"input_dilation": (2, 1), "strides": 2, "padding": ((1, 1), (2, 0))},
    "groups": {"feature_group_count": 2},
    "mask": {"mask": np.tril(np.ones((3, 2, 4, 6)))},
    "no bias": {"use_bias": False},
    "bfloat16": {"dtype": jnp.bfloat16, "tolerance": 2e-2},
    "float16 parameters": {"param_dtype": jnp.float16, "tolerance": 1e-3},
    "fractions as mask": {"mask": np.linspace(0, 1, 3 * 2 * 4 * 6).reshape(3, 2, 4, 6)},
    "wider sums": {"dtype": jnp.bfloat16, "preferred_element_type": jnp.float32},
    "types of one's own": {
        "promote_dtype": halved,
        "tolerance": 1e-2,
    },
    "initialisers": {"kernel_init": nnx.initializers.ones, "bias_init": nnx.initializers.ones},
}


@pytest.mark.parametrize("name", SHARED)
def test_conv_shares_options_with_flax(name):
    assert_shared(nnx.Conv, nn.Conv, **SHARED[name])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": (2, 3)},
        {"strides": 4, "padding": "SAME"},
        {"strides": 2, "padding": "VALID"},
        {"strides": 2, "padding": 1, "kernel_dilation": 2},
        {"strides": 2, "padding": ((1, 2), (0, 1)), "transpose_kernel": True},
        {"kernel_size": 4, "space": (5,), "strides": 2, "use_bias": False},
        {"padding": "CIRCULAR"},
        {"padding": "CIRCULAR", "strides": (2, 3)},
        {"padding": "CIRCULAR", "strides": 2, "kernel_size": (6, 3), "transpose_kernel": True},
        {"padding": "CIRCULAR", "kernel_size": (5, 4), "space": (2, 3), "kernel_dilation": (3, 2)},
        {"padding": "CIRCULAR", "kernel_size": 8, "space": (3,), "strides": 3, "transpose_kernel": True},
        {"mask": np.tril(np.ones((3, 2, 4, 6)))},
        {"dtype": jnp.bfloat16, "preferred_element_type": jnp.float32},
    ],
)
def test_conv_transpose_shares_options_with_flax(options):
    assert_shared(nnx.ConvTranspose, nn.ConvTranspose, **options)


@pytest.mark.parametrize("name", ["Conv", "ConvTranspose"])
def test_arguments_are_those_of_flax(name):
    theirs, ours = (inspect.signature(getattr(module, name)).parameters for module in (nnx, nn))
    for argument, parameter in theirs.items():
        assert ours[argument].kind == parameter.kind, argument
        assert ours[argument].default == parameter.default, argument


@pytest.mark.parametrize("options", [{"padding": "SAME", "strides": 2}, {"padding": "CIRCULAR"}])
def test_another_function_computes_the_convolution(options):
    def shouted(*arrays, **options):
        return 2 * jax.lax.conv_general_dilated(*arrays, **options)

    x = np.random.default_rng(0).standard_normal((2, 3, 7, 6, 4)).astype(np.float32)
    theirs, ours = (
        layer(4, 6, (3, 2), conv_general_dilated=shouted, rngs=nnx.Rngs(0), **options) for layer in (nnx.Conv, nn.Conv)
    )
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)


def drawn(key, shape, dtype):
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape) / 3, dtype)


def assert_shared(theirs, ours, *, kernel_size=(3, 2), space=(7, 6), tolerance=1e-5, **options):
    x = np.random.default_rng(0).standard_normal((2, *space, 4)).astype(np.float32)
    options.setdefault("kernel_init", drawn)  # Flax's own is compiled for each shape
    if "mask" in options:
        options["mask"] = jnp.asarray(options["mask"])
    theirs, ours = (layer(4, 6, kernel_size, rngs=nnx.Rngs(0), **options) for layer in (theirs, ours))
    expected, actual = compiled(theirs)(x), compiled(ours)(x)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(np.float32(actual), np.float32(expected), atol=tolerance, rtol=tolerance)
    assert jax.tree.structure(nnx.state(ours)) == jax.tree.structure(nnx.state(theirs))


def test_options_of_our_own_reach_the_op():
    x = np.random.default_rng(0).standard_normal((9, 2)).astype(np.float32)
    layer = nn.Conv(2, 3, 3, boundary="mirror", flip_kernel=True, method="im2col", rngs=nnx.Rngs(0))
    padded = np.pad(x, ((1, 1), (0, 0)), mode="reflect")
    expected = sum(padded[t : t + 9] @ np.asarray(layer.kernel[...])[2 - t] for t in range(3))
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)
    partial = nn.Conv(2, 3, 3, mask=jnp.array([[1, 0, 1], [0, 1, 1]]), rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(partial(x * np.float32([1, 0]))[:, 1], np.zeros(9))
    with pytest.raises(UsageError, match="stride 2 does not divide"):
        nn.Conv(2, 3, 2, strides=2, padding="VALID", rounding="strict", rngs=nnx.Rngs(0))(x)


def test_bad_layers():
    with pytest.raises(UsageError, match="feature_group_count=2 must divide in_features=3 and out_features=4"):
        nn.Conv(3, 4, (3, 3), feature_group_count=2, rngs=nnx.Rngs(0))
    with pytest.raises(UsageError, match="padding='CIRCULAR' already sets the boundary"):
        nn.Conv(3, 4, (3, 3), padding="CIRCULAR", boundary="mirror", rngs=nnx.Rngs(0))(jnp.ones((5, 5, 3)))
    with pytest.raises(UsageError, match="ConvTranspose: unknown padding='REFLECT'"):
        nn.ConvTranspose(3, 4, (3, 3), padding="REFLECT", rngs=nnx.Rngs(0))
    for wrong, line in {
        "in_features": "Conv: in_features=0 must be at least 1",
        "feature_group_count": "Conv: feature_group_count=0 must be at least 1",
        "kernel_size": r"Conv: kernel_size=\(0,\) must be at least 1",
    }.items():
        with pytest.raises(UsageError, match=line):
            nn.Conv(**{"in_features": 3, "out_features": 4, "kernel_size": 3, wrong: 0}, rngs=nnx.Rngs(0))
    with pytest.raises(UsageError, match=r"Conv: mask of shape \(2, 2\) does not broadcast to kernel \(3, 3, 3, 4\)"):
        nn.Conv(3, 4, (3, 3), mask=np.ones((2, 2)), rngs=nnx.Rngs(0))
    with pytest.raises(UsageError, match=r"strides=\(0, 1\) must be at least 1"):
        nn.Conv(3, 4, (3, 3), strides=(0, 1), rngs=nnx.Rngs(0))


def test_separable_and_local_layers_call_their_ops():
    x = np.random.default_rng(0).standard_normal((2, 7, 6, 4)).astype(np.float32)
    options = {"strides": (2, 1), "padding": 1, "boundary": "mirror", "rounding": "ceil"}
    layer = nn.SeparableConv(4, 6, (3, 2), channel_multiplier=2, rngs=nnx.Rngs(0), **options)
    first, second = layer.depthwise.kernel[...].reshape(3, 2, 4, 2), layer.pointwise.kernel[0, 0]
    np.testing.assert_allclose(layer(x), ops.separable_conv(x, first, second, **options), atol=1e-5)
    assert list(layer(x, return_activations=True)[1]) == ["depthwise", "pointwise"]

    layer = nn.ConvLocal(4, 6, (3, 2), input_size=(7, 6), feature_group_count=2, rngs=nnx.Rngs(0), **options)
    y = layer(x)
    assert layer.kernel.shape == (*y.shape[1:3], 3, 2, 2, 6)
    assert layer.bias.shape == y.shape[1:]
    expected = ops.conv_local(x, layer.kernel[...], feature_group_count=2, **options)
    np.testing.assert_array_equal(y, expected)
    assert np.std(layer.kernel[...]) == pytest.approx((3 * 2 * 2) ** -0.5, rel=0.1)  # fan-in: inputs of one position
    (row,) = geometry.trace(nn.Sequence({"local": layer}), (7, 6, 4))
    assert row.multiply_adds == layer.kernel.size
    with pytest.raises(UsageError, match=r"conv_local: kernel of shape .* is for an output of \(4, 7\), but"):
        layer(x[:, :5])


@pytest.mark.parametrize(
    ("make", "shape", "line"),
    [
        (lambda **k: nn.Conv(1, 4, (3, 3), **k), (2, 9, 9, 3), "Conv: .* have 3 channels, but in_features=1; channels"),
        (lambda **k: nn.Conv(3, 4, (3, 3), **k), (2, 3, 9, 9), "Conv: .*jnp.moveaxis\\(inputs, -3, -1\\)"),
        (lambda **k: nn.Conv(4, 8, 3, feature_group_count=2, **k), (2, 9, 6), "Conv: .* in_features=4; channels come"),
        (
            lambda **k: nn.ConvTranspose(4, 2, (3, 3), **k),
            (2, 9, 9, 3),
            "ConvTranspose: .* 3 channels, but in_features=4",
        ),
        (
            lambda **k: nn.ConvLocal(4, 2, 3, input_size=9, **k),
            (2, 9, 3),
            "ConvLocal: .* 3 channels, but in_features=4",
        ),
        (lambda **k: nn.TableConv(2, [(0,), (1,)], (3, 3), **k), (2, 9, 9, 3), "TableConv: .* but in_features=2"),
    ],
)
def test_a_wrong_number_of_channels_is_named(make, shape, line):
    layer = nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))
    with pytest.raises(UsageError, match=line) as caught:
        nnx.eval_shape(layer, jax.ShapeDtypeStruct(shape, "float32"))
    assert "kernel" not in str(caught.value)
