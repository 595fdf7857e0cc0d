"""AlexNet, ZFNet and VGG: the names and order of their layers, initial values, and dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import geometry, models, nn
from tests.compiled import compiled
from tests.models.creation import create

ALEXNET_ENDS = ["flatten", "fc6", "fc6_relu", "fc6_dropout", "fc7", "fc7_relu", "fc7_dropout", "fc8"]


def abstract(name: str, **options) -> nn.Sequence:
    return nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **options))


def test_layers_are_named_as_in_the_papers() -> None:
    assert list(abstract("alexnet").names) == [
        *("conv1", "conv1_relu", "norm1", "pool1", "conv2", "conv2_relu", "norm2", "pool2"),
        *("conv3", "conv3_relu", "conv4", "conv4_relu", "conv5", "conv5_relu", "pool5"),
        *ALEXNET_ENDS,
    ]
    assert list(abstract("zfnet").names)[:8] == [
        *("conv1", "conv1_relu", "pool1", "norm1", "conv2", "conv2_relu", "pool2", "norm2"),
    ]
    names = list(abstract("vgg_c_bn").names)
    assert names[:7] == ["conv1_1", "conv1_1_bn", "conv1_1_relu", "conv1_2", "conv1_2_bn", "conv1_2_relu", "pool1"]
    assert [name for name in names if name.startswith("conv4") and "_" not in name[6:]] == [
        *("conv4_1", "conv4_2", "conv4_3"),
    ]
    assert names[-8:] == ALEXNET_ENDS
    assert list(abstract("vgg_a_lrn").names)[:4] == ["conv1_1", "conv1_1_relu", "norm1", "pool1"]


def test_fc7_is_an_activation_before_and_after_its_rectifier() -> None:
    model = create("vgg_a", width=1 / 64, input_shape=(32, 32, 3), num_classes=3)
    output, activations = compiled(lambda x: model(x, return_activations=True))(jnp.ones((2, 32, 32, 3)))
    assert list(activations) == list(model.names)
    np.testing.assert_array_equal(activations["fc7_relu"], np.maximum(activations["fc7"], 0))
    np.testing.assert_array_equal(activations["fc8"], output)


def test_vgg_c_has_windows_of_one_pixel() -> None:
    kernels = {row.name: row.kernel_size for row in geometry.trace(abstract("vgg_c"), (224, 224, 3))}
    assert [name for name, size in kernels.items() if size == (1, 1)] == ["conv3_3", "conv4_3", "conv5_3"]


def test_alexnets_numbers() -> None:
    model = abstract("alexnet")
    groups = [model.layer(f"conv{index}").feature_group_count for index in range(1, 6)]
    assert groups == [1, 2, 1, 2, 2]
    norm = model.norm1
    assert (norm.size, norm.alpha, norm.beta, norm.k, norm.convention) == (5, 1e-4, 0.75, 2.0, "paper")
    assert (model.pool1.window_shape, model.pool1.strides) == ((3, 3), (2, 2))
    assert all(
        layer.feature_group_count == 1 for layer in (abstract("alexnet_ungrouped").conv2, abstract("zfnet").conv2)
    )


def test_alexnet_starts_as_published() -> None:
    model = create("alexnet", width=0.25, input_shape=(67, 67, 3))
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        layer = model.layer(name)
        assert np.asarray(layer.kernel[...]).std() == pytest.approx(0.01, rel=0.05), name
        value = 1.0 if name in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0.0
        assert (np.asarray(layer.bias[...]) == value).all(), name


def test_torchvisions_alexnet_starts_as_torch_does() -> None:
    model = create("alexnet_torchvision", width=0.25, input_shape=(67, 67, 3))
    for layer, fan_in in ((model.conv1, 363), (model.conv2, 25 * 16), (model.fc7, 1024)):
        bound = 1 / np.sqrt(fan_in)
        for values in (np.asarray(layer.kernel[...]), np.asarray(layer.bias[...])):
            assert np.abs(values).max() <= bound
            assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.3)


@pytest.mark.parametrize(
    ("name", "std"),
    [("vgg_a", 0.01), ("vgg_d", np.sqrt(2 / (2304 + 1152))), ("vgg_a_bn", np.sqrt(2 / 576))],
)
def test_vggs_start_by_their_rule(name: str, std: float) -> None:
    """conv2_1 of nets A and D at full width is 3x3x64x128, so the fan-in is 576 and the fan-out is 1152."""
    layer = "conv2_1" if name != "vgg_d" else "conv3_1"  # 3x3x128x256: 1152 and 2304
    small = create(name, input_shape=(32, 32, 3), width=1.0 if name == "vgg_d" else 0.5)
    kernel = np.asarray(small.layer(layer).kernel[...])
    if name == "vgg_a_bn":
        std = np.sqrt(2 / (9 * 32))
    assert kernel.std() == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize(("name", "first"), [("alexnet", False), ("alexnet_torchvision", True)])
def test_dropout_drops_inputs_or_outputs(name: str, first: bool) -> None:
    model = create(name, width=1 / 16, input_shape=(67, 67, 3), num_classes=3)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 67, 67, 3)), jnp.float32)
    run = compiled(lambda x: model(x, train=True, rngs=jax.random.key(0), return_activations=True))
    _, activations = run(x)
    names = list(activations)
    assert (names.index("fc6_dropout") < names.index("fc6")) == first
    before = activations["flatten" if first else "fc6_relu"]
    after = activations["fc6_dropout"]
    kept = np.asarray(after != 0)
    np.testing.assert_allclose(np.asarray(after)[kept], 2 * np.asarray(before)[kept], rtol=1e-6)
    assert 0.2 < kept[np.asarray(before) != 0].mean() < 0.8
    assert "fc8_dropout" not in names


def test_torchvisions_alexnet_takes_images_of_any_size() -> None:
    shapes = {}
    for size in (96, 224):
        model = abstract("alexnet_torchvision", input_shape=(size, size, 3))
        shapes[size] = model.fc6.kernel.shape
    assert shapes[96] == shapes[224] == (9216, 4096)
    assert abstract("vgg_d", input_shape=(96, 96, 3), adaptive_pool=(7, 7)).fc6.kernel.shape == (25088, 4096)
