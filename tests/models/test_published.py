"""Parameters, multiply-adds, sizes and connections of the networks against published numbers, without allocation.

If a paper gives no total, the number is computed from its table of layers, as noted next to it.
"""

import math
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import geometry, models, nn
from tests.compiled import compiled
from tests.models import traced
from tests.models.creation import create
from tests.models.traced import table

WINDOWS_OF_ONE = 256 * 256 + 256 + 2 * (512 * 512 + 512)  # VGG's C is B with three more 1x1 convolutions
# name: parameters, multiply-adds
TOTALS = {
    "logistic_regression": (7_850, 7_840),
    "mlp_two_neurons": (784 * 2 + 2 + 2 * 10 + 10, 784 * 2 + 2 * 10),
    "mlp": (784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10, 784 * 300 + 300 * 100 + 100 * 10),
    "lenet_1989": (9_760, 64_660 - 1_000),  # one connection of each unit is its bias
    "lenet_1": (2_578, 98_442 - 10 - 2304 - 768 - 2880 - 960),  # without biases and subsampling
    "lenet_5_modern": (61_706, 416_520),
    "alexnet": (60_965_224, 724_406_816),
    "alexnet_ungrouped": (62_378_344, 1_135_256_096),
    "alexnet_torchvision": (61_100_840, 714_188_480),
    "alexnet_batch_norm": (25_678_184 + 2_752, None),
    "zfnet": (62_357_608, 1_168_032_896),
    # Three wider convolutions, and twice the maps before FC6.
    "zfnet_wide": (
        62_357_608
        + 9 * (256 * 128 + 512 * 1024 - 384 * 384 + 1024 * 512 - 384 * 256)
        + (128 + 640 + 256 + 36 * 256 * 4096),
        None,
    ),
    "vgg_a": (132_863_336, None),
    "vgg_a_lrn": (132_863_336, None),
    "vgg_b": (133_047_848, None),
    "vgg_c": (133_047_848 + WINDOWS_OF_ONE, None),
    "vgg_d": (138_357_544, 15_470_264_320),
    "vgg_e": (143_667_240, None),
    "vgg_a_bn": (132_868_840, None),
    "vgg_a_lrn_bn": (132_868_840, None),
    "vgg_b_bn": (133_053_736, None),
    "vgg_c_bn": (133_053_736 + WINDOWS_OF_ONE + 2 * (256 + 512 + 512), None),
    "vgg_d_bn": (138_365_992, 15_470_264_320),
    "vgg_e_bn": (143_678_248, None),
    # Kernels, biases and norms of the three convolutions, and the output (Wang et al. 2017).
    "fcn_series": (
        (8 * 128 + 128) + (5 * 128 * 256 + 256) + (3 * 256 * 128 + 128) + 2 * (128 + 256 + 128) + (128 * 2 + 2),
        140 * (8 * 128 + 5 * 128 * 256 + 3 * 256 * 128) + 128 * 2,
    ),
    # Convolutions of the three blocks with biases and norms, their shortcuts, and the output.
    "resnet_series": (
        sum(
            8 * before * f + f + 5 * f * f + f + 3 * f * f + f + 3 * 2 * f + around
            for before, f, around in ((1, 64, 2 * 64 + 128), (64, 128, 64 * 128 + 128 + 256), (128, 128, 256))
        )
        + (128 * 2 + 2),
        None,
    ),
    "resnet_generator": (11_378_179, None),  # 11.378 million, as the authors' code prints
    "dcgan_generator": (3_576_704, None),  # of PyTorch's DCGAN example
    "text_cnn": (20_000 * 300 + 100 * 300 * (3 + 4 + 5) + 300 + 300 * 2 + 2, None),  # Kim 2014
    "small_cnn_1d": (3 * (32 + 32 * 64 + 64 * 64) + 2 * 160 + 10 * 64 * 128 + 128 + 1290, None),
    "small_cnn_3d": (27 * (32 + 32 * 64 + 64 * 64) + 2 * 160 + 7**3 * 64 * 128 + 128 + 1290, None),
    # ResNet-18 with 3x3x3 windows, 1x1x1 shortcuts, one input channel at full resolution, ten classes.
    "resnet_18_3d": (
        27 * (64 + 4 * 64**2 + 64 * 128 + 3 * 128**2 + 128 * 256 + 3 * 256**2 + 256 * 512 + 3 * 512**2)
        + (64 * 128 + 128 * 256 + 256 * 512)
        + 2 * (5 * 64 + 5 * 128 + 5 * 256 + 5 * 512)
        + 512 * 10
        + 10,
        None,
    ),
}
# Each size in the paper's figure or table, and the next.
SIZES = {
    "lenet_1989": [16, 8, 4],
    "lenet_1": [28, 24, 12, 8, 4],
    "lenet_5": [32, 28, 14, 10, 5, 1],
    "lenet_5_modern": [32, 28, 14, 10, 5],
    "alexnet": [227, 55, 27, 27, 13, 13, 13, 13, 6],
    "alexnet_torchvision": [224, 55, 27, 27, 13, 13, 13, 13, 6],
    "alexnet_batch_norm": [224, 54, 26, 22, 10, 8, 6, 4, 1],
    "zfnet": [224, 110, 55, 26, 13, 13, 13, 13, 6],
    "zfnet_wide": [224, 110, 55, 26, 13, 13, 13, 13, 6],
    "vgg_a_lrn": [224, 112, 56, 28, 14, 7],
    "vgg_e_bn": [224, 112, 56, 28, 14, 7],
    "neocognitron": [16, 16, 10, 8, 6, 2, 1],
}
# Receptive field and jump of a layer: from Araujo, Norris and Sim (2019) for AlexNet, net D and ResNets 50 to 152; else
# sums by hand of (window - 1) times the jump before it.
FIELDS = {
    "lenet_1989": ("h2", 13, 4),
    "lenet_1": ("h4", 16, 4),
    "lenet_5": ("c5", 32, 4),
    "lenet_5_modern": ("s4", 16, 4),
    "neocognitron": ("c3", 45, 4),
    **dict.fromkeys(("conv_autoencoder", "conv_encoder"), ("conv2", 10, 4)),  # 4 and 4 + 3 * 2
    **{name: ("pool5", 195, 32) for name in models.available() if name.startswith("alexnet")},
    **dict.fromkeys(("zfnet", "zfnet_wide"), ("pool5", 171, 32)),
    **{f"vgg_{net}": ("pool5", 150, 32) for net in ("a", "a_bn", "a_lrn", "a_lrn_bn")},
    **{f"vgg_{net}": ("pool5", 156, 32) for net in ("b", "b_bn", "c", "c_bn")},
    **{f"vgg_{net}": ("pool5", 212, 32) for net in ("d", "d_bn")},
    **{f"vgg_{net}": ("pool5", 268, 32) for net in ("e", "e_bn")},
    **dict.fromkeys(("googlenet", "inception_naive"), ("inception5b/concatenate", 715, 32)),
    "googlenet_torchvision": ("inception5b/concatenate", 379, 32),
    "inception_resnet_v1": ("c_4/add", 1567, 32),
    "resnet_18": ("layer4_1/add", 435, 32),
    "resnet_34": ("layer4_2/add", 899, 32),
    "resnet_50": ("layer4_2/add", 483, 32),
    "resnet_101": ("layer4_2/add", 1027, 32),
    "resnet_152": ("layer4_2/add", 1507, 32),
    **{f"resnet_{6 * n + 2}": (f"layer3_{n - 1}/add", 28 * n - 3, 4) for n in (3, 5, 7, 9, 18)},
    "airbench": ("maxpool", 67, 24),
    **dict.fromkeys(("small_cnn", "small_cnn_1d", "small_cnn_3d", "localizer"), ("conv3", 18, 4)),
    **dict.fromkeys(
        ("captioner", "detector"), ("layer3_1/add", 435 - 2 * 16 - 3 * 2 * 32, 16)
    ),  # ResNet-18 without its last stage
    "fcn_series": ("conv3", 14, 1),
    "resnet_series": ("block3/add", 40, 1),
    "resnet_18_3d": ("layer4_1/add", 109, 8),
    "sound_cnn": ("conv3", 2688, 512),  # in samples: frames of 512, 128 apart
    "conv_stack": ("pool2", 22, 4),
    **dict.fromkeys(("u_net", "u_net_padded"), ("pool4", 76, 16)),
    "segnet": ("pool5", 212, 32),  # VGG-16's
    "resnet_generator": ("block9/add", 7 + 2 + 4 + 18 * 8, 4),
    **dict.fromkeys(("fcn_32s", "fcn_16s", "fcn_8s"), ("fc6", 404, 32)),
}
# The same for several layers of a network.
FIELDS_BY_LAYER = {
    "lenet_5": {"c1": (5, 1), "s2": (6, 2), "c3": (14, 2), "s4": (16, 4), "c5": (32, 4)},
    "alexnet": {
        "conv1": (11, 4),
        "pool1": (19, 8),
        "conv2": (51, 8),
        "pool2": (67, 16),
        "conv3": (99, 16),
        "conv4": (131, 16),
        "conv5": (163, 16),
        "pool5": (195, 32),
    },
    "vgg_d": {"conv5_3": (196, 16), "pool5": (212, 32)},
}
# Billions of multiply-adds, rounded as in torchvision's documentation; its ResNets from 50 on have version 1.5.
BILLIONS = {
    "alexnet_torchvision": 0.71,
    "googlenet_torchvision": 1.5,
    **{f"vgg_{net}": billions for net, billions in (("a", 7.61), ("b", 11.31), ("d", 15.47), ("e", 19.63))},
    **{f"vgg_{net}_bn": billions for net, billions in (("a", 7.61), ("b", 11.31), ("d", 15.47), ("e", 19.63))},
    "resnet_18": 1.81,
    "resnet_34": 3.66,
    "resnet_50": 4.09,
    "resnet_101": 7.80,
    "resnet_152": 11.51,
}


