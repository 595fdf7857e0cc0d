"""Partial connections, unit biases and trained subsampling against loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import nn
from cnn_jax.errors import UsageError

TABLE = [(0, 2), (1,), (0, 1, 2)]
X = np.random.default_rng(0).standard_normal((2, 7, 6, 3)).astype(np.float32)


def layer(**options) -> nn.TableConv:
    return nn.TableConv(3, TABLE, (3, 2), rngs=nnx.Rngs(0), bias_init=nnx.initializers.normal(), **options)


def test_partial_connections_are_the_loop_over_the_table() -> None:
    conv = layer(strides=(2, 1), padding=((1, 0), (0, 2)), boundary="constant", boundary_value=-1.0, bias_space=(3, 7))
    kernel, bias = np.asarray(conv.kernel[...]), np.asarray(conv.bias[...])
    assert kernel.shape == (3, 2, 6)
    assert bias.shape == (3, 7, 3)
    padded = np.pad(X, ((0, 0), (1, 0), (0, 2), (0, 0)), constant_values=-1)
    expected = np.empty((2, 3, 7, 3))
    for i in range(3):
        for j in range(7):
            connection = 0
            for output, inputs in enumerate(TABLE):
                value = bias[i, j, output].repeat(2)
                for channel in inputs:
                    patch = padded[:, 2 * i : 2 * i + 3, j : j + 2, channel]
                    value = value + (patch * kernel[..., connection]).sum((1, 2))
                    connection += 1
                expected[:, i, j, output] = value
    np.testing.assert_allclose(conv(X), expected, rtol=1e-4, atol=1e-5)


def test_partial_connections_are_a_masked_convolution() -> None:
    """Outputs and input gradients equal those of a full kernel with a mask."""
    conv = layer()
    mask = np.zeros((3, 3))
    full = np.random.default_rng(1).standard_normal((3, 2, 3, 3)).astype(np.float32)
    connection = 0
    for output, inputs in enumerate(TABLE):
        for channel in inputs:
            mask[channel, output] = 1
            full[..., channel, output] = conv.kernel[..., connection]
            connection += 1
    masked = nn.Conv(3, 3, (3, 2), mask=mask, rngs=nnx.Rngs(0))
    masked.kernel[...], masked.bias[...] = jnp.asarray(full), conv.bias[...]
    (y, dx), (y2, dx2) = (
        jax.value_and_grad(lambda x, f=f: jnp.sin(f(x)).sum())(jnp.asarray(X)) for f in (conv, masked)
    )
    np.testing.assert_allclose(y, y2, rtol=1e-5)
    np.testing.assert_allclose(dx, dx2, rtol=1e-4, atol=1e-5)


def test_each_output_is_drawn_for_its_own_fan_in() -> None:
    conv = nn.TableConv(
        400, [range(4), range(400)], (5, 5), kernel_init=nnx.initializers.lecun_normal(), rngs=nnx.Rngs(0)
    )
    few, many = np.asarray(conv.kernel[..., :4]), np.asarray(conv.kernel[..., 4:])
    assert few.std() == pytest.approx(1 / np.sqrt(100), rel=0.2)
    assert many.std() == pytest.approx(1 / np.sqrt(10_000), rel=0.05)


def test_subsampling_is_the_loop() -> None:
    pool = nn.Subsampling(
        3, (3, 2), coefficient_init=nnx.initializers.normal(), bias_init=nnx.initializers.normal(), rngs=nnx.Rngs(0)
    )
    expected = np.empty((2, 2, 3, 3))
    for i in range(2):
        for j in range(3):
            window = X[:, 3 * i : 3 * i + 3, 2 * j : 2 * j + 2]
            expected[:, i, j] = window.sum((1, 2)) * pool.coefficient[...] + pool.bias[...]
    np.testing.assert_allclose(pool(X), expected, rtol=1e-4, atol=1e-5)
    average = nn.Subsampling(3, (3, 2), rngs=nnx.Rngs(0))
    np.testing.assert_allclose(average(X), nn.AvgPool((3, 2))(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: nn.TableConv(3, [(0,), ()], (3, 3), rngs=nnx.Rngs(0)), ["output channel 1", "()", "0 to 2"]),
        (lambda: nn.TableConv(3, [(0, 3)], (3, 3), rngs=nnx.Rngs(0)), ["output channel 0", "(0, 3)", "0 to 2"]),
        (lambda: nn.TableConv(3, [(1, 1)], (3, 3), rngs=nnx.Rngs(0)), ["(1, 1)", "once"]),
        (lambda: nn.Subsampling(4, (2, 2), rngs=nnx.Rngs(0))(X), ["(2, 7, 6, 3)", "features=4"]),
        (lambda: nn.Flatten((7, 6, 4))(X), ["(2, 7, 6, 3)", "(batch, 7, 6, 4)", "input_shape"]),
        (lambda: nn.Flatten((6, 3, 7))(X), ["channels-first"]),
    ],
)
def test_mistakes_are_named(call, parts) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert all(part in str(caught.value) for part in parts), caught.value
