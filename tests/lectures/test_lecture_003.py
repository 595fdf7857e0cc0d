"""Lecture 003 (CPSC 340: convolutional neural networks), slide by slide."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import filters, nn, ops
from cnn_jax.models.voxel_classifier import FilterBank
from tests.lectures.exact import assert_agree, parameters, plane, shape, window

FIBONACCI = [0, 1, 1, 2, 3, 5, 8, 13]
AVERAGE = [1 / 3, 1 / 3, 1 / 3]


def conv(weights, x=FIBONACCI, **options):
    """The lecture's one-dimensional convolution: correlation of a vector with a vector."""
    return ops.conv(plane(x), window(weights), **options)[:, 0]


def test_003_softmax_layer_for_k_classes():
    # Equal scores: log k. Scores log 1, log 2, log 5: probabilities 1/8, 2/8, 5/8.
    assert_agree(ops.softmax_cross_entropy(jnp.zeros(10), jnp.array(3)), math.log(10))
    scores = jnp.log(jnp.array([1.0, 2, 5]))
    assert_agree(ops.softmax_cross_entropy(scores, jnp.array(2)), math.log(8 / 5))
    gradient = jax.jit(jax.grad(ops.softmax_cross_entropy))(scores, jnp.array(2))
    assert_agree(gradient, [1 / 8, 2 / 8, 5 / 8 - 1])


def test_003_1d_convolution_with_0_minus1_2_minus1_0():
    # z_i = -x_{i-1} + 2 x_i - x_{i+1}: 2 - 1 - 2, 4 - 1 - 3, 6 - 2 - 5, 10 - 3 - 8; the output is as long as the input.
    assert_agree(conv([0, -1, 2, -1, 0]), [-1, 0, -1, -1])
    assert conv([0, -1, 2, -1, 0], padding="SAME").shape == (8,)


def test_003_1d_convolution_examples_identity():
    assert_agree(conv(filters.identity(rank=1), padding="SAME"), FIBONACCI)


def test_003_1d_convolution_examples_translation():
    # The "?" is what lies beyond the boundary.
    assert_agree(conv([0, 0, 1], padding="SAME")[:-1], [1, 1, 2, 3, 5, 8, 13])
    assert_agree(conv([0, 0, 1], padding="SAME"), [1, 1, 2, 3, 5, 8, 13, 0])
    assert_agree(conv([0, 0, 1], padding="SAME", boundary="replicate"), [1, 1, 2, 3, 5, 8, 13, 13])


def test_003_1d_convolution_examples_average():
    assert_agree(filters.box(3, rank=1), AVERAGE)
    assert_agree(conv(AVERAGE, padding="SAME")[1:-1], [2 / 3, 4 / 3, 2, 10 / 3, 16 / 3, 26 / 3])


@pytest.mark.parametrize(
    ("boundary", "before", "after"),
    [("zero", [0, 0, 0], [0, 0, 0]), ("replicate", [0, 0, 0], [13, 13, 13]), ("mirror", [2, 1, 1], [8, 5, 3])],
)
def test_003_boundary_issue_three_values_past_the_boundaries(boundary, before, after):
    assert_agree(ops.pad(plane(FIBONACCI), [3], boundary=boundary)[:, 0], before + FIBONACCI + after)


@pytest.mark.parametrize(
    ("boundary", "first", "last"),
    [
        ("zero", (0 + 0 + 1) / 3, (8 + 13 + 0) / 3),
        ("replicate", (0 + 0 + 1) / 3, (8 + 13 + 13) / 3),
        ("mirror", (1 + 0 + 1) / 3, (8 + 13 + 8) / 3),
    ],
)
def test_003_boundary_issue_average_without_question_marks(boundary, first, last):
    expected = [first, 2 / 3, 4 / 3, 2, 10 / 3, 16 / 3, 26 / 3, last]
    assert_agree(conv(AVERAGE, padding="SAME", boundary=boundary), expected)


def test_003_boundary_issue_ignoring_them_returns_a_shorter_vector():
    assert_agree(conv(AVERAGE, padding="VALID"), [2 / 3, 4 / 3, 2, 10 / 3, 16 / 3, 26 / 3])


def test_003_1d_convolution_in_matrix_notation():
    matrix = ops.toeplitz_matrix(window([1, 2, 3]), (6,))
    assert_agree(matrix, [[1, 2, 3, 0, 0, 0], [0, 1, 2, 3, 0, 0], [0, 0, 1, 2, 3, 0], [0, 0, 0, 1, 2, 3]])
    assert len(np.unique(matrix[matrix != 0])) == 3  # 2 m + 1 variables
    assert_agree(ops.toeplitz_matrix(window(AVERAGE), (8,)) @ jnp.array(FIBONACCI, float), conv(AVERAGE))


