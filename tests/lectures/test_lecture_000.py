"""Lecture 000 (CIS 522, lecture 4T: convolutional neural nets), slide by slide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import filters, models, nn, ops
from cnn_jax.errors import UsageError
from cnn_jax.models.neocognitron import CCells
from cnn_jax.train import create_optimizer
from tests.lectures.exact import assert_agree, parameters, plane, pullback, shape, window

X = np.array(
    [
        [-1, -1, -1, -1, -1, -1, -1, -1, -1],
        [-1, 1, -1, -1, -1, -1, -1, 1, -1],
        [-1, -1, 1, -1, -1, -1, 1, -1, -1],
        [-1, -1, -1, 1, -1, 1, -1, -1, -1],
        [-1, -1, -1, -1, 1, -1, -1, -1, -1],
        [-1, -1, -1, 1, -1, 1, -1, -1, -1],
        [-1, -1, 1, -1, -1, -1, 1, -1, -1],
        [-1, 1, -1, -1, -1, -1, -1, 1, -1],
        [-1, -1, -1, -1, -1, -1, -1, -1, -1],
    ]
)
FALLING = [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]
CROSS = [[1, -1, 1], [-1, 1, -1], [1, -1, 1]]
RISING = [[-1, -1, 1], [-1, 1, -1], [1, -1, -1]]

# The slides print two decimals, cut off: .77 is 7/9, .55 is 5/9, .33 is 3/9, .11 is 1/9. Here: ninths.
NINTHS = {
    "falling": [
        [7, -1, 1, 3, 5, -1, 3],
        [-1, 9, -1, 3, -1, 1, -1],
        [1, -1, 9, -3, 1, -1, 5],
        [3, 3, -3, 5, -3, 3, 3],
        [5, -1, 1, -3, 9, -1, 1],
        [-1, 1, -1, 3, -1, 9, -1],
        [3, -1, 5, 3, 1, -1, 7],
    ],
    "cross": [
        [3, -5, 1, -1, 1, -5, 3],
        [-5, 5, -5, 3, -5, 5, -5],
        [1, -5, 5, -7, 5, -5, 1],
        [-1, 3, -7, 9, -7, 3, -1],
        [1, -5, 5, -7, 5, -5, 1],
        [-5, 5, -5, 3, -5, 5, -5],
        [3, -5, 1, -1, 1, -5, 3],
    ],
    "rising": [
        [3, -1, 5, 3, 1, -1, 7],
        [-1, 1, -1, 3, -1, 9, -1],
        [5, -1, 1, -3, 9, -1, 1],
        [3, 3, -3, 5, -3, 3, 3],
        [1, -1, 9, -3, 1, -1, 5],
        [-1, 9, -1, 3, -1, 1, -1],
        [7, -1, 1, 3, 5, -1, 3],
    ],
}
POOLED = {
    "falling": [[9, 3, 5, 3], [3, 9, 3, 5], [5, 3, 9, 1], [3, 5, 1, 7]],
    "cross": [[5, 3, 5, 3], [3, 9, 5, 1], [5, 5, 5, 1], [3, 1, 1, 3]],
    "rising": [[3, 5, 9, 7], [5, 5, 9, 3], [9, 9, 1, 5], [7, 3, 5, 3]],
}
FILTERS = {"falling": FALLING, "cross": CROSS, "rising": RISING}

ONE_TO_NINE = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]

EXERCISE = [[0, 1, 0, 1], [0, 1, 0, 1], [1, 1, 1, 1], [0, -2, 0, -2]]
VERTICAL = [[-0.5, 1, -0.5]] * 3
HORIZONTAL = [[-0.5] * 3, [1] * 3, [-0.5] * 3]


# Rohrer's second X, whose strokes turn at their ends; the slide shows where it and the first one differ.
TURNED = np.array(
    [
        [-1, -1, -1, -1, -1, -1, -1, -1, -1],
        [-1, -1, -1, -1, -1, -1, 1, -1, -1],
        [-1, 1, -1, -1, -1, 1, -1, -1, -1],
        [-1, -1, 1, 1, -1, 1, -1, -1, -1],
        [-1, -1, -1, -1, 1, -1, -1, -1, -1],
        [-1, -1, -1, 1, -1, 1, 1, -1, -1],
        [-1, -1, -1, 1, -1, -1, -1, 1, -1],
        [-1, -1, 1, -1, -1, -1, -1, -1, -1],
        [-1, -1, -1, -1, -1, -1, -1, -1, -1],
    ]
)


def test_000_naive_comparison_of_two_xs_differs_where_a_local_feature_agrees():
    rows = [[], [1, 6, 7], [1, 2, 5, 6], [2], [], [6], [2, 3, 6, 7], [1, 2, 7], []]
    assert [list(np.flatnonzero(row)) for row in X != TURNED] == rows
    for image in (X, TURNED):
        response = ops.conv(plane(image), window(CROSS) / 9)
        assert_agree(response.max(), 1)
        assert response[3, 3, 0] == response.max()


def test_000_local_filtering_products_of_a_perfect_match_average_to_one():
    # The window whose corner is (1, 1) lies on the falling stroke: all nine products are 1.
    products = ops.im2col(plane(X), (3, 3))[1, 1] * jnp.ravel(jnp.array(FALLING))
    assert_agree(products, np.ones(9))
    assert products.mean() == 1


def test_000_distinct_filtering_results_the_centre_gives_five_ninths():
    products = ops.im2col(plane(X), (3, 3))[3, 3] * jnp.ravel(jnp.array(FALLING))
    assert_agree(products.reshape(3, 3), [[1, 1, -1], [1, 1, 1], [-1, 1, 1]])
    assert_agree(products.mean(), 5 / 9)  # printed .55


@pytest.mark.parametrize("name", FILTERS)
def test_000_multiple_filters_of_the_x_are_means_of_nine_products(name):
    response = ops.conv(plane(X), window(FILTERS[name]) / 9)
    assert_agree(response[..., 0], np.array(NINTHS[name]) / 9)


def test_000_convolution_printed_decimals_are_cut_off_not_rounded():
    first_row = ops.conv(plane(X), window(FALLING) / 9)[0, :, 0]
    assert_agree(np.trunc(first_row * 100) / 100, [0.77, -0.11, 0.11, 0.33, 0.55, -0.11, 0.33])


def test_000_how_many_parameters_have_three_filters_and_max_pooling():
    # The two questions of the slides: 3 * 3 * 3 weights and 3 biases make 147 numbers of 81 pixels; a maximum has none.
    layer, pool = nn.Conv(1, 3, (3, 3), padding="VALID", rngs=nnx.Rngs(0)), nn.MaxPool((2, 2), rounding="ceil")
    assert (layer.kernel.size, layer.bias.size) == (27, 3)
    maps = shape(layer, (9, 9, 1))
    assert (np.prod(maps), np.prod(shape(pool, maps))) == (147, 48)
    assert not jax.tree.leaves(nnx.state(pool))


@pytest.mark.parametrize("name", FILTERS)
def test_000_bunch_of_filters_max_pooled_seven_to_four_with_partial_windows(name):
    pooled = ops.max_pool(plane(NINTHS[name]), (2, 2), rounding="ceil")
    assert_agree(pooled[..., 0], POOLED[name])


def test_000_padding_problem_floor_drops_the_last_row_and_column_strict_refuses():
    assert ops.max_pool(plane(NINTHS["falling"]), (2, 2)).shape == (3, 3, 1)
    with pytest.raises(UsageError, match="stride 2 does not divide"):
        ops.max_pool(plane(NINTHS["falling"]), (2, 2), rounding="strict")


@pytest.mark.parametrize("name", FILTERS)
def test_000_potential_to_add_a_relu_negatives_become_zero(name):
    ninths = np.array(NINTHS[name])
    assert_agree(ops.relu(plane(ninths))[..., 0], np.where(ninths < 0, 0, ninths))


def test_000_chain_it_pooling_once_more_leaves_two_by_two():
    # Printed: 1 .55 / .55 1, then 1 .55 / .55 .55, then .55 1 / 1 .55.
    stack = jnp.stack([jnp.array(POOLED[name], float) for name in FILTERS], axis=-1)
    pooled = ops.max_pool(stack, (2, 2))
    assert_agree(pooled[..., 0], [[9, 5], [5, 9]])
    assert_agree(pooled[..., 1], [[9, 5], [5, 5]])
    assert_agree(pooled[..., 2], [[5, 9], [9, 5]])


def test_000_transition_to_fully_connected_twelve_numbers_vote_for_two_classes():
    # The three maps of the last slide, position by position.
    stack = jnp.array([[[9, 9, 5], [5, 5, 9]], [[5, 5, 9], [9, 5, 5]]], float)
    votes = nn.flatten(stack[None])
    assert_agree(votes, [[9, 9, 5, 5, 5, 9, 5, 5, 9, 9, 5, 5]])
    read_out = nn.Linear(12, 2, rngs=nnx.Rngs(0))
    assert read_out.kernel.shape == (12, 2)
    assert read_out(votes).shape == (1, 2)


def test_000_what_is_a_convolution_in_mathematics_the_kernel_is_reflected():
    # (f * g)[n] = sum over m of f[m] g[n - m]: 0, 1, 1/2 + 2, 2/2 + 3, 3/2.
    y = ops.conv(plane([1, 2, 3]), window([0, 1, 0.5]), padding="FULL", flip_kernel=True)
    assert_agree(y[:, 0], [0, 1, 2.5, 4, 1.5])


def test_000_cross_correlation_the_kernel_is_not_reflected():
    # sum over m of f[m] g[m + n] with f = 1 2 3, g = 0 1 1/2, for n = -2 .. 2: 0, 3, 2 + 3/2, 1 + 2/2, 1/2.
    y = ops.conv(plane([0, 1, 0.5]), window([1, 2, 3]), padding="FULL")
    assert_agree(y[:, 0], [0, 3, 3.5, 2, 0.5])


def test_000_cross_correlation_conjugates_f_and_convolution_layers_do_not():
    # sum over m of conj(f[m]) g[m + n] with f = 1 + i, 2i and g = 1, i, for n = -1 .. 1.
    f, g = jnp.array([1 + 1j, 2j]), jnp.array([1, 1j])
    expected = np.array([-2j, (1 - 1j) + 2, (1 - 1j) * 1j])
    found = ops.conv(g[:, None], jnp.conj(f)[:, None, None], padding="FULL")[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(found, np.correlate(g, f, "full"), atol=1e-12)
    plain = ops.conv(g[:, None], f[:, None, None], padding="FULL")[:, 0]
    np.testing.assert_allclose(plain, [2j, (1 + 1j) - 2, (1 + 1j) * 1j], atol=1e-12)


def test_000_convolution_padding_and_stride_set_the_output_size():
    # 5x5 under 3x3: 3x3; padded by one it keeps its size; with stride two every other position is left.
    assert shape(ops.conv, (5, 5, 1), (3, 3, 1, 1)) == (3, 3, 1)
    assert shape(ops.conv, (5, 5, 1), (3, 3, 1, 1), padding=1) == (5, 5, 1)
    assert shape(ops.conv, (5, 5, 1), (3, 3, 1, 1), strides=2) == (2, 2, 1)


def test_000_conv_for_edge_detection_line_kernels():
    assert_agree(filters.line(0), [[-1, -1, -1], [2, 2, 2], [-1, -1, -1]])
    assert_agree(filters.line(90), [[-1, 2, -1], [-1, 2, -1], [-1, 2, -1]])
    assert_agree(filters.line(45), [[-1, -1, 2], [-1, 2, -1], [2, -1, -1]])
    assert_agree(filters.line(135), [[2, -1, -1], [-1, 2, -1], [-1, -1, 2]])


def test_000_horizontal_lines_answer_only_to_the_horizontal_kernel():
    line = plane([[0] * 5, [0] * 5, [1] * 5, [0] * 5, [0] * 5])
    # Three times the weight of the kernel's row that lies on the line; -1 + 2 - 1 = 0 for the other kernels' rows.
    assert_agree(ops.conv(line, window(filters.line(0)))[..., 0], [[-3] * 3, [6] * 3, [-3] * 3])
    for angle in (45, 90, 135):
        assert_agree(ops.conv(line, window(filters.line(angle)))[..., 0], np.zeros((3, 3)))


@pytest.mark.parametrize("method", ["auto", "direct", "im2col", "toeplitz", "fft", "winograd"])
def test_000_conv_exercise_two_by_two(method):
    kernels = jnp.concatenate([window(VERTICAL), window(HORIZONTAL)], axis=-1)
    y = ops.conv(plane(EXERCISE), kernels, method=method)
    assert_agree(y[..., 0], [[2, -2], [-1, 1]])
    assert_agree(y[..., 1], [[-1, -1 / 2], [7 / 2, 4]])


def test_000_conv_exercise_rows_of_the_first_entry_add_to_two():
    # Printed are three times 0 * -1/2 + 1 * 1 + 0 * -1/2, which would be 3; the third row of the window is 1 1 1.
    products = (ops.im2col(plane(EXERCISE), (3, 3))[0, 0] * jnp.ravel(jnp.array(VERTICAL))).reshape(3, 3)
    assert_agree(products, [[0, 1, 0], [0, 1, 0], [-1 / 2, 1, -1 / 2]])
    assert_agree(products.sum(axis=1), [1, 1, 0])


def test_000_conv_exercise_is_the_same_with_reflected_kernels():
    # Both kernels are symmetric, so the exercise does not tell convolution from cross-correlation.
    kernels = jnp.concatenate([window(VERTICAL), window(HORIZONTAL)], axis=-1)
    y = ops.conv(plane(EXERCISE), kernels, flip_kernel=True)
    assert_agree(y[..., 0], [[2, -2], [-1, 1]])
    assert_agree(y[..., 1], [[-1, -1 / 2], [7 / 2, 4]])


def test_000_two_and_three_dimensional_convolution_shapes():
    assert shape(ops.conv, (10, 12, 3), (3, 3, 3, 1)) == (8, 10, 1)  # the kernel has the depth of its input
    assert shape(ops.conv, (10, 12, 14, 1), (3, 3, 3, 1, 1)) == (8, 10, 12, 1)


def test_000_calculate_output_dimension_of_300_by_400():
    # 300 - 4 + 2 * 2 + 1 and 400 - 5 + 2 * 2 + 1.
    assert shape(ops.conv, (300, 400, 1), (4, 5, 1, 1), padding=2) == (301, 400, 1)


def test_000_backprop_through_conv_forward_pass():
    # h11 = 2*1 + 3*2 + 5*4 + 7*5, and so on.
    h = ops.conv(plane(ONE_TO_NINE), window([[2, 3], [5, 7]]))
    assert_agree(h[..., 0], [[63, 80], [114, 131]])


def test_000_backprop_through_conv_input_gradient():
    # dX with dh = 1 10 / 100 1000, so that each digit of the answer shows one term of the slide's nine sums:
    # dX22 = W22 dh11 + W21 dh12 + W12 dh21 + W11 dh22 = 7 + 50 + 300 + 2000.
    dx, _ = pullback(ops.conv, plane([[1, 10], [100, 1000]]), plane(np.ones((3, 3))), window([[2, 3], [5, 7]]))
    assert_agree(dx[..., 0], [[2, 23, 30], [205, 2357, 3070], [500, 5700, 7000]])


def test_000_backprop_through_conv_weight_gradient():
    # dW11 = X11 dh11 + X12 dh12 + X21 dh21 + X22 dh22 = 1 + 20 + 400 + 5000.
    _, dw = pullback(ops.conv, plane([[1, 10], [100, 1000]]), plane(ONE_TO_NINE), window(np.ones((2, 2))))
    assert_agree(dw[..., 0, 0], [[5421, 6532], [8754, 9865]])


STRETCHED = [
    [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0, 0],
    [0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0],
    [0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0],
    [0, 0, 0, 0, 0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9],
]


def test_000_express_convolution_as_matrix_the_kernel_is_stretched_to_four_by_sixteen():
    assert_agree(ops.toeplitz_matrix(window(ONE_TO_NINE), (4, 4)), STRETCHED)


def test_000_express_convolution_as_matrix_times_the_flattened_input():
    x = np.array([[3, 1, 4, 1], [5, 9, 2, 6], [5, 3, 5, 8], [9, 7, 9, 3]])
    y = ops.conv(plane(x), window(ONE_TO_NINE))
    # First entry: 3 + 2 + 12 + 20 + 45 + 12 + 35 + 24 + 45 = 198.
    assert y[0, 0, 0] == 198
    assert_agree(y.ravel(), np.array(STRETCHED) @ x.ravel())


def test_000_transposed_convolution_upscales_two_to_four():
    # Row 2, column 2: 1 * 5 + 10 * 4 + 100 * 2 + 1000 * 1.
    y = ops.conv_transpose(plane([[1, 10], [100, 1000]]), window(ONE_TO_NINE))
    expected = [[1, 12, 23, 30], [104, 1245, 2356, 3060], [407, 4578, 5689, 6090], [700, 7800, 8900, 9000]]
    assert_agree(y[..., 0], expected)
    assert_agree(y.ravel(), np.array(STRETCHED).T @ [1, 10, 100, 1000])


def test_000_question_a_one_by_one_kernel_mixes_the_channels_of_each_pixel():
    x, mix = jnp.arange(12.0).reshape(2, 2, 3), jnp.array([[1.0, 0], [10, 1], [100, 2]])
    # Pixel (0, 0) is 0 1 2: 0 + 10 + 200 and 0 + 1 + 4.
    y = ops.conv(x, mix[None, None])
    assert_agree(y[0, 0], [210, 5])
    assert_agree(y, x @ mix)


def test_000_max_pooling_chain_from_28_to_6_needs_partial_windows():
    x = (28, 28, 1)
    x = shape(ops.conv, x, (3, 3, 1, 16))
    assert x == (26, 26, 16)
    x = shape(ops.max_pool, x, window=(2, 2), rounding="ceil")
    assert x == (13, 13, 16)
    x = shape(ops.conv, x, (3, 3, 16, 64))
    assert x == (11, 11, 64)
    assert shape(ops.max_pool, x, window=(2, 2), rounding="ceil") == (6, 6, 64)
    assert shape(ops.max_pool, x, window=(2, 2)) == (5, 5, 64)


PORTION = [[2, 3, 4, 0], [1, 5, 3, 2], [0, 4, 2, 3], [1, 0, 6, 1]]


@pytest.mark.parametrize(
    ("size", "stride", "expected"),
    [
        (2, 2, [[5, 4], [4, 6]]),
        (2, 1, [[5, 5, 4], [5, 5, 3], [4, 6, 6]]),
        (3, 1, [[5, 5], [6, 6]]),
    ],
)
def test_000_max_pooling_stride_need_not_match_the_window(size, stride, expected):
    assert_agree(ops.max_pool(plane(PORTION), (size, size), strides=stride)[..., 0], expected)


def test_000_pooling_average_of_the_same_portion():
    # 2 + 3 + 1 + 5 = 11, 4 + 0 + 3 + 2 = 9, 0 + 4 + 1 + 0 = 5, 2 + 3 + 6 + 1 = 12.
    assert_agree(ops.avg_pool(plane(PORTION), (2, 2))[..., 0], [[11 / 4, 9 / 4], [5 / 4, 3]])


def test_000_pooling_layers_introduce_some_translation_invariance():
    # A point that stays in its window is not seen to move; one that crosses to the next is.
    def pooled(row, column):
        return ops.max_pool(plane(np.zeros((4, 4))).at[row, column].set(1), (2, 2))

    assert_agree(pooled(1, 1), pooled(0, 0))
    assert_agree(pooled(1, 1)[..., 0], [[1, 0], [0, 0]])
    assert_agree(pooled(1, 2)[..., 0], [[0, 1], [0, 0]])


def test_000_max_pooling_confers_invariance_to_rotation_inside_a_window():
    # A quarter turn of each window's four pixels moves no maximum out of its window; one of the image turns the map.
    x = np.array(PORTION, float)
    turned = np.block([[np.rot90(x[i : i + 2, j : j + 2]) for j in (0, 2)] for i in (0, 2)])
    assert (turned != x).any()
    pooled = ops.max_pool(plane(x), (2, 2))[..., 0]
    assert_agree(ops.max_pool(plane(turned), (2, 2))[..., 0], pooled)
    assert_agree(ops.max_pool(plane(np.rot90(x)), (2, 2))[..., 0], np.rot90(pooled))


@pytest.mark.parametrize(
    ("ties", "expected"),
    [("all", [1, 1, 0, 1]), ("first", [1, 0, 0, 0]), ("split", [1 / 3, 1 / 3, 0, 1 / 3])],
)
def test_000_backprop_through_max_pool_gives_every_tied_maximum_a_full_gradient(ties, expected):
    # The slide's formula is ties='all'; its next sentence, one stored index, is ties='first'.
    (gradient,) = pullback(lambda x: ops.max_pool(x, (4,), ties=ties), plane([1]), plane([3, 3, 1, 3]))
    assert_agree(gradient[:, 0], expected)


def test_000_backprop_through_max_pool_without_ties_is_the_stored_index():
    y, indices = jax.jit(lambda x: ops.max_pool(x, (2, 2), return_indices=True))(plane(PORTION))
    assert_agree(y[..., 0], [[5, 4], [4, 6]])
    np.testing.assert_array_equal(indices[..., 0], [[5, 2], [9, 14]])
    (gradient,) = pullback(lambda x: ops.max_pool(x, (2, 2)), plane(np.ones((2, 2))), plane(PORTION))
    assert_agree(gradient[..., 0], [[0, 0, 1, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])


def test_000_unpooling_nearest_neighbour():
    upsampled = ops.upsample(plane([[1, 2], [3, 4]]), (2, 2), method="nearest")
    assert_agree(upsampled[..., 0], [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])


def test_000_unpooling_bed_of_nails():
    upsampled = ops.upsample(plane([[1, 2], [3, 4]]), (2, 2), method="bed_of_nails")
    assert_agree(upsampled[..., 0], [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]])


def test_000_unpooling_max_puts_values_where_the_maxima_were():
    _, indices = ops.max_pool(plane(PORTION), (2, 2), return_indices=True)
    unpooled = ops.max_unpool(plane([[10, 20], [30, 40]]), indices, (4, 4))
    assert_agree(unpooled[..., 0], [[0, 0, 20, 0], [0, 10, 0, 0], [0, 30, 0, 0], [0, 0, 40, 0]])


def test_000_replace_fc_by_conv_on_seven_by_seven_by_32():
    generator = np.random.default_rng(0)
    x = generator.integers(-3, 4, (7, 7, 32)).astype(float)
    wide = generator.integers(-3, 4, (7, 7, 32, 32)).astype(float)
    point = generator.integers(-3, 4, (1, 1, 32, 100)).astype(float)
    hidden = ops.conv(jnp.array(x), jnp.array(wide))
    assert hidden.shape == (1, 1, 32)
    y = ops.conv(hidden, jnp.array(point))
    assert y.shape == (1, 1, 100)
    assert_agree(y.ravel(), x.ravel() @ wide.reshape(-1, 32) @ point[0, 0])


def test_000_replace_fc_by_conv_runs_on_larger_images():
    # A classifier over 7x7x32 becomes, on a 10x12x32 map, a 4x6 map of classifiers.
    assert shape(ops.conv, (10, 12, 32), (7, 7, 32, 100)) == (4, 6, 100)


def test_000_why_cnn_any_size_of_image_with_the_same_parameters():
    model = models.create("lenet_5_modern", rngs=nnx.Rngs(0))
    sliding = models.convolutionalize(model)
    assert parameters(sliding) == parameters(model) == 61_706
    image = jnp.asarray(np.random.default_rng(0).random((1, 44, 52, 1)), jnp.float32)
    votes = sliding(image)
    assert votes.shape == (1, 4, 6, 10)
    # The network moves by four pixels: row 2 and column 3 are its answer to the 32x32 pixels from (8, 12) on.
    np.testing.assert_allclose(votes[0, 2, 3], model(image[:, 8:40, 12:44])[0], rtol=1e-4, atol=1e-5)


def test_000_adagrad_and_rmsprop_differ_in_the_effect_of_time():
    # Under a gradient of 1 Adagrad divides by the root of the sum of all squares, 1 / sqrt(t), and RMSprop by the root
    # of their mean over the recent past, which is 1 after a while.
    gradient = {"w": jnp.ones(())}
    steps = {}
    for name in ("adagrad", "rmsprop"):
        tx = create_optimizer(name, 1.0, momentum=0.0)
        state = tx.init(gradient)
        steps[name] = []
        for _ in range(100):
            update, state = tx.update(gradient, state, gradient)
            steps[name].append(-float(update["w"]))
    adagrad, rmsprop = np.array(steps["adagrad"]), np.array(steps["rmsprop"])
    np.testing.assert_allclose(adagrad, 1 / np.sqrt(np.arange(1, 101)), rtol=1e-6)
    np.testing.assert_allclose(rmsprop, 1 / np.sqrt(1 - 0.9 ** np.arange(1, 101)), rtol=1e-6)


def test_000_complex_cells_respond_to_a_feature_wherever_it_is_in_their_window():
    # A plane of simple cells of which one responds: the complex cell that looks at it does not see where, and is silent
    # if the active cell is outside its window.
    def response(row, column):
        cells = jnp.zeros((1, 5, 5, 2)).at[0, row, column, 0].set(1)
        return np.asarray(CCells((3, 3))(cells))[0, 1, 1]  # rows and columns 1 to 3

    inside = [response(row, column) for row in (1, 2, 3) for column in (1, 2, 3)]
    assert min(first for first, _ in inside) > 0.2
    assert all(second == 0 for _, second in inside)
    assert (response(0, 2) == 0).all()


def test_000_why_cnn_the_transform_of_a_convolution_is_the_product_of_the_transforms():
    y = ops.conv(plane([1, 2, 3]), window([0, 1, 0.5]), padding="FULL", flip_kernel=True, method="fft")
    assert_agree(y[:, 0], [0, 1, 2.5, 4, 1.5])
    np.testing.assert_allclose(np.fft.fft(y[:, 0]), np.fft.fft([1, 2, 3], 5) * np.fft.fft([0, 1, 0.5], 5), atol=1e-12)


def test_000_inductive_bias_convolution_commutes_with_translation():
    x = jnp.arange(30.0).reshape(5, 6, 1) ** 2 % 7
    moved = ops.conv(jnp.roll(x, (1, 2), axis=(0, 1)), window(FALLING), padding="SAME", boundary="periodic")
    still = ops.conv(x, window(FALLING), padding="SAME", boundary="periodic")
    assert_agree(moved, np.roll(still, (1, 2), axis=(0, 1)))
