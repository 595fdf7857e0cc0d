"""The names of torchvision's modules, taken from its documentation and printed networks."""

import math

import jax
import numpy as np
import pytest
from flax import nnx

from cnn_jax import nn
from cnn_jax.errors import UsageError
from cnn_jax.weights.layouts import entries
from cnn_jax.weights.torch_names import torch_layers
from tests.weights.networks import abstract


def names(name, layout="torchvision", **options):
    return {layer.path: layer.name for layer in torch_layers(abstract(name, **options), layout)}


def test_alexnet():
    assert names("alexnet_torchvision") == {
        "conv1": "features.0",
        "conv2": "features.3",
        "conv3": "features.6",
        "conv4": "features.8",
        "conv5": "features.10",
        "fc6": "classifier.1",
        "fc7": "classifier.4",
        "fc8": "classifier.6",
    }


@pytest.mark.parametrize(
    ("name", "convolutions"),
    [
        ("vgg_a", [0, 3, 6, 8, 11, 13, 16, 18]),
        ("vgg_b", [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]),
        ("vgg_d", [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]),
        ("vgg_e", [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]),
        ("vgg_a_bn", [0, 4, 8, 11, 15, 18, 22, 25]),
        ("vgg_d_bn", [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]),
    ],
)
def test_vgg(name, convolutions):
    found = list(names(name).values())
    places = [place for index in convolutions for place in ([index, index + 1] if name.endswith("bn") else [index])]
    classifier = ["classifier.0", "classifier.3", "classifier.6"]
    assert found == [*(f"features.{place}" for place in places), *classifier]
    timm = list(names(name, "timm").values())
    assert timm == [*found[:-3], "pre_logits.fc1", "pre_logits.fc2", "head.fc"]


def test_googlenet():
    found = names("googlenet_torchvision")
    # 3 units, 9 blocks of 6 units, a unit in each head: convolution and normalisation; fc, and two in each head.
    assert len(found) == 2 * (3 + 9 * 6 + 2) + 5
    expected = {
        "conv1/conv": "conv1.conv",
        "conv3/bn": "conv3.bn",
        "inception3a/1x1/conv": "inception3a.branch1.conv",
        "inception4b/3x3/reduce/bn": "inception4b.branch2.0.bn",
        "inception4b/3x3/conv/conv": "inception4b.branch2.1.conv",
        "inception5b/5x5/conv/bn": "inception5b.branch3.1.bn",
        "inception5b/pool/project/conv": "inception5b.branch4.1.conv",
        "aux1/conv/conv": "aux1.conv.conv",
        "aux2/fc2": "aux2.fc2",
        "fc": "fc",
    }
    assert expected.items() <= found.items()


@pytest.mark.parametrize(("name", "options"), [("resnet_18", {}), ("resnet_50", {"stride": "v1.5"})])
def test_resnet(name, options):
    found = names(name, **options)
    expected = {
        "conv1": "conv1",
        "bn1": "bn1",
        "layer1_0/branch/conv1": "layer1.0.conv1",
        "layer2_0/shortcut/conv": "layer2.0.downsample.0",
        "layer2_0/shortcut/bn": "layer2.0.downsample.1",
        "layer4_1/branch/bn2": "layer4.1.bn2",
        "fc": "fc",
    }
    assert expected.items() <= found.items()
    assert list(names(name, "timm", **options).values()) == list(found.values())
    assert ("layer1.0.downsample.0" in found.values()) == (name == "resnet_50")


# The number of tensors, and of their entries, in torchvision's published files; without num_batches_tracked.
@pytest.mark.parametrize(
    ("name", "options", "count", "parameters"),
    [
        ("alexnet_torchvision", {}, 16, 61_100_840),
        ("vgg_a", {}, 22, 132_863_336),
        ("vgg_d", {}, 32, 138_357_544),
        ("vgg_d_bn", {}, 32 + 13 * 4, 138_365_992),
        ("resnet_18", {}, 102, 11_689_512),
        ("resnet_50", {"stride": "v1.5"}, 267, 25_557_032),
        ("googlenet_torchvision", {}, 287 + 18, 13_004_888),
    ],
)
def test_counts(name, options, count, parameters):
    found = entries(abstract(name, **options), "torchvision")
    assert len(found) == len({entry.name for entry in found}) == count
    trained = [entry.shape for entry in found if not entry.name.endswith(("running_mean", "running_var"))]
    assert sum(map(math.prod, trained)) == parameters