def test_003_translation_by_four():
    # Nine weights, the one in front: z_i = x_{i-4}.
    assert_agree(conv([1, 0, 0, 0, 0, 0, 0, 0, 0], padding="SAME"), [0, 0, 0, 0, 0, 1, 1, 2])


def test_003_averaging_over_a_bigger_window():
    assert_agree(filters.box(9, rank=1), np.full(9, 1 / 9))
    # First 0 + 1 + 1 + 2 + 3 = 7 of nine values, in the middle all 33, last 2 + 3 + 5 + 8 + 13 = 31.
    z = conv(np.full(9, 1 / 9), padding="SAME")
    assert_agree(z[jnp.array([0, 3, 4, 7])], [7 / 9, 33 / 9, 33 / 9, 31 / 9])


GAUSSIAN = [0.0001, 0.0044, 0.0540, 0.2420, 0.3989, 0.2420, 0.0540, 0.0044, 0.0001]


def test_003_gaussian_of_sigma_one_and_m_four():
    # The slide's second value reads .0644 and its fourth .1420; the weights are symmetric, so .0044 and .2420.
    weights = filters.gaussian(1, radius=4, rank=1)
    assert_agree(jnp.round(weights, 4), GAUSSIAN)
    assert_agree(weights[4:] / weights[4], np.exp([0, -1 / 2, -2, -9 / 2, -8]))
    assert_agree(weights.sum(), 1)


def test_003_sharpen():
    assert_agree(filters.sharpen(rank=1), [-1, 3, -1])
    # 3 - 0 - 1, 3 - 1 - 2, 6 - 1 - 3, 9 - 2 - 5, 15 - 3 - 8, 24 - 5 - 13.
    assert_agree(conv([-1, 3, -1]), [2, 0, 2, 2, 4, 6])


def test_003_laplacian_as_printed_is_minus_the_second_derivative():
    assert_agree(-filters.laplacian(rank=1), [-1, 2, -1])
    assert_agree(conv([-1, 2, -1], x=[0, 1, 4, 9, 16]), [-2, -2, -2])  # the second derivative of i ** 2 is 2
    assert_agree(conv([-1, 2, -1], x=[0, 1, 2, 3, 4]), [0, 0, 0])  # and it is no first derivative


def test_003_finite_differences_forward():
    # Printed 1 -1, which differentiates under the convolution of mathematics.
    expected = [1, 0, 1, 1, 2, 3, 5]
    assert_agree(conv([1, -1], flip_kernel=True), expected)
    assert_agree(conv([-1, 1]), expected)


def test_003_finite_differences_centred():
    # Printed 1 0 -1, reflected as above: x_{i+1} - x_{i-1}, which for these numbers is x_i, and twice the derivative.
    assert_agree(conv([1, 0, -1], flip_kernel=True), [1, 1, 2, 3, 5, 8])
    assert_agree(conv(filters.finite_difference(axis=0, rank=1), x=[0, 1, 4, 9, 16]), [2, 4, 6])


def test_003_finite_differences_printed_second_derivative_does_not_add_to_zero():
    # Printed -1 2 1, by which a constant would have a second derivative of 2.
    assert_agree(conv([-1, 2, 1], x=[1, 1, 1, 1]), [2, 2])
    assert_agree(filters.laplacian(rank=1), [1, -2, 1])
    assert_agree(conv([1, -2, 1], x=[1, 1, 1, 1]), [0, 0])
    assert_agree(conv([1, -2, 1], x=[0, 1, 4, 9, 16]), [2, 2, 2])


def test_003_finite_differences_trapezoid_and_simpson():
    # Mean of x ** 3 over [i - 1, i + 1]: i ** 3 + i, exact for cubics; the trapezoid rule is exact for straight lines.
    assert_agree(conv(filters.simpson(rank=1), x=[0, 1, 8, 27, 64]), [2, 10, 30])
    assert_agree(conv(filters.trapezoid(rank=1), x=[0, 1, 2, 3]), [0.5, 1.5, 2.5])
    assert_agree(conv(filters.simpson(rank=1), x=[5, 5, 5]), [5])


def test_003_convolution_responds_when_the_input_looks_like_the_filter():
    # Of all vectors of length 1, the filter's own direction gives the largest product: its length.
    weights = np.array([3.0, 0, 4])
    assert_agree(conv(weights, x=weights / 5), [5])
    assert_agree(conv([-1, 1], x=[7, 7, 7, 9, 9, 4]), [0, 0, 2, 0, -5])


LOG = [-0.1416, -0.1781, -0.2746, 0.1640, 0.8607, 0.1640, -0.2746, -0.1781, -0.1416]


