"""Inception-ResNet-v1 against counts from the paper's figures."""

from cnn_jax import geometry
from tests.models.traced import abstract, table

Branch = list[tuple[int, int]]  # consecutive convolutions: window entries, channels

FIGURE_10: list[Branch] = [[(1, 32)], [(1, 32), (9, 32)], [(1, 32), (9, 32), (9, 32)]]
FIGURE_11: list[Branch] = [[(1, 128)], [(1, 128), (7, 128), (7, 128)]]
FIGURE_13: list[Branch] = [[(1, 192)], [(1, 192), (3, 192), (3, 192)]]
FIGURE_7: list[Branch] = [[(9, 384)], [(1, 192), (9, 192), (9, 256)]]  # k, l, m, n = 192, 192, 256, 384
FIGURE_12: list[Branch] = [[(1, 256), (9, 384)], [(1, 256), (9, 256)], [(1, 256), (9, 256), (9, 256)]]


def count(channels: int, branches: list[Branch]) -> int:
    """The number of weights, and of the two parameters of each normalisation."""
    found = 0
    for branch in branches:
        inputs = channels
        for window, features in branch:
            found += window * inputs * features + 2 * features
            inputs = features
    return found


def block(channels: int, branches: list[Branch]) -> int:
    """The parameters of the branches and of the linear convolution, with biases, back to the input channels."""
    return count(channels, branches) + (sum(branch[-1][1] for branch in branches) + 1) * channels


def test_parameters_are_those_of_the_figures() -> None:
    stem = count(3, [[(9, 32), (9, 32), (9, 64), (1, 80), (9, 192), (9, 256)]])
    expected = (
        stem
        + 5 * block(256, FIGURE_10)
        + count(256, FIGURE_7)
        + 10 * block(896, FIGURE_11)
        + count(896, FIGURE_12)
        + 5 * block(1792, FIGURE_13)
        + 1793 * 1000
    )
    assert geometry.parameter_count(abstract("inception_resnet_v1")) == expected


def test_maps_have_the_sizes_of_the_figures() -> None:
    rows = table("inception_resnet_v1")
    stem = [rows[f"stem/{name}"] for name in ("conv1/conv", "conv2/conv", "conv3/conv", "pool", "conv4/conv")]
    assert [row.output_shape[0] for row in stem] == [149, 147, 147, 73, 73]
    assert [rows[f"stem/{name}/conv"].output_shape[0] for name in ("conv5", "conv6")] == [71, 35]
    assert rows["a_4/add"].output_shape == (35, 35, 256)
    assert rows["b_9/add"].output_shape == (17, 17, 896)
    assert rows["c_4/add"].output_shape == (8, 8, 1792)


def test_residuals_are_scaled_and_activated_after_the_sum() -> None:
    model = abstract("inception_resnet_v1")
    assert [getattr(model, name).branch.scale.factor for name in ("a_0", "b_0", "c_0")] == [0.17, 0.10, 0.20]
    names = list(table("inception_resnet_v1"))
    position = names.index("b_3/add")
    assert names[position - 2 : position + 2] == ["b_3/branch/linear", "b_3/branch/scale", "b_3/add", "b_3_relu"]
    assert table("inception_resnet_v1")["b_3/branch/mixed/1x7_7x1/conv2/conv"].kernel_size == (1, 7)