def test_every_tensor_of_a_network_is_in_its_layout():
    for name, options in [("vgg_d_bn", {}), ("googlenet_torchvision", {}), ("resnet_50", {"stride": "v1.5"})]:
        model = abstract(name, **options)
        assert len(entries(model, "torchvision")) == len(jax.tree.leaves(nnx.state(model)))


@pytest.mark.parametrize(
    ("layout", "shape"),
    [("torchvision", {"classifier.0.weight": (4096, 25088)}), ("timm", {"pre_logits.fc1.weight": (4096, 512, 7, 7)})],
)
def test_shapes_of_the_first_full_connection(layout, shape):
    shapes = {entry.name: entry.shape for entry in entries(abstract("vgg_d"), layout)}
    assert shape.items() <= shapes.items()


@pytest.mark.parametrize("layout", ["torchvision", "timm"])
def test_each_number_goes_to_its_place(layout):
    model = abstract("vgg_a", input_shape=(64, 96, 3), width=1 / 64, num_classes=3)
    found = {entry.path: entry for entry in entries(model, layout)}
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 1, 2))
    weight = found["conv2_1/kernel"].outward(kernel)
    assert all(weight[o, i, h, w] == kernel[h, w, i, o] for h, w, i, o in np.ndindex(kernel.shape))
    height, width, channels, units = 2, 3, 8, 64
    matrix = rng.normal(size=(height * width * channels, units))
    weight = found["fc6/kernel"].outward(matrix).reshape(units, -1)
    for h, w, c in np.ndindex(height, width, channels):
        ours, theirs = (h * width + w) * channels + c, (c * height + h) * width + w
        np.testing.assert_array_equal(weight[:, theirs], matrix[ours])
    np.testing.assert_array_equal(found["fc6/kernel"].inward(found["fc6/kernel"].outward(matrix)), matrix)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet_50", {}, r"block 'layer2_0' has its stride in the 1x1 convolution.*stride='v1.5'"),
        ("resnet_18", {"preactivation": True}, r"block 'layer1_1' starts with 'bn1'"),
        ("lenet_5", {}, r"layer 's2' is a Subsampling, which torchvision does not have"),
    ],
)
def test_networks_without_a_counterpart(name, options, message):
    with pytest.raises(UsageError, match=message) as error:
        torch_layers(abstract(name, **options))
    assert "\n" not in str(error.value)


def test_what_a_state_dict_does_not_say_is_checked():
    rngs = nnx.Rngs(0)

    def network(**layers):
        return nn.Sequence({**layers, "flatten": nn.Flatten((4, 4, 2))})

    with pytest.raises(UsageError, match=r"'bn' has epsilon=0.1, but in torchvision it is 1e-05"):
        torch_layers(network(bn=nn.BatchNorm(2, epsilon=0.1, rngs=rngs)))
    with pytest.raises(UsageError, match="'conv' has a mask"):
        torch_layers(network(conv=nn.Conv(2, 2, (3, 3), mask=np.eye(2), rngs=rngs)))
    with pytest.raises(UsageError, match="three fully connected layers and not 0"):
        torch_layers(network(pool=nn.MaxPool((2, 2))), "timm")
    inception_resnet = {"a": nn.Residual({"pool": nn.MaxPool((1, 1))}), "b": nn.Parallel({"pool": nn.MaxPool((1, 1))})}
    with pytest.raises(UsageError, match="torchvision has no network of this structure"):
        torch_layers(nn.Sequence(inception_resnet))
    with pytest.raises(UsageError, match="use convolutionalize only after loading"):
        torch_layers(nn.Linear(2, 2, rngs=rngs))