def test_003_laplacian_of_gaussian_as_printed():
    weights = filters.laplacian_of_gaussian_section(1, radius=4)
    assert_agree(jnp.round(weights, 4), LOG)
    # (1 - i**2 / 2) exp(-i**2 / 2) at 0 .. 4: 1, e**-.5 / 2, -e**-2, -3.5 e**-4.5, -7 e**-8; then minus the mean.
    half = np.array([1, math.exp(-0.5) / 2, -math.exp(-2), -3.5 * math.exp(-4.5), -7 * math.exp(-8)])
    assert_agree(weights[4:], half - (2 * half.sum() - 1) / 9)
    assert_agree(weights.sum(), 0)


def test_003_laplacian_of_gaussian_is_the_second_derivative():
    # (i**2 - 1) exp(-i**2 / 2) / sqrt(2 pi) at 0 .. 4, minus the mean: -1, 0, 3 e**-2, 8 e**-4.5, 15 e**-8.
    half = np.array([-1, 0, 3 * math.exp(-2), 8 * math.exp(-4.5), 15 * math.exp(-8)]) / math.sqrt(2 * math.pi)
    weights = filters.laplacian_of_gaussian(1, radius=4, rank=1)
    assert_agree(weights[4:], half - (2 * half.sum() - half[0]) / 9)
    assert_agree(weights.sum(), 0)


def test_003_laplacian_of_gaussian_as_printed_crosses_zero_elsewhere():
    # Without the mean: at sqrt(2) sigma = 2.7 pixels, where the second derivative crosses at sigma = 1.9.
    printed = filters.laplacian_of_gaussian_section(1.9, radius=12)[12:]
    derivative = -filters.laplacian_of_gaussian(1.9, radius=12, rank=1)[12:]
    assert (np.argmax(printed < 0), np.argmax(derivative < 0)) == (3, 2)


def test_003_maximum_over_a_point_and_its_16_neighbours():
    x = np.zeros(40)
    x[[5, 30]] = 2, 3
    expected = np.zeros(40)
    expected[:14], expected[22:39] = 2, 3
    assert_agree(ops.max_pool(plane(x), (17,), strides=1, padding="SAME")[:, 0], expected)


