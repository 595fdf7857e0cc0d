"""ResNets against the published counts, and the effects of their options."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import geometry, models
from cnn_jax.errors import UsageError
from cnn_jax.models.resnet import Depth, PaddedIdentity, resnet
from tests.compiled import compiled
from tests.models.traced import abstract, filled, table, total

PARAMETERS = {
    "resnet_18": 11_689_512,
    "resnet_34": 21_797_672,
    "resnet_50": 25_557_032,
    "resnet_101": 44_549_160,
    "resnet_152": 60_192_808,
    "resnet_20": 269_722,
    "resnet_32": 464_154,
    "resnet_44": 658_586,
    "resnet_56": 853_018,
    "resnet_110": 1_727_962,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published_ones(name: str) -> None:
    assert geometry.parameter_count(abstract(name)) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    [("resnet_18", 1_814_073_344), ("resnet_50", 3_857_973_248), ("resnet_20", 40_551_040)],
)
def test_multiply_adds_and_rows_add_up(name: str, multiply_adds: int) -> None:
    assert (total(name).multiply_adds, total(name).parameters) == (multiply_adds, PARAMETERS[name])


def test_projections_of_the_small_network_add_2752_parameters() -> None:
    assert geometry.parameter_count(abstract("resnet_20", shortcut="projection")) == 269_722 + 2_752
    assert geometry.parameter_count(abstract("resnet_20", shortcut="B")) == 269_722 + 2_752
    assert geometry.parameter_count(abstract("resnet_20", shortcut="A")) == 269_722


@pytest.mark.parametrize("name", ["resnet_18", "resnet_50"])
def test_maps_halve_from_stage_to_stage(name: str) -> None:
    rows = table(name)
    layers = ["conv1", "maxpool", *(f"layer{stage}_0/add" for stage in (1, 2, 3, 4))]
    assert [rows[layer].output_shape[:2] for layer in layers] == [(size, size) for size in (112, 56, 56, 28, 14, 7)]
    widths = [64, 128, 256, 512] if name == "resnet_18" else [256, 512, 1024, 2048]
    assert [rows[layer].output_shape[2] for layer in layers[2:]] == widths


def test_receptive_field_of_the_deepest_layer() -> None:
    field = table("resnet_50")["layer4_2/add"].receptive_field
    assert (field.size, field.jump) == ((483, 483), (32, 32))


def test_the_stride_moves_from_the_first_convolution_to_the_second() -> None:
    first, second = "layer2_0/branch/conv1", "layer2_0/branch/conv2"
    strides = {
        version: [rows[layer].strides for layer in (first, second)]
        for version, rows in {"v1": table("resnet_50"), "v1.5": table("resnet_50", stride="v1.5")}.items()
    }
    assert strides == {"v1": [(2, 2), (1, 1)], "v1.5": [(1, 1), (2, 2)]}
    assert total("resnet_50", stride="v1.5").parameters == PARAMETERS["resnet_50"]
    # The stride is in the 3x3 instead of the first 1x1 of stages 2 to 4: the latter has 4 times the positions.
    more = sum(3 * (size**2) * inputs * inputs // 2 for size, inputs in ((28, 256), (14, 512), (7, 1024)))
    assert total("resnet_50", stride="v1.5").multiply_adds == 3_857_973_248 + more


def test_the_padded_identity_takes_every_second_position_and_adds_zeros() -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
    y = np.asarray(PaddedIdentity(5, strides=(2, 2))(x))
    np.testing.assert_array_equal(y[..., :3], x[:, ::2, ::2])
    assert y.shape == (2, 3, 3, 5)
    assert not y[..., 3:].any()


def built(**options) -> nnx.Module:
    common = {"num_classes": 3, "input_shape": (8, 8, 3), "width": 0.25, "dtype": None, "rngs": nnx.Rngs(0)}
    return resnet(Depth((2, 1), cifar=True), **{**common, **options})


def small(**options) -> nnx.Module:
    model = filled(nnx.eval_shape(lambda: built(**options)))
    model.eval()
    return model


X = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)


def activations(model: nnx.Module) -> dict[str, jax.Array]:
    return compiled(lambda x: model(x, return_activations=True)[1])(X)


def drawn(choose: Callable[[nnx.Module], nnx.Variable], **options) -> np.ndarray:
    """One of the network's initial parameters; the others are not computed."""
    return np.asarray(compiled(lambda: choose(built(**options))[...])())


def test_blocks_start_as_their_shortcut_if_asked_to() -> None:
    for choose in (lambda model: model.layer1_0.branch.bn2.scale, lambda model: model.layer2_0.branch.bn2.scale):
        assert not drawn(choose, zero_init_residual=True).any()
        assert (drawn(choose) == 1).all()
    assert (drawn(lambda model: model.layer1_0.branch.bn1.scale, zero_init_residual=True) == 1).all()


def test_preactivation_leaves_nothing_in_the_way_of_the_identity() -> None:
    model = small(preactivation=True)
    for block in (model.layer1_0, model.layer1_1):
        block.branch.conv2.kernel[...] = jnp.zeros_like(block.branch.conv2.kernel[...])
    found = activations(model)
    assert (np.asarray(found["conv1"]) < 0).any()
    np.testing.assert_array_equal(found["layer1_1/add"], found["relu"])
    # The first block of a later stage has an activation before the branches, so it also affects the shortcut.
    shared = found["layer2_0_relu1"]
    projected = shared[:, ::2, ::2] @ model.layer2_0.shortcut.conv.kernel[0, 0]
    np.testing.assert_allclose(found["layer2_0/shortcut/conv"], projected, rtol=1e-4, atol=1e-5)
    assert list(found)[-4:] == ["bn_last", "relu_last", "avgpool", "fc"]


def test_a_block_is_the_sum_that_the_paper_draws() -> None:
    model = small(shortcut="identity")
    found = activations(model)
    block = model.layer2_0.branch

    before = np.asarray(found["layer1_1_relu"])
    bn2 = block.bn2
    y = (found["layer2_0/branch/conv2"] - bn2.mean[...]) / np.sqrt(bn2.var[...] + 1e-5) * bn2.scale[...] + bn2.bias[...]
    skipped = np.zeros_like(found["layer2_0/add"])
    skipped[..., : before.shape[-1]] = before[:, ::2, ::2]
    np.testing.assert_allclose(found["layer2_0/add"], y + skipped, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found["layer2_0_relu"], np.maximum(found["layer2_0/add"], 0))
    assert block.conv1.strides == (2, 2)


def test_convolutions_start_with_the_variance_of_the_paper() -> None:
    kernel = drawn(lambda model: model.layer1_0.branch.conv1.kernel, width=4.0)
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": "v2"}, "unknown stride='v2'; known: 'v1', 'v1.5'"),
        ({"shortcut": "projections"}, "did you mean 'projection'"),
        ({"zero_init_residual": True, "preactivation": True}, "zero_init_residual=True"),
        ({"strides": "v1"}, "did you mean 'stride'"),
    ],
)
def test_mistakes_are_named(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        nnx.eval_shape(lambda: models.create("resnet_50", rngs=nnx.Rngs(0), **options))
