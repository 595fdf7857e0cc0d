"""The networks of the lectures: layers, shapes, depths and parameters against the slides."""

import functools

import pytest
from flax import nnx

from cnn_jax import geometry, models, nn


@functools.cache
def network(name):
    """An abstract network."""
    return nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0)))


@functools.cache
def table(name):
    """The rows of a network by name, in order."""
    return {row.name: row for row in geometry.trace(network(name), models.variant(name).input_shape)}


def depth(name):
    """The number of layers with kernels on the longest path through the network; an Inception module has two."""
    kernels = [path for path, part in nnx.iter_graph(network(name)) if isinstance(part, nn.Conv | nn.Linear)]
    modules, layers = {}, 0
    for module, *inside in kernels:
        if "shortcut" in inside:
            continue
        if module.startswith("inception"):
            branch = modules.setdefault(module, {})
            branch[inside[0]] = branch.get(inside[0], 0) + 1
        elif not module.startswith("aux"):
            layers += 1
    return layers + sum(max(branches.values()) for branches in modules.values())


def volumes(name, *layers):
    return [table(name)[layer].output_shape for layer in layers]


def test_000_putting_things_together_convolution_relu_pooling_and_full_connections():
    kinds = [row.kind for row in table("vgg_a").values()]
    assert kinds[:6] == ["Conv", "relu", "MaxPool"] * 2
    assert kinds[-1] == "Linear"
    assert set(kinds) == {"Conv", "relu", "MaxPool", "Flatten", "Linear", "Dropout"}


@pytest.mark.parametrize(
    ("name", "layers"),
    [("alexnet", 8), ("zfnet", 8), ("vgg_e", 19), ("googlenet", 22), ("resnet_152", 152)],
)
def test_001_depths_of_the_winners_from_8_to_152(name, layers):
    assert depth(name) == layers


def test_001_vgg_configurations_between_11_and_19_layers():
    assert [depth(f"vgg_{letter}") for letter in "abcde"] == [11, 13, 16, 16, 19]


# The slide, row by row: A, A-LRN, B, C, D, E; the pools between the rows and the full connections are common to all.
CONFIGURATIONS = """
C3D64  C3D64  C3D64  C3D64  C3D64  C3D64
-      LRN    C3D64  C3D64  C3D64  C3D64
M      M      M      M      M      M
C3D128 C3D128 C3D128 C3D128 C3D128 C3D128
-      -      C3D128 C3D128 C3D128 C3D128
M      M      M      M      M      M
C3D256 C3D256 C3D256 C3D256 C3D256 C3D256
C3D256 C3D256 C3D256 C3D256 C3D256 C3D256
-      -      -      C1D256 C3D256 C3D256
-      -      -      -      -      C3D256
M      M      M      M      M      M
C3D512 C3D512 C3D512 C3D512 C3D512 C3D512
C3D512 C3D512 C3D512 C3D512 C3D512 C3D512
-      -      -      C1D512 C3D512 C3D512
-      -      -      -      -      C3D512
M      M      M      M      M      M
C3D512 C3D512 C3D512 C3D512 C3D512 C3D512
C3D512 C3D512 C3D512 C3D512 C3D512 C3D512
-      -      -      C1D512 C3D512 C3D512
-      -      -      -      -      C3D512
M      M      M      M      M      M
FC4096 FC4096 FC4096 FC4096 FC4096 FC4096
FC4096 FC4096 FC4096 FC4096 FC4096 FC4096
FC1000 FC1000 FC1000 FC1000 FC1000 FC1000
"""


def cell(layer):
    """A layer in the notation of the slide."""
    match layer:
        case nn.Conv():
            return f"C{layer.kernel_size[0]}D{layer.out_features}"
        case nn.Linear():
            return f"FC{layer.out_features}"
        case nn.MaxPool():
            return "M"
        case nn.LocalResponseNorm():
            return "LRN"


@pytest.mark.parametrize(("column", "name"), list(enumerate(["a", "a_lrn", "b", "c", "d", "e"])))
def test_001_vgg_configurations_layer_by_layer(column, name):
    model = network(f"vgg_{name}")
    cells = [row.split()[column] for row in CONFIGURATIONS.strip().splitlines()]
    assert [cell(model.layer(layer)) for layer in model.names if cell(model.layer(layer))] == [
        text for text in cells if text != "-"
    ]


