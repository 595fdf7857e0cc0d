"""Lecture 002 (10-315 Introduction to Machine Learning: neural networks for images), slide by slide."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import filters, ops
from tests.lectures.exact import assert_agree, plane, pullback, shape, window

BAR = [[0, 0, 0, 1, 1, 1, 1, 0, 0, 0]] * 10
SQUARE = [[0] * 10, *[[0, 0, 0, 1, 1, 1, 1, 0, 0, 0]] * 8, [0] * 10]
PREWITT = [[-1, 0, 1]] * 3
K1 = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
K2 = [[-1, -2, -1], [0, 0, 0], [1, 2, 1]]
K3 = [[0, 0, -1, 0], [0, -2, 0, 1], [-1, 0, 2, 0], [0, 1, 0, 0]]
POOL = [[1, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]]


def test_002_canny_edge_detection_gaussian_of_sum_159():
    # 2 * (2+4+5+4+2) + 2 * (4+9+12+9+4) + (5+12+15+12+5) = 34 + 76 + 49.
    kernel = 159 * filters.canny_gaussian()
    assert_agree(kernel[0], [2, 4, 5, 4, 2])
    assert_agree(kernel[1], [4, 9, 12, 9, 4])
    assert_agree(kernel[2], [5, 12, 15, 12, 5])
    assert_agree(kernel, kernel[::-1, ::-1])
    assert_agree(kernel.sum(), 159)


def test_002_canny_gaussian_keeps_a_constant_image():
    assert_agree(filters.apply(jnp.full((6, 7, 3), 5.0), filters.canny_gaussian()), np.full((6, 7, 3), 5))


def test_002_lenet_5_shapes():
    x = shape(ops.conv, (32, 32, 1), (5, 5, 1, 6))
    assert x == (28, 28, 6)
    x = shape(ops.avg_pool, x, window=(2, 2), strides=2)
    assert x == (14, 14, 6)
    x = shape(ops.conv, x, (5, 5, 6, 16))
    assert x == (10, 10, 16)
    x = shape(ops.avg_pool, x, window=(2, 2), strides=2)
    assert x == (5, 5, 16)
    assert np.prod(x) == 400  # what the layer of 120 units reads


def test_002_alexnet_as_listed_ends_in_256_features():
    # No padding anywhere: 54, 26, 22, 10, 8, 6, 4, 1. The lecture's torch layers round down.
    x, sizes = (224, 224, 3), []
    for size, stride, features, pooled in (
        (11, 4, 96, True),
        (5, 1, 256, True),
        (3, 1, 384, False),
        (3, 1, 384, False),
        (3, 1, 256, True),
    ):
        x = shape(ops.conv, x, (size, size, x[-1], features), strides=stride)
        sizes.append(x[0])
        if pooled:
            x = shape(ops.max_pool, x, window=(3, 3), strides=2)
            sizes.append(x[0])
    assert sizes == [54, 26, 22, 10, 8, 6, 4, 1]
    assert x == (1, 1, 256)


def test_002_square_image_under_the_prewitt_kernel():
    assert_agree(filters.prewitt(axis=1), PREWITT)
    assert_agree(ops.conv(plane(BAR), window(PREWITT))[..., 0], [[0, 3, 3, 0, 0, -3, -3, 0]] * 8)


def test_002_signal_processing_definition_reflects_the_kernel():
    # z[i, j] = sum of x[i - u, j - v] w[u, v]: for an image with a single one the result is the kernel.
    impulse = plane(np.eye(1, 9, 4).reshape(3, 3))
    kernel = [[1, 2], [3, 4]]
    assert_agree(ops.conv(impulse, window(kernel), padding="FULL", flip_kernel=True)[1:3, 1:3, 0], kernel)


def test_002_relaxed_definition_does_not_flip():
    # z[i, j] = sum of x[i + u, j + v] w[u, v]: now the result is the rotated kernel.
    impulse = plane(np.eye(1, 9, 4).reshape(3, 3))
    assert_agree(ops.conv(impulse, window([[1, 2], [3, 4]]))[..., 0], [[4, 3], [2, 1]])


def lecture_loop(image, kernel, rows, columns):
    """The slide's five nested lines, with the two ranges as arguments."""
    out = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            for u in range(len(kernel)):
                for v in range(len(kernel)):
                    out[i, j] += image[i + u, j + v] * kernel[u, v]
    return out


def test_002_relaxed_definition_loop():
    image, kernel = np.arange(72.0).reshape(8, 9) ** 2 % 11, np.array(K1, float)
    assert_agree(ops.conv(plane(image), window(kernel))[..., 0], lecture_loop(image, kernel, 8 - 3 + 1, 9 - 3 + 1))


def test_002_relaxed_definition_loop_as_printed_forgets_the_last_row():
    # The slide's i is bounded by the width, so it is x, and im[i, j] is a column and a row. The second range, over
    # rows, is printed without its + 1: 7 rows of 8, as in the printed table.
    printed = lecture_loop(np.array(BAR).T, np.array(PREWITT).T, 10 - 3 + 1, 10 - 3).T
    assert_agree(printed, [[0, 3, 3, 0, 0, -3, -3, 0]] * 7)
    assert_agree(ops.conv(plane(BAR), window(PREWITT))[:-1, :, 0], printed)


def test_002_relaxed_definition_loop_with_rows_first_leaves_an_image_that_is_not_square():
    # With the rows of an array first, a width of 9 as the bound of the first index leaves an image of 6 rows.
    with pytest.raises(IndexError):
        lecture_loop(np.ones((6, 9)), np.array(PREWITT), 9 - 3 + 1, 6 - 3 + 1)