def test_003_maximum_of_the_laplacian_of_gaussian_over_16_neighbours_tells_spikes_from_waves():
    # Forty samples of a slow wave and forty of a quick one, both between 0 and 1. Only the quick one responds, and the
    # maximum spreads its response over the eight samples to each side.
    weights = filters.laplacian_of_gaussian_section(1, radius=4)
    signal = np.zeros(160)
    signal[20:60] = (1 - np.cos(2 * np.pi * np.arange(40) / 4)) / 2
    signal[90:130] = (1 - np.cos(2 * np.pi * np.arange(40) / 40)) / 2
    response = np.correlate(np.pad(signal, 4), np.asarray(weights), "valid")
    expected = [response[max(0, i - 8) : i + 9].max() for i in range(160)]
    z = ops.conv(plane(signal), window(weights), padding="SAME")
    found = np.asarray(ops.max_pool(z, (17,), strides=1, padding="SAME"))[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert found[20:60].min() > 5 * found[90:130].max()


def test_003_naive_voxel_level_classifier_sees_the_values_of_the_voxel_alone():
    # Two voxels with x = (98, 187, 246) have the same features, whatever is around them.
    scan = jnp.zeros((1, 9, 3)).at[0, 2].set(jnp.array([98.0, 187, 246])).at[0, 6:].set(jnp.array([98.0, 187, 246]))
    features = FilterBank((), location=False)(scan)
    assert_agree(features[0, 2], [98, 187, 246])
    assert_agree(features[0, 7], [98, 187, 246])


def test_003_need_for_context_convolutions_tell_equal_values_apart():
    # A single 5 and the middle of a region of 5: their averages under the lecture's Gaussian are 5 * .3989 and 5.
    signal = jnp.zeros(40).at[8].set(5.0).at[20:].set(5.0)
    features = np.asarray(FilterBank((1.0,), location=False)(signal[None, :, None]))[0]
    value, average, laplacian = features[:, 0], features[:, 1], features[:, 3]
    assert value[8] == value[30] == 5
    np.testing.assert_allclose([average[8], average[30]], [5 * 0.3989, 5], atol=3e-4)
    np.testing.assert_allclose(laplacian[[8, 30]], [2 * 5 * (0.2420 - 0.3989), 0], atol=1e-3)  # a peak, and no change


@pytest.mark.parametrize("rank", [2, 3])
def test_003_higher_order_convolution_sums(rank):
    generator = np.random.default_rng(rank)
    x, w = generator.integers(-5, 6, (5,) * rank), generator.integers(-5, 6, (3,) * rank)
    # z[i] = sum over j from -m to m of w[j] x[i + j], with m = 1, where it needs nothing past the boundaries.
    expected = np.zeros((3,) * rank)
    for i in np.ndindex(expected.shape):
        for j in np.ndindex(w.shape):
            expected[i] += w[j] * x[tuple(np.add(i, j))]
    assert_agree(ops.conv(plane(x), window(w))[..., 0], expected)
    assert ops.conv(plane(x), window(w), padding="SAME").shape == (*x.shape, 1)


def test_003_image_convolution_examples_gaussian_smooths():
    # exp(-(i**2 + j**2) / 2), which is the product of two signals' weights; a smaller variance smooths less.
    i = np.arange(-4, 5)
    expected = np.exp(-(i[:, None] ** 2 + i**2) / 2)
    assert_agree(filters.gaussian(1, radius=4), expected / expected.sum())
    noise = np.random.default_rng(0).standard_normal((24, 24))
    spreads = [np.std(ops.conv(plane(noise), window(filters.gaussian(sigma, radius=4)))) for sigma in (0.5, 1, 2)]
    assert noise.std() > spreads[0] > spreads[1] > spreads[2]


def test_003_convolutional_layer_repeats_several_filters_at_a_stride():
    kernel = jnp.array([[1.0, 4], [2, 5], [3, 6]])[:, None, :]
    # The slide stacks the rows filter by filter; with channels last they alternate.
    alternating = [
        [1, 2, 3, 0, 0, 0, 0],
        [4, 5, 6, 0, 0, 0, 0],
        [0, 0, 1, 2, 3, 0, 0],
        [0, 0, 4, 5, 6, 0, 0],
        [0, 0, 0, 0, 1, 2, 3],
        [0, 0, 0, 0, 4, 5, 6],
    ]
    assert_agree(ops.toeplitz_matrix(kernel, (7,), strides=2), alternating)


def test_003_motivation_two_billion_weights_against_75():
    # Each of 10,000 units reading all of 256 x 256 x 3, or one 5 x 5 filter read at every position.
    inputs = 256 * 256 * 3
    dense = nnx.eval_shape(lambda: nn.Linear(inputs, 10_000, use_bias=False, rngs=nnx.Rngs(0)))
    assert inputs == 196_608
    assert parameters(dense) == 1_966_080_000
    assert parameters(nn.Conv(3, 1, (5, 5), use_bias=False, rngs=nnx.Rngs(0))) == 75


def layer_sizes(size):
    """Parameters of the slide's network, layer by layer, for a square RGB image."""
    kernel = (5, 5, 3, 32)
    flat = math.prod(shape(ops.max_pool, shape(ops.conv, (size, size, 3), kernel), window=(2, 2)))
    return [math.prod(kernel) + 32, flat * 128 + 128, 128 * 10 + 10]


def test_003_number_of_parameters_printed_is_that_of_28_by_28_pictures():
    assert shape(ops.conv, (28, 28, 3), (5, 5, 3, 32)) == (24, 24, 32)
    assert shape(ops.max_pool, (24, 24, 32), window=(2, 2)) == (12, 12, 32)
    assert layer_sizes(28) == [2_400 + 32, 589_824 + 128, 1_280 + 10]
    assert sum(layer_sizes(28)) == 593_674


def test_003_number_of_parameters_of_the_256_by_256_pictures_it_starts_with():
    # 252, pooled 126: 126 * 126 * 32 * 128 = 65,028,096 weights in the first dense layer.
    assert layer_sizes(256) == [2_432, 65_028_096 + 128, 1_290]
    assert sum(layer_sizes(256)) == 65_031_946


def test_003_bonus_fft_is_periodic_convolution():
    # (f * g)[n] = f[n] + 10 f[n - 1], with f[-1] = f[3].
    y = conv([1, 10], x=[1, 2, 3, 4], padding=[(1, 0)], boundary="periodic", flip_kernel=True)
    assert_agree(y, [41, 12, 23, 34])
    product = np.fft.fft([1, 2, 3, 4]) * np.fft.fft([1, 10, 0, 0])
    np.testing.assert_allclose(np.fft.ifft(product), y, atol=1e-12)


@pytest.mark.parametrize("boundary", ["periodic", "zero", "mirror"])
def test_003_bonus_fft_method_has_every_boundary(boundary):
    # With as many zeros as the filter is long, the period is out of reach.
    expected = {"periodic": [41, 12, 23, 34], "zero": [1, 12, 23, 34], "mirror": [21, 12, 23, 34]}[boundary]
    options = {"padding": [(1, 0)], "boundary": boundary, "flip_kernel": True}
    assert_agree(conv([1, 10], x=[1, 2, 3, 4], method="fft", **options), expected)