# Tracing takes seconds, and their blocks are those of the shallower ResNets.
DEEP = ("resnet_44", "resnet_56", "resnet_110", "resnet_101", "resnet_152")


def deep_ones_slow(names: Iterable[str]) -> list[Any]:
    """The names as parameters of a test; the deep networks are for the slow run."""
    return [pytest.param(name, marks=pytest.mark.slow if name in DEEP else ()) for name in names]


@pytest.mark.parametrize("name", TOTALS)
def test_totals(name: str) -> None:
    total = traced.total(name)
    parameters, multiply_adds = TOTALS[name]
    assert total.parameters == parameters
    assert multiply_adds in (None, total.multiply_adds)


@pytest.mark.parametrize("name", deep_ones_slow(FIELDS))
def test_fields(name: str) -> None:
    layer, size, jump = FIELDS[name]
    row, rank = table(name)[layer], len(models.variant(name).input_shape) - 1
    assert (row.receptive_field.size, row.receptive_field.jump) == ((size,) * rank, (jump,) * rank)


@pytest.mark.parametrize("name", FIELDS_BY_LAYER)
def test_fields_layer_by_layer(name: str) -> None:
    rows = table(name)
    found = {layer: rows[layer].receptive_field for layer in FIELDS_BY_LAYER[name]}
    expected = {layer: ((size, size), (jump, jump)) for layer, (size, jump) in FIELDS_BY_LAYER[name].items()}
    assert {layer: (field.size, field.jump) for layer, field in found.items()} == expected


