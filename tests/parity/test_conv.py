"""Convolutions against PyTorch: outputs and both gradients."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cnn_jax import ops
from tests.compiled import with_gradients

TORCH_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TORCH_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
METHODS = ["auto", "direct", "im2col", "toeplitz", "fft"]


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype("float32")


def close(actual, expected, tolerance=1e-5):
    """Compares to the fifth digit of the largest entry: both sides are in float32."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def channels_first(x):
    return torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True)


def channels_last(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


def out_in_window(kernel):
    """Converts (*window, in, out) to PyTorch's (out, in, *window); for transposed convolution (in, out, *window)."""
    return torch.tensor(np.moveaxis(kernel, (-1, -2), (0, 1)).copy(), requires_grad=True)


def back(kernel):
    return np.moveaxis(kernel.detach().numpy(), (0, 1), (-1, -2))


def assert_same(ours, theirs, x, kernel, tolerance=1e-5):
    left, right = channels_first(x), out_in_window(kernel)
    expected = theirs(left, right)
    dy = normal(*channels_last(expected).shape, seed=9)
    expected.backward(channels_first(dy).detach())
    y, dx, dkernel = with_gradients(ours)(dy, x, kernel)
    close(y, channels_last(expected), tolerance)
    close(dx, channels_last(left.grad), tolerance)
    close(dkernel, back(right.grad), tolerance)


CONVOLUTIONS = {
    # name: (x, kernel, options)
    "1d": ((2, 30, 4), (9, 4, 6), {"padding": 4}),
    "1d strided and dilated": ((2, 31, 4), (3, 4, 6), {"strides": 3, "kernel_dilation": 4}),
    "lenet c1": ((4, 32, 32, 1), (5, 5, 1, 6), {}),
    "lenet c3": ((4, 14, 14, 6), (5, 5, 6, 16), {}),
    "resnet-20": ((2, 16, 16, 16), (3, 3, 16, 16), {"padding": 1}),
    "stride 2": ((2, 15, 16, 8), (3, 3, 8, 16), {"padding": 1, "strides": 2}),
    "1x1 stride 2": ((2, 15, 16, 8), (1, 1, 8, 16), {"strides": 2}),
    "alexnet 1": ((1, 63, 63, 3), (11, 11, 3, 8), {"strides": 4}),
    "alexnet 2": ((2, 13, 13, 8), (5, 5, 4, 12), {"padding": 2, "feature_group_count": 2}),
    "resnet stem": ((1, 32, 32, 3), (7, 7, 3, 8), {"padding": 3, "strides": 2}),
    "depthwise": ((2, 14, 14, 12), (3, 3, 1, 24), {"padding": 1, "feature_group_count": 12}),
    "dilated": ((2, 17, 17, 4), (3, 3, 4, 4), {"padding": 2, "kernel_dilation": 2}),
    "uneven": (
        (2, 11, 9, 4),
        (4, 2, 4, 5),
        {"strides": (2, 3), "padding": (3, 1), "kernel_dilation": (1, 2)},
    ),
    "padding beyond the kernel": ((1, 5, 5, 2), (3, 3, 2, 2), {"padding": 5, "strides": 2}),
    "3d": ((2, 6, 8, 8, 3), (3, 3, 3, 3, 4), {"padding": 1}),
    "3d strided": ((1, 7, 9, 8, 4), (3, 2, 3, 2, 4), {"strides": (1, 2, 2), "feature_group_count": 2}),
}


def torch_options(options):
    return {
        "stride": options.get("strides", 1),
        "padding": options.get("padding", 0),
        "dilation": options.get("kernel_dilation", 1),
        "groups": options.get("feature_group_count", 1),
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_conv(name, method):
    shape, window, options = CONVOLUTIONS[name]
    rank = len(window) - 2
    theirs = functools.partial(TORCH_CONV[rank], **torch_options(options))
    ours = functools.partial(ops.conv, method=method, **options)
    assert_same(ours, theirs, normal(*shape), normal(*window, seed=1))


@pytest.mark.parametrize(("method", "tolerance"), [("winograd", 1e-5), ("winograd_f43", 1e-4)])
@pytest.mark.parametrize("name", ["resnet-20", "3d"])
def test_winograd(name, method, tolerance):
    shape, window, options = CONVOLUTIONS[name]
    ours = functools.partial(ops.conv, method=method, **options)
    theirs = functools.partial(TORCH_CONV[len(window) - 2], padding=1)
    assert_same(ours, theirs, normal(*shape), normal(*window, seed=1), tolerance)


@pytest.mark.parametrize(
    ("boundary", "theirs"),
    [("mirror", "reflect"), ("replicate", "replicate"), ("periodic", "circular"), ("constant", "constant")],
)
def test_boundaries(boundary, theirs):
    value = 0.5 if boundary == "constant" else 0.0
    extra = {"value": value} if boundary == "constant" else {}
    assert_same(
        functools.partial(ops.conv, padding=[(3, 2), (1, 4)], strides=2, boundary=boundary, boundary_value=value),
        lambda x, kernel: F.conv2d(F.pad(x, (1, 4, 3, 2), mode=theirs, **extra), kernel, stride=2),
        normal(2, 7, 8, 3),
        normal(3, 3, 3, 4, seed=1),
    )


def test_negative_padding_crops():
    assert_same(
        functools.partial(ops.conv, padding=[(-1, 2), (3, -2)]),
        lambda x, kernel: F.conv2d(F.pad(x, (3, -2, -1, 2)), kernel),
        normal(2, 7, 8, 3),
        normal(3, 3, 3, 4, seed=1),
    )


@pytest.mark.parametrize("window", [2, 3, 4, 5])
def test_same(window):
    assert_same(
        functools.partial(ops.conv, padding="SAME", kernel_dilation=2),
        functools.partial(F.conv2d, padding="same", dilation=2),
        normal(2, 9, 8, 3),
        normal(window, window, 3, 4, seed=1),
    )


@pytest.mark.parametrize(
    ("shape", "window", "options", "output_padding"),
    [
        ((2, 9, 4), (4, 6, 4), {"strides": 2, "padding": 1}, 0),
        ((2, 7, 7, 4), (4, 4, 6, 4), {"strides": 2, "padding": 1}, 0),
        ((2, 7, 5, 4), (3, 3, 6, 4), {"strides": 2, "padding": 1}, 1),
        ((2, 5, 5, 4), (3, 2, 6, 4), {"strides": (3, 1), "kernel_dilation": (1, 3)}, (2, 0)),
        ((2, 5, 5, 4), (3, 3, 3, 4), {"strides": 3, "feature_group_count": 2}, (1, 2)),
        ((1, 3, 4, 3, 4), (3, 3, 3, 2, 4), {"strides": 2, "padding": 1}, 1),
    ],
)
def test_conv_transpose(shape, window, options, output_padding):
    rank = len(window) - 2
    assert_same(
        functools.partial(ops.conv_transpose, output_padding=output_padding, **options),
        functools.partial(TORCH_TRANSPOSE[rank], output_padding=output_padding, **torch_options(options)),
        normal(*shape),
        normal(*window, seed=1),
    )


@pytest.mark.parametrize("options", [{}, {"strides": 2, "padding": 1}, {"kernel_dilation": 2, "padding": (2, 0)}])
def test_im2col_and_col2im_are_unfold_and_fold(options):
    x = normal(2, 9, 8, 3)
    theirs = torch_options(options)
    del theirs["groups"]
    columns = ops.im2col(jnp.asarray(x), (3, 2), **options)
    unfolded = F.unfold(channels_first(x), (3, 2), **theirs)  # (N, C * window, positions): channels vary slowest
    expected = unfolded.detach().numpy().reshape(2, 3, 6, -1).transpose(0, 3, 2, 1).reshape(columns.shape)
    np.testing.assert_array_equal(columns, expected)
    folded = F.fold(unfolded, (9, 8), (3, 2), **theirs)
    close(ops.col2im(columns, (9, 8), (3, 2), **options), channels_last(folded))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_floats_are_summed_as_wide_as_pytorchs(dtype):
    x, kernel = normal(2, 12, 12, 32), normal(3, 3, 32, 8, seed=1)
    exact = F.conv2d(*(tensor.double() for tensor in (channels_first(x), out_in_window(kernel))))
    theirs = F.conv2d(*(tensor.to(getattr(torch, dtype)) for tensor in (channels_first(x), out_in_window(kernel))))
    ours = ops.conv(jnp.asarray(x, dtype), jnp.asarray(kernel, dtype))
    expected = channels_last(exact)
    error = np.abs(np.asarray(ours, "float64") - expected).mean()
    assert error < 1.1 * np.abs(channels_last(theirs.double()) - expected).mean()