def test_001_alexnet_architecture_volumes_from_55_to_13():
    expected = [(55, 55, 96), (27, 27, 256), (13, 13, 384), (13, 13, 384), (13, 13, 256), (4096,), (4096,), (1000,)]
    layers = [*(f"conv{number}" for number in range(1, 6)), "fc6", "fc7", "fc8"]
    assert volumes("alexnet_ungrouped", *layers) == expected
    assert geometry.total(list(table("alexnet_ungrouped").values())).parameters == 62_378_344


def test_001_zfnet_architecture_volumes_with_512_and_1024_filters():
    expected = [(55, 55, 96), (13, 13, 256), (13, 13, 512), (13, 13, 1024), (13, 13, 512), (4096,), (4096,), (1000,)]
    layers = ["pool1", "pool2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    assert volumes("zfnet_wide", *layers) == expected
    assert volumes("zfnet", "conv3", "conv4", "conv5") == [(13, 13, 384), (13, 13, 384), (13, 13, 256)]


def test_001_alexnet_drops_half_and_pools_three_by_three_at_stride_two():
    parts = [part for _, part in nnx.iter_graph(network("alexnet"))]
    assert {part.rate for part in parts if isinstance(part, nn.Dropout)} == {0.5}
    assert {(part.window_shape, part.strides) for part in parts if isinstance(part, nn.MaxPool)} == {((3, 3), (2, 2))}


def test_001_interleaving_between_layers_crcrp_and_crcrcrp():
    letters = {"Conv": "C", "relu": "R", "MaxPool": "P"}
    rows = "".join(letters.get(row.kind, "-") for row in table("vgg_d").values())
    assert rows.split("-")[0] == "CRCRP" * 2 + "CRCRCRP" * 3


def test_001_most_parameters_lie_in_the_full_connections():
    for name in ("alexnet", "zfnet", "vgg_d"):
        rows = table(name).values()
        full = sum(row.parameters for row in rows if row.kind == "Linear")
        assert full > 0.85 * sum(row.parameters for row in rows)


def test_002_lenet_5_as_listed_has_61706_parameters():
    rows = table("lenet_5_modern")
    assert [row.parameters for row in rows.values() if row.parameters] == [156, 2416, 48120, 10164, 850]
    assert sum((156, 2416, 48120, 10164, 850)) == 61_706


def test_002_one_hidden_layer_with_two_neurons_has_1600_parameters():
    # 784 * 2 + 2 and 2 * 10 + 10.
    assert [row.parameters for row in table("mlp_two_neurons").values() if row.parameters] == [1_570, 30]


def test_002_alexnet_as_listed_flattens_to_256():
    # Without padding: 224 -> 54 -> 26 -> 22 -> 10 -> 8 -> 6 -> 4 -> 1.
    layers = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5"]
    assert [shape[0] for shape in volumes("alexnet_batch_norm", *layers)] == [54, 26, 22, 10, 8, 6, 4, 1]
    rows = table("alexnet_batch_norm")
    assert rows["flatten"].output_shape == (256,)
    norms = sum(row.parameters for row in rows.values() if row.kind == "BatchNorm")
    assert norms == 2 * (96 + 256 + 384 + 384 + 256)
    assert sum(row.parameters for row in rows.values()) - norms == 25_678_184


def test_002_network_changes_between_lenet_5_and_alexnet():
    # ReLU instead of tanh, the maximum instead of the average; batch normalisation and dropout are new.
    before, after = ({row.kind for row in table(name).values()} for name in ("lenet_5_modern", "alexnet_batch_norm"))
    assert before - after == {"tanh", "AvgPool"}
    assert after - before == {"relu", "MaxPool", "BatchNorm", "Dropout"}


def test_002_residual_connections_add_the_input_of_a_block_to_its_output():
    rows = table("resnet_18")
    assert rows["layer1_0/add"].kind == "add"
    assert rows["layer1_0/add"].output_shape == rows["maxpool"].output_shape == (56, 56, 64)


def test_004_classic_architecture_lenet_alternates_convolution_and_subsampling():
    rows = table("lenet_5")
    sizes = [rows[name].output_shape for name in ("c1", "s2", "c3", "s4", "c5")]
    assert sizes == [(28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (1, 1, 120)]
