"""Lecture 001 (T. Vieira, Deep learning: convolutional neural networks), slide by slide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import attribution, ops
from cnn_jax.errors import UsageError
from tests.lectures.exact import assert_agree, convolutions, field, parameters, plane, pullback, shape, window

SEVEN = [
    [6, 3, 4, 4, 5, 0, 3],
    [4, 7, 4, 0, 4, 0, 4],
    [7, 0, 2, 3, 4, 5, 2],
    [3, 7, 5, 0, 3, 0, 7],
    [5, 8, 1, 2, 5, 4, 2],
    [8, 0, 1, 0, 6, 0, 0],
    [6, 4, 1, 3, 0, 4, 5],
]


@pytest.mark.parametrize(("height", "width", "depth", "size"), [(32, 32, 3, 5), (10, 14, 8, 3), (7, 9, 1, 7)])
def test_001_convolution_operation_has_l_minus_f_plus_one_positions(height, width, depth, size):
    y = shape(ops.conv, (height, width, depth), (size, size, depth, 4))
    assert y == (height - size + 1, width - size + 1, 4)


def test_001_filter_no_larger_than_the_layer_and_of_its_depth():
    with pytest.raises(UsageError, match="kernel 5x5 does not fit input 4x4"):
        ops.conv(jnp.ones((4, 4, 3)), jnp.ones((5, 5, 3, 1)))
    with pytest.raises(UsageError, match="3 channels"):
        ops.conv(jnp.ones((8, 8, 3)), jnp.ones((5, 5, 4, 1)))


def test_001_numerical_example_with_depth_1():
    # The drawing of Aggarwal, Neural Networks and Deep Learning, 2018, chapter 8, from which the slide is: the input of
    # the padding slide. The first entry: 6 + 4 in the top row, 4 in the middle one, 2 * 2 at the bottom.
    kernel = window([[1, 0, 1], [1, 0, 0], [0, 0, 2]])
    expected = [
        [18, 20, 21, 14, 16],
        [25, 7, 16, 3, 26],
        [14, 14, 21, 16, 13],
        [15, 15, 21, 2, 15],
        [16, 16, 7, 14, 23],
    ]
    assert_agree(ops.conv(plane(SEVEN), kernel)[..., 0], expected)


def test_001_numerical_example_adds_the_activation_maps_over_the_depth():
    # Depth 2 = depth 1 twice: 1 + 2 + 3 + 4 = 10 in the first map, 5 times the sum 10 in the second.
    x = jnp.stack([jnp.array([[1.0, 2], [3, 4]]), jnp.array([[1.0, 2], [3, 4]])], axis=-1)
    kernel = jnp.concatenate([window(np.ones((2, 2))), window(np.full((2, 2), 5.0))], axis=2)
    assert_agree(ops.conv(x, kernel), [[[10 + 50]]])


@pytest.mark.parametrize(("depth", "width"), [(1, 3), (2, 5), (3, 7)])
def test_001_effects_of_convolution_receptive_field_of_stacked_three_by_three(depth, width):
    def layers(x):
        for _ in range(depth):
            x = ops.conv(x, jnp.ones((3, 3, 1, 1)), padding="SAME")
        return x

    assert field(layers) == (width, width, width * width)


def test_001_application_of_padding_with_two_zeros():
    padded = ops.pad(plane(SEVEN), [2, 2])[..., 0]
    assert padded.shape == (11, 11)
    assert_agree(padded[2:9, 2:9], SEVEN)
    assert padded.sum() == np.sum(SEVEN)
    assert_agree(padded[2], [0, 0, 6, 3, 4, 4, 5, 0, 3, 0, 0])
    assert_agree(padded[:, 3], [0, 0, 3, 7, 0, 7, 8, 0, 4, 0, 0])


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize(("padding", "amount"), [("VALID", 0), ("HALF", 0.5), ("FULL", 1)])
def test_001_types_of_padding_twice_the_padding_plus_the_reduction(padding, amount, size):
    # Equation (1): 2 * padded + reduction = F - 1, with nothing, half of F - 1, or F - 1 padded on each side.
    reduction = 11 - shape(ops.conv, (11, 1), (size, 1, 1), padding=padding)[0]
    assert 2 * amount * (size - 1) + reduction == size - 1


def test_001_strided_convolution_stands_at_one_then_every_s():
    # A 1x1 kernel of one shows where: rows and columns 1, 4, 7.
    assert_agree(ops.conv(plane(SEVEN), window([[1]]), strides=3)[..., 0], [[6, 4, 3], [3, 0, 7], [6, 3, 5]])


def test_001_strided_convolution_size_where_the_stride_divides():
    for rounding in ("strict", "floor", "ceil"):
        assert shape(ops.conv, (7, 9, 1), (3, 3, 1, 1), strides=2, rounding=rounding) == (3, 4, 1)


def test_001_strided_convolution_exact_divisibility_is_required():
    # (7 - 3) / 3 + 1 = 2 1/3: strict raises an error as on the slide; floor and ceil are the two fixes.
    with pytest.raises(UsageError, match="stride 3 does not divide"):
        ops.conv(plane(SEVEN), jnp.ones((3, 3, 1, 1)), strides=3, rounding="strict")
    assert shape(ops.conv, (7, 7, 1), (3, 3, 1, 1), strides=3) == (2, 2, 1)
    assert shape(ops.conv, (7, 7, 1), (3, 3, 1, 1), strides=3, rounding="ceil") == (3, 3, 1)


def test_001_max_pooling_keeps_the_depth():
    assert shape(ops.max_pool, (32, 40, 5), window=(3, 3), strides=1) == (30, 38, 5)
    assert shape(ops.max_pool, (32, 40, 5), window=(2, 2), strides=2) == (16, 20, 5)


def test_001_pooling_example_three_by_three_at_stride_two():
    assert_agree(ops.max_pool(plane(SEVEN), (3, 3), strides=2)[..., 0], [[7, 5, 5], [8, 5, 7], [8, 6, 6]])


def test_001_relu_is_one_to_one():
    assert_agree(ops.relu(jnp.array([[-2.0, 0, 3], [4, -5, 6]])), [[0, 0, 3], [4, 0, 6]])


def test_001_backprop_relu_passes_only_where_the_input_was_positive():
    (gradient,) = pullback(ops.relu, jnp.array([1.0, 2, 3]), jnp.array([-1.0, 0, 5]))
    assert_agree(gradient, [0, 0, 3])


def test_001_backprop_max_pooling_flows_through_the_largest_cell():
    # The four corners of the image: 7 at (1, 1), 4 at (1, 6), 8 at (5, 0), 5 at (6, 6).
    def pool(x):
        return ops.max_pool(x, (2, 2), strides=5)

    assert_agree(pool(plane(SEVEN))[..., 0], [[7, 4], [8, 5]])
    (gradient,) = pullback(pool, plane([[1, 2], [3, 4]]), plane(SEVEN))
    expected = np.zeros((7, 7))
    expected[1, 1], expected[1, 6], expected[5, 0], expected[6, 6] = 1, 2, 3, 4
    assert_agree(gradient[..., 0], expected)


FORWARD = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
BACKWARD = [[9, 8, 7], [6, 5, 4], [3, 2, 1]]


def test_001_backprop_with_an_inverted_filter_single_channel():
    # Entry (1, 1): 1 * e + 10 * d + 100 * b + 1000 * a = 5 + 40 + 200 + 1000.
    expected = [[1, 12, 23, 30], [104, 1245, 2356, 3060], [407, 4578, 5689, 6090], [700, 7800, 8900, 9000]]
    dy = plane([[1, 10], [100, 1000]])
    assert_agree(ops.conv(dy, window(BACKWARD), padding="FULL")[..., 0], expected)
    dx, _ = pullback(ops.conv, dy, plane(np.ones((4, 4))), window(FORWARD))
    assert_agree(dx[..., 0], expected)
    assert_agree(ops.conv_transpose(dy, window(FORWARD))[..., 0], expected)


def test_001_backprop_with_an_inverted_filter_60_slices_regrouped_as_3_sets_of_depth_20():
    generator = np.random.default_rng(1)
    kernel = generator.integers(-4, 5, (3, 3, 3, 20)).astype(float)
    dy = generator.integers(-4, 5, (4, 5, 20)).astype(float)
    assert kernel.shape[-2] * kernel.shape[-1] == 60
    # Slice (channel, filter), inverted, becomes slice (filter, channel).
    regrouped = jnp.array(kernel[::-1, ::-1].swapaxes(-2, -1))
    assert regrouped.shape == (3, 3, 20, 3)
    # Which input contributes to which output, one kernel entry at a time.
    expected = np.zeros((6, 7, 3))
    for i, j in np.ndindex(3, 3):
        expected[i : i + 4, j : j + 5] += dy @ kernel[i, j].T
    assert_agree(ops.conv(jnp.array(dy), regrouped, padding="FULL"), expected)
    dx, _ = pullback(ops.conv, jnp.array(dy), jnp.zeros((6, 7, 3)), jnp.array(kernel))
    assert_agree(dx, expected)


MATRIX = np.array(
    [
        [1, 2, 0, 3, 4, 0, 0, 0, 0],
        [0, 1, 2, 0, 3, 4, 0, 0, 0],
        [0, 0, 0, 1, 2, 0, 3, 4, 0],
        [0, 0, 0, 0, 1, 2, 0, 3, 4],
    ],
    float,
)


def test_001_convolution_as_a_matrix_multiplication_forward():
    x = np.arange(1, 10)
    assert_agree(ops.toeplitz_matrix(window([[1, 2], [3, 4]]), (3, 3)), MATRIX)
    # 1 + 2 * 2 + 3 * 4 + 4 * 5 = 37; one step to the right or down adds the step times the sum of the kernel, 10.
    assert_agree(MATRIX @ x, [37, 47, 67, 77])
    assert_agree(ops.conv(plane(x.reshape(3, 3)), window([[1, 2], [3, 4]])).ravel(), [37, 47, 67, 77])


def test_001_convolution_as_a_matrix_multiplication_backward_is_the_transpose():
    dx, _ = pullback(ops.conv, plane([[1, 2], [3, 4]]), jnp.zeros((3, 3, 1)), window([[1, 2], [3, 4]]))
    # (1, 1) is in all four windows: 1 * 4 + 2 * 3 + 3 * 2 + 4 * 1.
    assert dx[1, 1, 0] == 20
    assert_agree(dx.ravel(), MATRIX.T @ [1, 2, 3, 4])


# The pictures of Springenberg et al. (2015), figure 1, which the slide shows.
ACTIVATION = [[1, -1, 5], [2, -5, -7], [-3, 2, 4]]
SIGNAL = [[-2, 3, -1], [6, -3, 1], [2, -1, 3]]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("standard", [[-2, 0, -1], [6, 0, 0], [0, -1, 3]]),
        ("deconvnet", [[0, 3, 0], [6, 0, 1], [2, 0, 3]]),
        ("guided", [[0, 0, 0], [6, 0, 0], [0, 0, 3]]),
    ],
)
def test_001_illustration_of_deconvnet_and_guided_backpropagation(rule, expected):
    def relu(x):
        return ops.relu(x, rule=rule)

    assert_agree(relu(jnp.array(ACTIVATION, float)), [[1, 0, 5], [2, 0, 0], [0, 2, 4]])
    (gradient,) = pullback(relu, jnp.array(SIGNAL, float), jnp.array(ACTIVATION, float))
    assert_agree(gradient, expected)


def test_001_deconvnet_and_guided_backpropagation_of_any_function():
    # The network knows nothing of the rules: they are those of the method.
    x, signal = jnp.array(ACTIVATION, float)[None], jnp.array(SIGNAL, float)
    for rule, method in (("deconvnet", attribution.deconvnet), ("guided", attribution.guided_backpropagation)):
        found = method(lambda x: jax.nn.relu(x) * signal, x, target=jnp.sum)
        (expected,) = pullback(lambda x, rule=rule: ops.relu(x, rule=rule), signal, x[0])
        assert_agree(found[0], expected)


def test_001_gradient_based_visualization_largest_absolute_gradient_over_the_colours():
    # The score is 1 r - 3 g + 2 b, summed over the pixels.
    colours = jnp.array([1.0, -3, 2])
    found = attribution.saliency(lambda x: (x * colours).sum((1, 2)), jnp.ones((1, 2, 2, 3)), jnp.sum)
    assert_agree(found[0, :, :, 0], [[3, 3], [3, 3]])


def test_001_alexnet_first_layer_needs_227_or_padding():
    # (224 - 11) / 4 + 1 = 54 1/4, so the printed 55 comes from 227, or from 2 zeros around and rounding down.
    kernel = (11, 11, 3, 96)
    assert shape(ops.conv, (224, 224, 3), kernel, strides=4) == (54, 54, 96)
    with pytest.raises(UsageError, match="stride 4 does not divide"):
        shape(ops.conv, (224, 224, 3), kernel, strides=4, rounding="strict")
    assert shape(ops.conv, (227, 227, 3), kernel, strides=4, rounding="strict") == (55, 55, 96)
    assert shape(ops.conv, (224, 224, 3), kernel, strides=4, padding=2) == (55, 55, 96)


def test_001_alexnet_volumes_55_27_13_with_overlapping_pools():
    def pool(x):
        return shape(ops.max_pool, x, window=(3, 3), strides=2, rounding="strict")

    x = pool((55, 55, 96))
    assert x == (27, 27, 96)
    x = shape(ops.conv, x, (5, 5, 96, 256), padding="SAME")
    assert x == (27, 27, 256)
    x = pool(x)
    assert x == (13, 13, 256)
    for channels, features in ((256, 384), (384, 384), (384, 256)):
        x = shape(ops.conv, x, (3, 3, channels, features), padding=1)
        assert x == (13, 13, features)
    assert pool(x) == (6, 6, 256)


def test_001_zfnet_volumes_55_13_need_padding_and_partial_windows():
    def pool(x):
        return shape(ops.max_pool, x, window=(3, 3), strides=2, rounding="ceil")

    x = shape(ops.conv, (224, 224, 3), (7, 7, 3, 96), strides=2, padding=1)
    assert x == (110, 110, 96)
    x = pool(x)
    assert x == (55, 55, 96)
    x = shape(ops.conv, x, (5, 5, 96, 256), strides=2)
    assert x == (26, 26, 256)
    x = pool(x)
    assert x == (13, 13, 256)
    for channels, features in ((256, 512), (512, 1024), (1024, 512)):
        x = shape(ops.conv, x, (3, 3, channels, features), padding=1)
        assert x == (13, 13, features)
    assert pool(x) == (6, 6, 512)


def test_001_vgg_three_by_three_keeps_the_footprint_and_pools_halve_it():
    x, footprints = (224, 224, 3), []
    for features in (64, 128, 256, 512, 512):
        x = shape(ops.conv, x, (3, 3, x[-1], features), padding=1)
        footprints.append(x)
        x = shape(ops.max_pool, x, window=(2, 2), rounding="strict")
    assert footprints == [(224, 224, 64), (112, 112, 128), (56, 56, 256), (28, 28, 512), (14, 14, 512)]
    assert x == (7, 7, 512)


def test_001_vgg_volume_halves_where_the_slide_says_roughly_constant():
    # Twice the filters on a quarter of the positions.
    before, after = (56, 56, 256), (28, 28, 512)
    assert shape(ops.max_pool, before, window=(2, 2))[:2] == after[:2]
    assert np.prod(before) == 2 * np.prod(after) == 802_816


def test_001_principle_of_reduced_filter_size():
    # One 7x7 layer and three of 3x3 see 7x7 pixels; their weights are 49 and 27.
    for sizes, weights in (([7], 49), ([3, 3, 3], 27)):
        layers = convolutions(*sizes)
        assert field(layers) == (7, 7, 49)
        assert parameters(layers) == weights


def test_001_googlenet_output_averages_each_map_to_one_value():
    x = jnp.stack([jnp.arange(49.0), jnp.full(49, 7.0)], axis=-1).reshape(7, 7, 2)
    # The mean of 0 .. 48 is 24; as many features as the last layer has maps.
    assert_agree(ops.global_avg_pool(x[None]), [[24, 7]])


def test_001_resnet_details_stride_one_keeps_and_stride_two_halves():
    x = (56, 56, 64)
    assert shape(ops.conv, x, (3, 3, 64, 64), padding=1) == (56, 56, 64)
    halved = shape(ops.conv, x, (3, 3, 64, 128), padding=1, strides=2)
    projected = shape(ops.conv, x, (1, 1, 64, 128), strides=2)
    assert halved == projected == (28, 28, 128)


def test_001_resnet_projection_is_a_matrix_at_every_other_position():
    x = jnp.arange(16.0).reshape(4, 4, 1)
    y = ops.conv(x, jnp.array([[[[1.0, 10]]]]), strides=2)
    assert_agree(y[..., 0], [[0, 2], [8, 10]])
    assert_agree(y[..., 1], [[0, 20], [80, 100]])


def test_001_other_applications_one_and_three_dimensional():
    assert shape(ops.conv, (8, 100, 300), (5, 300, 64)) == (8, 96, 64)  # 8 texts of 100 words
    assert shape(ops.conv, (8, 16, 32, 32, 3), (3, 3, 3, 3, 64)) == (8, 14, 30, 30, 64)  # 8 clips of 16 frames
