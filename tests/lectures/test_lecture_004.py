"""Lecture 004 (lecture 2.A, convolutional networks), slide by slide."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import filters, ops
from cnn_jax.errors import UsageError
from tests.lectures.exact import assert_agree, convolutions, field, parameters, plane, pullback, shape, window


def test_004_patch_flattened_to_25_dot_product_28_by_28():
    assert shape(ops.im2col, (32, 32, 1), window=(5, 5)) == (28, 28, 25)
    assert shape(ops.conv, (32, 32, 1), (5, 5, 1, 1)) == (28, 28, 1)


def test_004_input_with_three_channels_flattened_to_75():
    assert shape(ops.im2col, (32, 32, 3), window=(5, 5)) == (28, 28, 75)
    assert shape(ops.conv, (32, 32, 3), (5, 5, 3, 1)) == (28, 28, 1)


def test_004_flatten_dot_product_output_are_a_convolution():
    generator = np.random.default_rng(4)
    x = jnp.array(generator.integers(-3, 4, (32, 32, 3)), float)
    kernel = jnp.array(generator.integers(-3, 4, (5, 5, 3, 10)), float)
    y = ops.conv(x, kernel)
    patch = np.asarray(x)[7:12, 20:25].ravel()
    assert patch.shape == (75,)
    assert_agree(y[7, 20], patch @ np.asarray(kernel).reshape(75, 10))
    assert_agree(ops.im2col(x, (5, 5))[7, 20], patch)


def test_004_filter_stacks_28_by_28_by_10_then_24_by_24_by_10():
    x = shape(ops.conv, (32, 32, 3), (5, 5, 3, 10))
    assert x == (28, 28, 10)
    assert shape(ops.conv, x, (5, 5, 10, 10)) == (24, 24, 10)


def test_004_what_can_a_filter_do_blur_kernel():
    # The weights of the interactive page: 1/16 for the corners, 2/16 for the sides, 4/16 for the centre.
    assert_agree(filters.binomial(3), np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16)
    assert_agree(ops.conv(plane(np.full((4, 4), 8.0)), window(filters.binomial(3)))[..., 0], np.full((2, 2), 8))


@pytest.mark.parametrize(("stride", "size"), [(1, 5), (2, 3), (3, 2)])
def test_004_strides_of_a_three_by_three_filter(stride, size):
    # On 7 x 7: (7 - 3) / S + 1; at stride 3 the last row and column are left out.
    assert shape(ops.conv, (7, 7, 1), (3, 3, 1, 1), strides=(stride, stride)) == (size, size, 1)


def test_004_padding_same_at_stride_two_keeps_every_other_position():
    for size, expected in ((5, 3), (6, 3), (7, 4)):
        assert shape(ops.conv, (size, size, 1), (3, 3, 1, 1), padding="SAME", strides=(2, 2)) == (expected,) * 2 + (1,)


def test_004_padding_valid_is_no_padding():
    assert shape(ops.conv, (7, 7, 1), (3, 3, 1, 1), padding="VALID") == (5, 5, 1)
    assert shape(ops.conv, (7, 7, 1), (3, 3, 1, 1)) == (5, 5, 1)


@pytest.mark.parametrize(
    ("width", "height", "size", "stride", "padding", "features"),
    [(32, 32, 5, 1, 0, 10), (32, 24, 3, 1, 1, 64), (227, 227, 11, 4, 0, 96), (28, 14, 2, 2, 0, 32), (9, 7, 3, 2, 1, 1)],
)
def test_004_conv2d_math(width, height, size, stride, padding, features):
    # W' = (W - F + 2 P) / S + 1, and K * (F * F * D) parameters; the slides' formula takes S to divide.
    depth = 3
    kernel = jnp.zeros((size, size, depth, features))
    y = shape(ops.conv, (width, height, depth), kernel.shape, strides=stride, padding=padding, rounding="strict")
    assert y == (
        (width - size + 2 * padding) // stride + 1,
        (height - size + 2 * padding) // stride + 1,
        features,
    )
    assert kernel.size == features * (size * size * depth)


def covered(size):
    """How many windows read each position of the padded axis of figures 2.6 and 2.7."""
    padded, kernel = ops.pad(jnp.ones((size, 1)), [1]), jnp.ones((3, 1, 1))
    counts, _ = pullback(lambda x, kernel: ops.conv(x, kernel, strides=2), jnp.ones((3, 1)), padded, kernel)
    return counts[:, 0]


def test_004_convolution_arithmetic_figure_2_6():
    # i = 5, k = 3, s = 2, p = 1: windows at 0, 2, 4 of the seven padded positions.
    assert shape(ops.conv, (5, 5, 1), (3, 3, 1, 1), strides=2, padding=1, rounding="strict") == (3, 3, 1)
    assert_agree(covered(5), [1, 1, 2, 1, 2, 1, 1])


def test_004_convolution_arithmetic_figure_2_7_leaves_the_last_row_and_column_uncovered():
    # i = 6: (6 + 2 - 3) / 2 is not whole; rounded down, position 7 of the eight is not read.
    assert shape(ops.conv, (6, 6, 1), (3, 3, 1, 1), strides=2, padding=1) == (3, 3, 1)
    assert_agree(covered(6), [1, 1, 2, 1, 2, 1, 1, 0])
    with pytest.raises(UsageError, match="stride 2 does not divide"):
        shape(ops.conv, (6, 6, 1), (3, 3, 1, 1), strides=2, padding=1, rounding="strict")


def test_004_convolution_implementation_w_row_32_by_27_times_x_col_27_by_9():
    generator = np.random.default_rng(5)
    x = jnp.array(generator.integers(-3, 4, (5, 5, 3)), float)
    kernel = jnp.array(generator.integers(-3, 4, (3, 3, 3, 32)), float)
    # One row per filter and one column per window, as drawn; ours are the transposes.
    w_row = kernel.reshape(27, 32).T
    x_col = ops.im2col(x, (3, 3)).reshape(9, 27).T
    assert w_row.shape == (32, 27)
    assert x_col.shape == (27, 9)
    product = w_row @ x_col
    assert product.shape == (32, 9)
    assert_agree(ops.conv(x, kernel), product.T.reshape(3, 3, 32))
    # The middle window by hand, straight from the arrays.
    middle = np.einsum("ijc,ijco->o", np.asarray(x)[1:4, 1:4], np.asarray(kernel))
    assert_agree(product[:, 4], middle)


def stack(*rates):
    def layers(x):
        for rate in rates:
            x = ops.conv(x, jnp.ones((3, 3, 1, 1)), padding="SAME", kernel_dilation=rate)
        return x

    return layers


def test_004_receptive_field_of_one_and_two_three_by_three_layers():
    assert field(stack(1)) == (3, 3, 9)
    assert field(stack(1, 1)) == (5, 5, 25)


def test_004_two_three_by_three_layers_have_fewer_parameters_than_one_five_by_five():
    for sizes, weights in (([3, 3], 18), ([5], 25)):
        layers = convolutions(*sizes)
        assert field(layers) == (5, 5, 25)
        assert parameters(layers) == weights


def test_004_dilated_convolution_called_1_dilated_is_dilation_rate_2():
    # Skipping one pixel between neighbours: nine of the 25 inputs.
    assert field(stack(2)) == (5, 5, 9)
    x = plane(np.arange(25).reshape(5, 5))
    # 0 + 2 + 4 + 10 + 12 + 14 + 20 + 22 + 24.
    assert_agree(ops.conv(x, jnp.ones((3, 3, 1, 1)), kernel_dilation=2), [[[108]]])


def test_004_stacked_dilated_convolutions_quickly_see_far():
    # 1 + 2 * (1 + 2 + 4), without gaps; three ordinary layers see 7.
    assert field(stack(1, 2, 4)) == (15, 15, 225)
    assert field(stack(1, 1, 1)) == (7, 7, 49)


def test_004_pooling_by_maximum_and_average():
    # The maxima are printed; the four by four input is lecture 002's.
    x = plane([[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
    assert_agree(ops.max_pool(x, (2, 2), strides=2)[..., 0], [[6, 8], [3, 4]])
    assert_agree(ops.avg_pool(x, (2, 2), strides=2)[..., 0], [[13 / 4, 21 / 4], [2, 2]])


def test_004_one_by_one_convolution_reduces_the_depth():
    assert shape(ops.conv, (28, 28, 192), (1, 1, 192, 16)) == (28, 28, 16)


def test_004_one_by_one_convolutions_are_an_mlp_at_every_pixel():
    generator = np.random.default_rng(6)
    x = generator.integers(-3, 4, (4, 5, 6)).astype(float)
    first, second = (generator.integers(-3, 4, sizes).astype(float) for sizes in ((6, 8), (8, 3)))
    hidden = ops.relu(ops.conv(jnp.array(x), jnp.array(first)[None, None]))
    assert_agree(ops.conv(hidden, jnp.array(second)[None, None]), np.maximum(x @ first, 0) @ second)