def test_002_padding_the_square_image_with_zeros():
    # Eight rows of the bar, framed by zeros: the first and last windows see only two rows of ones.
    inner = [0, 3, 3, 0, 0, -3, -3, 0]
    expected = [[0, 2, 2, 0, 0, -2, -2, 0], *[inner] * 6, [0, 2, 2, 0, 0, -2, -2, 0]]
    assert_agree(ops.conv(plane(SQUARE), window(PREWITT))[..., 0], expected)
    cropped = np.array(SQUARE)[1:-1, 1:-1]
    assert_agree(ops.conv(plane(cropped), window(PREWITT), padding=1)[..., 0], expected)
    assert_agree(ops.conv(plane(cropped), window(PREWITT), padding="SAME")[..., 0], expected)


def test_002_exercise_which_kernel_goes_with_which_image():
    assert_agree(filters.sobel(axis=1), K1)
    assert_agree(filters.sobel(axis=0), K2)
    rows, columns = np.indices((4, 4))
    # Weights times distance: K1 gives 2 * (1 + 2 + 1) per unit of slope to the right, K2 per unit downwards; K3 gives
    # 1 * (1 - 2) + 2 * (2 - 1) + 3 * 1 = 4 along either axis, so 8 along one diagonal and nothing along the other.
    for kernel, right, down in ((K1, 8, 0), (K2, 0, 8), (K3, 4, 4)):
        assert_agree(ops.conv(plane(columns), window(kernel))[0, 0, 0], right)
        assert_agree(ops.conv(plane(rows), window(kernel))[0, 0, 0], down)
        assert_agree(ops.conv(plane(rows - columns), window(kernel))[0, 0, 0], down - right)
        assert_agree(ops.conv(plane(np.ones((4, 4))), window(kernel))[0, 0, 0], 0)


def test_002_stride_two_with_quarters_is_average_pooling():
    expected = [[0, 0.5, 1, 0.5, 0]] * 5
    assert_agree(ops.conv(plane(BAR), window([[0.25, 0.25], [0.25, 0.25]]), strides=2)[..., 0], expected)
    assert_agree(ops.avg_pool(plane(BAR), (2, 2))[..., 0], expected)


def test_002_stride_max_pooling_example():
    assert_agree(ops.max_pool(plane(POOL), (2, 2), strides=2)[..., 0], [[6, 8], [3, 4]])


def test_002_one_image_in_c3_is_a_three_dimensional_convolution():
    # All six maps under a kernel of depth six: the depth is used up in a single position.
    y = shape(ops.conv, (6, 14, 14, 1), (6, 5, 5, 1, 16))
    assert y == (1, 10, 10, 16)


# LeCun et al. (1998), table I: which maps of S2 each map of C3 reads.
C3_READS = [
    *[{k, (k + 1) % 6, (k + 2) % 6} for k in range(6)],
    *[{k, (k + 1) % 6, (k + 2) % 6, (k + 3) % 6} for k in range(6)],
    {0, 1, 3, 4},
    {1, 2, 4, 5},
    {0, 2, 3, 5},
    {0, 1, 2, 3, 4, 5},
]


def test_002_lenet_5_of_1998_has_60_of_the_96_kernels():
    mask = jnp.array([[channel in reads for reads in C3_READS] for channel in range(6)])
    assert mask.sum() == 60
    x, kernel = jnp.ones((14, 14, 6)), jnp.ones((5, 5, 6, 16))
    (gradient,) = pullback(lambda kernel: ops.conv(x, kernel, mask=mask), jnp.ones((10, 10, 16)), kernel)
    # Each weight that exists meets a one at each of the 100 positions.
    assert set(np.unique(gradient)) == {0, 100}
    assert (gradient != 0).sum() == 1_500


@pytest.mark.parametrize(("size", "channels", "features"), [(5, 1, 6), (5, 6, 16), (3, 256, 384)])
def test_002_parameters_of_one_layer(size, channels, features):
    kernel, bias = jnp.zeros((size, size, channels, features)), jnp.zeros(features)
    assert kernel.size + bias.size == features * (channels * size * size) + features
    assert shape(ops.conv, (20, 20, channels), kernel.shape)[-1] == features


def test_002_hyperparameters_stride_two_halves_and_padding_keeps():
    assert shape(ops.conv, (28, 28, 1), (3, 3, 1, 1), padding="SAME") == (28, 28, 1)
    assert shape(ops.conv, (28, 28, 1), (3, 3, 1, 1), padding="SAME", strides=2) == (14, 14, 1)


def test_002_forward_and_backward_are_those_of_a_linear_layer():
    # z = W x, so dx = W^T dz, with the W of the square image's kernel on a 4 x 5 image.
    matrix = np.asarray(ops.toeplitz_matrix(window(PREWITT), (4, 5)))
    assert matrix.shape == (6, 20)
    x, dz = np.arange(20.0) ** 2 % 7, np.array([1.0, -2, 3, -4, 5, -6])
    assert_agree(ops.conv(plane(x.reshape(4, 5)), window(PREWITT)).ravel(), matrix @ x)
    dx, _ = pullback(ops.conv, plane(dz.reshape(2, 3)), plane(x.reshape(4, 5)), window(PREWITT))
    assert_agree(dx.ravel(), matrix.T @ dz)