def test_every_network_with_maps_has_its_field_here() -> None:
    others = {"logistic_regression", "mlp", "mlp_two_neurons", "text_cnn", "dcgan_generator", "voxel_classifier"}
    assert {*models.available()} - {*FIELDS} == others


@pytest.mark.parametrize("name", deep_ones_slow(BILLIONS))
def test_multiply_adds_are_those_of_torchvisions_documentation(name: str) -> None:
    options = {"stride": "v1.5"} if name.startswith("resnet") else {}
    assert round(traced.total(name, **options).multiply_adds / 1e9, 2) == BILLIONS[name]


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    first, *expected = SIZES[name]
    assert models.variant(name).input_shape[:2] == (first, first)
    halving = name.startswith("vgg")  # its convolutions keep the size and are not in the list
    sized = [row for row in table(name).values() if row.kernel_size and (not halving or row.kind == "MaxPool")]
    found = [row.output_shape[0] for row in sized]
    assert [row.output_shape[0] for row in sized] == [row.output_shape[1] for row in sized]
    assert found == expected[-len(found) :]
    assert len(found) == len(expected)


@pytest.mark.parametrize("name", [*TOTALS, *SIZES])
def test_the_default_is_the_published_task(name: str) -> None:
    imagenet = name.startswith(("alexnet", "zfnet", "vgg"))
    others = {"neocognitron": 24, "fcn_series": 2, "resnet_series": 2, "text_cnn": 2}
    images = {"dcgan_generator": (64, 64, 3), "resnet_generator": (256, 256, 3)}
    shape = images.get(name, (others.get(name, 1000 if imagenet else 10),))
    assert list(table(name).values())[-1].output_shape == shape


