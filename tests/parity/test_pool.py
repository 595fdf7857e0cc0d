"""Pools, unpooling and upsampling against PyTorch: outputs, gradients, indices."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cnn_jax import ops
from tests.compiled import compiled, with_gradients

WINDOWS = [  # space, window, strides, padding, dilation
    ((11,), (3,), (2,), (1,), (1,)),
    ((20,), (5,), (1,), (2,), (2,)),
    ((9, 8), (2, 2), (2, 2), (0, 0), (1, 1)),
    ((9, 8), (3, 3), (2, 2), (1, 1), (1, 1)),
    ((9, 8), (3, 2), (1, 3), (1, 0), (2, 3)),
    ((13, 13), (3, 3), (2, 2), (0, 0), (1, 1)),
    ((5, 6, 7), (2, 3, 2), (2, 2, 3), (1, 1, 0), (1, 1, 1)),
]


def channels_first(array):
    return torch.tensor(np.moveaxis(np.asarray(array), -1, 1))


def channels_last(tensor):
    return np.moveaxis(tensor.detach().numpy(), 1, -1)


def draw(shape, seed=0, *, ties=False):
    rng = np.random.default_rng(seed)
    return (rng.integers(-3, 4, shape) if ties else rng.standard_normal(shape)).astype(np.float32)


def assert_same(ours, theirs, x, seed=1, tolerance=1e-6):
    """Outputs and gradients of two functions of the same array."""
    reference = channels_first(x).requires_grad_()
    expected = theirs(reference)
    dy = draw(channels_last(expected).shape, seed)
    (gradient,) = torch.autograd.grad(expected, reference, channels_first(dy))
    y, dx = with_gradients(ours)(dy, x)
    np.testing.assert_allclose(y, channels_last(expected), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(dx, channels_last(gradient), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("rounding", ["floor", "ceil"])
@pytest.mark.parametrize("case", WINDOWS)
def test_max_pool(case, rounding, channels):
    space, window, strides, padding, dilation = case
    x = draw((2, *space, channels), ties=True)
    pool = getattr(F, f"max_pool{len(space)}d")
    options = {"stride": strides, "padding": padding, "dilation": dilation, "ceil_mode": rounding == "ceil"}
    ours = {"strides": strides, "padding": padding, "dilation": dilation, "rounding": rounding}
    assert_same(lambda x: ops.max_pool(x, window, **ours), lambda t: pool(t, window, **options), x)
    _, expected = pool(channels_first(x), window, return_indices=True, **options)
    _, indices = compiled(lambda x: ops.max_pool(x, window, return_indices=True, **ours))(x)
    np.testing.assert_array_equal(indices, channels_last(expected))


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("rounding", ["floor", "ceil"])
@pytest.mark.parametrize("case", [case for case in WINDOWS if set(case[-1]) == {1}])
def test_avg_pool(case, rounding, include):
    space, window, strides, padding, _ = case
    theirs = {"stride": strides, "padding": padding, "ceil_mode": rounding == "ceil", "count_include_pad": include}
    ours = {"strides": strides, "padding": padding, "rounding": rounding, "count_include_pad": include}
    pool = getattr(F, f"avg_pool{len(space)}d")
    x = draw((2, *space, 3))
    assert_same(lambda x: ops.avg_pool(x, window, **ours), lambda t: pool(t, window, **theirs), x)


@pytest.mark.parametrize("p", [1, 2, 3.0])
@pytest.mark.parametrize("space", [(9,), (9, 8)])
def test_lp_pool(space, p):
    window, strides = (3, 2)[: len(space)], (2, 1)[: len(space)]
    pool = getattr(F, f"lp_pool{len(space)}d")
    x = np.abs(draw((2, *space, 3))) + 0.1  # PyTorch computes powers without the absolute value
    kernel, stride = (window, strides) if len(space) > 1 else (window[0], strides[0])
    assert_same(
        lambda x: ops.lp_pool(x, window, p=p, strides=strides), lambda t: pool(t, p, kernel, stride), x, tolerance=1e-5
    )


@pytest.mark.parametrize(
    ("space", "size"), [((11,), (4,)), ((13, 10), (6, 3)), ((6, 6), (6, 1)), ((5, 7, 4), (2, 3, 3))]
)
def test_adaptive_pools(space, size):
    x = draw((2, *space, 3), ties=True)
    average, maximum = (getattr(F, f"adaptive_{kind}_pool{len(space)}d") for kind in ("avg", "max"))
    assert_same(lambda x: ops.adaptive_avg_pool(x, size), lambda t: average(t, size), x, tolerance=1e-5)
    assert_same(lambda x: ops.adaptive_max_pool(x, size), lambda t: maximum(t, size), x)
    _, expected = maximum(channels_first(x), size, return_indices=True)
    _, indices = compiled(lambda x: ops.adaptive_max_pool(x, size, return_indices=True))(x)
    np.testing.assert_array_equal(indices, channels_last(expected))


@pytest.mark.parametrize(("window", "strides"), [((2, 2), (2, 2)), ((3, 3), (2, 2))])
def test_max_unpool(window, strides):
    y, indices = ops.max_pool(draw((2, 9, 8, 3)), window, strides=strides, return_indices=True)
    places = channels_first(indices).long()

    def ours(y):
        return ops.max_unpool(y, indices, (9, 8))

    def theirs(y):
        return F.max_unpool2d(y, places, window, strides, output_size=(9, 8))

    if window == strides:
        assert_same(ours, theirs, np.asarray(y))
    else:  # overlapping windows write the same value twice; their gradient is undefined
        np.testing.assert_array_equal(ours(y), channels_last(theirs(channels_first(y))))


@pytest.mark.parametrize(("method", "corners"), [("nearest", False), ("bilinear", False), ("bilinear", True)])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_upsample(rank, method, corners):
    space, scale = (4, 5, 3)[:rank], (2, 3, 2)[:rank]
    mode = method if method == "nearest" else ["linear", "bilinear", "trilinear"][rank - 1]
    options = {} if method == "nearest" else {"align_corners": corners}
    assert_same(
        lambda x: ops.upsample(x, scale, method=method, align_corners=corners),
        lambda t: F.interpolate(t, scale_factor=scale, mode=mode, **options),
        draw((2, *space, 3)),
        tolerance=1e-5,
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_average_in_half_precision(dtype):
    x = jnp.asarray(draw((2, 9, 8, 3)), dtype)
    theirs = F.avg_pool2d(channels_first(x.astype("float32")).to(getattr(torch, dtype)), 3, 2, 1)
    ours = ops.avg_pool(x, (3, 3), strides=2, padding=1)
    np.testing.assert_allclose(np.float32(ours), channels_last(theirs.float()), rtol=1e-2, atol=1e-2)


def test_ceil_windows_over_many_sizes():
    for size, window, stride, padding in itertools.product(range(4, 9), (2, 3), (1, 2, 3), (0, 1)):
        x = draw((1, size, 1))
        options = {"stride": stride, "padding": padding, "ceil_mode": True}
        ours = {"strides": stride, "padding": padding, "rounding": "ceil"}
        expected = F.avg_pool1d(channels_first(x), window, **options)
        y = compiled(lambda x: ops.avg_pool(x, (window,), **ours))(x)  # noqa: B023
        np.testing.assert_allclose(y, channels_last(expected), atol=1e-6)
