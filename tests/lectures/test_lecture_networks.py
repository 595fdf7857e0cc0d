"""The networks of the lectures: layers, shapes, depths and parameters against the slides."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.datasets import load_digits

from cnn_jax import geometry, models, nn, ops
from tests.lectures.exact import parameters


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


def test_000_stride_in_layer_1_of_resnet_halves_the_image():
    rows = table("resnet_18")
    assert rows["conv1"].strides == (2, 2)
    assert rows["conv1"].output_shape == (112, 112, 64)


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


def test_001_vgg_configuration_c_has_one_by_one_convolutions():
    model = network("vgg_c")
    small = [
        model.layer(name) for name in model.names if cell(model.layer(name)) and cell(model.layer(name))[:2] == "C1"
    ]
    assert [(layer.in_features, layer.out_features) for layer in small] == [(256, 256), (512, 512), (512, 512)]
    # They keep the footprint and add to network B one matrix and one bias for each.
    assert parameters(model) - parameters(network("vgg_b")) == 256 * 257 + 2 * 512 * 513


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


def test_002_how_many_weights_between_s2_and_c3():
    rows = table("lenet_5_modern")
    assert rows["s2"].output_shape == (14, 14, 6)
    assert rows["c3"].output_shape == (10, 10, 16)
    assert rows["c3"].parameters - 16 == 16 * 6 * 5 * 5 == 2_400


def test_002_poll_1_logistic_regression_has_10_times_784_weights_and_10_biases():
    assert models.variant("logistic_regression").input_shape == (28, 28, 1)
    assert parameters(network("logistic_regression")) == 10 * 784 + 10 == 7_850


def test_002_poll_2_logistic_regression_fits_1000_digits():
    digits = load_digits()
    images, labels = jnp.asarray(digits.images[:1000, ..., None] / 16), jnp.asarray(digits.target[:1000])
    model = models.create("logistic_regression", input_shape=(8, 8, 1), rngs=nnx.Rngs(0))
    graph, start = nnx.split(model, nnx.Param)

    def loss(weights):
        return ops.softmax_cross_entropy(nnx.merge(graph, weights)(images), labels).mean()

    tx = optax.adam(0.05)

    @jax.jit
    def train(weights):
        def step(_, state):
            weights, moments = state
            updates, moments = tx.update(jax.grad(loss)(weights), moments)
            return optax.apply_updates(weights, updates), moments

        return jax.lax.fori_loop(0, 1000, step, (weights, tx.init(weights)))[0]

    predicted = nnx.merge(graph, train(start))(images).argmax(-1)
    assert (predicted == labels).all()


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
    # relu(F(x) + x): without the weights of F what is left of a block is its input, and F alone is what it adds.
    conv1, conv2 = (nn.Conv(4, 4, (3, 3), rngs=nnx.Rngs(seed)) for seed in (0, 1))
    block = nn.Residual({"conv1": conv1, "relu": ops.relu, "conv2": conv2})
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 5, 6, 4)))
    np.testing.assert_allclose(block(x) - block.branch(x), x, atol=1e-12)
    block.branch.conv2.kernel[...] = jnp.zeros_like(block.branch.conv2.kernel[...])
    np.testing.assert_array_equal(block(x), x)
    rows = table("resnet_18")
    assert rows["layer1_0/add"].kind == "add"
    assert rows["layer1_0/add"].output_shape == rows["maxpool"].output_shape == (56, 56, 64)


def test_004_classic_architecture_lenet_alternates_convolution_and_subsampling():
    rows = table("lenet_5")
    sizes = [rows[name].output_shape for name in ("c1", "s2", "c3", "s4", "c5")]
    assert sizes == [(28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (1, 1, 120)]