def test_lenet_5_has_60000_trained_parameters() -> None:
    parameters = {row.name: row.parameters for row in table("lenet_5").values() if row.parameters}
    assert parameters == {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164}


def test_lenet_1989_has_1256_units() -> None:
    rows = table("lenet_1989")
    units = 16 * 16 + sum(math.prod(rows[name].output_shape) for name in ("h1", "h2", "h3", "output"))
    assert units == 1_256
    assert [rows[name].parameters for name in ("h1", "h2", "h3", "output")] == [1_068, 2_592, 5_790, 310]


CONNECTIONS = {
    "lenet_1989": {"h1": 19_968, "h2": 38_592, "h3": 5_790, "output": 310},
    "lenet_1": {"h1": 59_904, "h2": 2_880, "h3": 32_768, "h4": 960, "output": 1_930},
    "lenet_5": {"c1": 122_304, "s2": 5_880, "c3": 151_600, "s4": 2_000, "c5": 48_120, "f6": 10_164, "output": 840},
}
TOTAL_CONNECTIONS = {"lenet_1989": 64_660, "lenet_1": 98_442, "lenet_5": 340_908}


@pytest.mark.parametrize("name", CONNECTIONS)
def test_connections(name: str) -> None:
    """If all weights and inputs of a layer are 1, the value of a unit is the number of its connections."""
    model = create(name)
    shapes = {row.name: row.output_shape for row in table(name).values()}
    shape, counts = models.variant(name).input_shape, {}
    for layer_name in model.names:
        layer = model.layer(layer_name)
        if layer_name in CONNECTIONS[name]:
            for attribute in ("kernel", "coefficient", "bias"):
                if hasattr(layer, attribute):
                    getattr(layer, attribute)[...] = jnp.ones_like(getattr(layer, attribute)[...])
            if isinstance(layer, nn.TableConv) and layer.boundary == "constant":
                layer.boundary_value = 1.0
            if isinstance(layer, nn.RBFOutput):
                layer.centers[...] = jnp.zeros_like(layer.centers[...])
            counts[layer_name] = int(compiled(lambda x, layer=layer: layer(x).sum())(np.ones((1, *shape), np.float32)))
        shape = shapes[layer_name]
    assert counts == CONNECTIONS[name]
    assert sum(counts.values()) == TOTAL_CONNECTIONS[name]


def test_width_scales_hidden_channels_and_keeps_groups_whole() -> None:
    model = nnx.eval_shape(lambda: models.create("alexnet", width=0.3, num_classes=5, rngs=nnx.Rngs(0)))
    shapes = {row.name: row.output_shape[-1] for row in geometry.trace(model, (227, 227, 3))}
    assert [shapes[name] for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")] == [
        *(28, 76, 116, 116, 76),  # 28.8, 76.8 and 115.2, to the nearest even number
        *(1229, 1229, 5),
    ]
