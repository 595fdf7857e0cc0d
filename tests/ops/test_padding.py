"""Padding, boundaries and rounding against NumPy's pad, lax's padding, and hand counts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnn_jax import ops
from cnn_jax.ops.padding import Sliding, slide
from tests.ops import reference

NUMPY_NAMES = {
    "replicate": "edge",
    "mirror": "reflect",
    "symmetric": "symmetric",
    "periodic": "wrap",
}


@pytest.mark.parametrize("boundary", NUMPY_NAMES)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_pad_is_numpys_pad_for_any_width(boundary, size):
    x = np.random.default_rng(0).standard_normal((2, size, 3, 2)).astype("float32")
    expected = np.pad(x, ((0, 0), (7, 12), (1, 0), (0, 0)), mode=NUMPY_NAMES[boundary])
    np.testing.assert_array_equal(ops.pad(x, [(7, 12), (1, 0)], boundary=boundary), expected)


@pytest.mark.parametrize("boundary", ["zero", "constant", *NUMPY_NAMES])
@pytest.mark.parametrize(("low", "high"), [(3, 2), (-1, 2), (2, -1), (-1, -2), (6, -2), (9, 9), (-4, 7)])
def test_pad_is_a_cutting_of_the_endless_extension(boundary, low, high):
    x = np.arange(1.0, 6.0, dtype="float32")
    axis = reference.Axis(5, 1)
    found = [axis.find(position, boundary) for position in range(-low, 5 + high)]
    value = 9.0 if boundary == "constant" else 0.0
    expected = [value if q is None else x[q] for q in found]
    padded = ops.pad(x[:, None], [(low, high)], boundary=boundary, boundary_value=value)
    np.testing.assert_array_equal(padded[:, 0], expected)


def test_pad_takes_ints_and_leaves_batch_axes_alone():
    x = jnp.ones((4, 2, 3, 3, 1))
    assert ops.pad(x, [1, 2]).shape == (4, 2, 5, 7, 1)
    assert ops.pad(x, [(1, 0)]).shape == (4, 2, 3, 4, 1)


@pytest.mark.parametrize("name", ["SAME", "SAME_LOWER"])
def test_same_is_laxs_same(name):
    for size in range(1, 9):
        for window in range(1, 5):
            for stride in range(1, 4):
                for dilation in range(1, 3):
                    reach = (window - 1) * dilation + 1
                    (expected,) = lax.padtype_to_pads([size], [reach], [stride], name)
                    sliding = slide("conv", (size,), (window,), strides=(stride,), padding=name, dilation=(dilation,))
                    assert sliding.padding == (tuple(expected),)
                    assert sliding.output == (-(-size // stride),)


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        ("VALID", ((0, 0), (0, 0))),
        ("HALF", ((2, 2), (1, 1))),
        ("FULL", ((4, 4), (2, 2))),
        ("CAUSAL", ((4, 0), (2, 0))),
        ("SAME", ((2, 2), (1, 1))),
        (3, ((3, 3), (3, 3))),
        (-1, ((-1, -1), (-1, -1))),
        ((1, 0), ((1, 1), (0, 0))),
        (((1, 2), (-1, 0)), ((1, 2), (-1, 0))),
        (["CAUSAL", "SAME"], ((4, 0), (1, 1))),
        (["FULL", (0, 3)], ((4, 4), (0, 3))),
    ],
)
def test_padding_as_numbers(padding, expected):
    sliding = slide("conv", (12, 9), (3, 3), strides=(1, 1), padding=padding, dilation=(2, 1))
    assert sliding.padding == expected


def test_half_keeps_the_size_of_odd_windows():
    for window in (1, 3, 5, 7):
        assert slide("conv", (20,), (window,), strides=(1,), padding="HALF").output == (20,)


def test_rounding_by_hand():
    # Size 10, window 3, stride 3: windows at 0, 3, 6; one input is left over, the partial window at 9 sticks out by 2.
    floor = slide("max_pool", (10,), (3,), strides=(3,), padding="VALID")
    ceil = slide("max_pool", (10,), (3,), strides=(3,), padding="VALID", rounding="ceil")
    assert floor == Sliding((3,), ((0, 0),), (0,))
    assert ceil == Sliding((4,), ((0, 0),), (2,))
    assert ceil.reach == ((0, 2),)
    # Size 5, window 1, stride 2, one pad on either side: windows at -1, 1, 3, 5; nothing is left over.
    assert slide("conv", (5,), (1,), strides=(2,), padding=1, rounding="strict").output == (4,)
    # A partial window that would start beyond the input is dropped: size 4, window 2, stride 3 with high padding 1
    # starts at 0 and 3; with padding (0, 2) one more would start at 6.
    assert slide("conv", (4,), (2,), strides=(3,), padding=[(0, 2)], rounding="ceil").output == (2,)


@pytest.mark.parametrize("rounding", ["floor", "ceil"])
def test_rounding_counts_as_the_reference(rounding):
    for size, window, stride, low, high in itertools.product(range(1, 8), range(1, 4), range(1, 4), range(3), range(3)):
        if size + low + high >= window:
            expected = len(reference.Axis(size, window, stride, low, high).positions(rounding))
            options = {"strides": (stride,), "padding": [(low, high)], "rounding": rounding}
            assert slide("conv", (size,), (window,), **options).output == (expected,)


def test_same_pads_the_dilated_input():
    sliding = slide("conv", (4,), (3,), strides=(1,), padding="SAME", input_dilation=(2,))
    assert (sliding.output, sliding.padding) == ((7,), ((1, 1),))


def test_gradient_of_pad_counts_the_copies():
    count = jax.grad(lambda x: ops.pad(x, [(4, 3)], boundary="periodic").sum())(jnp.ones((3, 1)))
    np.testing.assert_array_equal(count[:, 0], [3, 3, 4])  # positions -4 ... 5 of period 3
