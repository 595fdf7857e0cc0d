"""Loading and saving without PyTorch."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from cnn_jax import models, nn, weights
from cnn_jax.errors import UsageError
from cnn_jax.weights.about import IMAGENET_MEAN, IMAGENET_STD
from cnn_jax.weights.layouts import entries, paths
from tests.weights.networks import VGG, abstract, drawn


def tensors(model):
    return {path: np.asarray(leaf) for path, leaf in paths(nnx.state(model)).items()}


def assert_same(one, other):
    one, other = tensors(one), tensors(other)
    assert one.keys() == other.keys()
    for path, array in one.items():
        assert array.dtype == other[path].dtype
        np.testing.assert_array_equal(array, other[path], err_msg=path)


@pytest.fixture(autouse=True)
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.parametrize("layout", weights.LAYOUTS)
def test_round_trip(tmp_path, layout):
    model = drawn(abstract("vgg_a_bn", num_classes=5, **VGG))
    path = tmp_path / "x.safetensors"
    weights.save(model, path, layout=layout)
    loaded = weights.load(abstract("vgg_a_bn", num_classes=5, **VGG), path)
    assert loaded.layout == layout
    assert loaded.about == weights.About()
    if layout == "cnn_jax":
        x = np.ones((1, 32, 32, 3), np.float32)
        np.testing.assert_array_equal(loaded(x), loaded.model(x))
    assert_same(loaded.model, model)


@pytest.mark.parametrize("name", ["lenet_5", "lenet_1989", "airbench"])
def test_any_network_of_ours(tmp_path, name):
    """Also networks with fixed codes, connection tables and scales."""
    model = drawn(abstract(name, width=0.25))
    weights.save(model, tmp_path / "x.safetensors", about=weights.About(name, {"width": 0.25}))
    assert_same(weights.create(tmp_path / "x.safetensors").model, model)


def test_masks_come_along(tmp_path):
    mask = np.array([[True, False], [False, True]])
    model = nn.Sequence({"conv": nn.Conv(2, 2, (3, 3), mask=mask, rngs=nnx.Rngs(0))})
    weights.save(model, tmp_path / "x.safetensors")
    loaded = weights.load(nnx.eval_shape(lambda: model), tmp_path / "x.safetensors").model
    np.testing.assert_array_equal(loaded.conv.mask, mask)
    assert loaded.conv.mask.dtype == bool


def test_types_of_numbers(tmp_path):
    model = nn.Sequence({"fc": nn.Linear(2, 3, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))})
    weights.save(model, tmp_path / "x.safetensors")
    assert_same(weights.load(model, tmp_path / "x.safetensors").model, model)
    wide = nn.Sequence({"fc": nn.Linear(2, 3, rngs=nnx.Rngs(1))})
    kernel = weights.load(wide, tmp_path / "x.safetensors").model.fc.kernel[...]
    assert kernel.dtype == jnp.float32
    np.testing.assert_array_equal(kernel, model.fc.kernel[...].astype(jnp.float32))


def test_what_is_known_comes_along(tmp_path):
    about = weights.About(
        "vgg_a", {"num_classes": 3, **VGG}, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), class_names=("cat", "dog", "owl")
    )
    model = drawn(abstract("vgg_a", num_classes=3, **VGG))
    for layout in weights.LAYOUTS:
        weights.save(model, tmp_path / "x.safetensors", layout=layout, about=about)
        loaded = weights.create(tmp_path / "x.safetensors", dtype=jnp.bfloat16)
        assert loaded.about == about
        assert_same(loaded.model, model)
        assert loaded.model.fc8.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("name", "options", "mean"),
    [
        ("vgg_a", {"num_classes": 1000, **VGG}, (0.485, 0.456, 0.406)),
        ("vgg_a", {"num_classes": 10, **VGG}, None),
        ("vgg_a", {"num_classes": 1000, "input_shape": (32, 32, 1), "width": 1 / 64}, None),
    ],
)
def test_normalisation_of_imagenet(tmp_path, name, options, mean):
    model = abstract(name, **options)
    weights.save(drawn(model), tmp_path / "x.safetensors", layout="torchvision")
    about = weights.load(model, tmp_path / "x.safetensors").about
    assert about.mean == mean
    assert about.std == (mean and (0.229, 0.224, 0.225))


def test_googlenets_normalisation_is_what_torchvision_makes_of_its_inputs():
    """Its ``transform_input``: x * (std / 0.5) + (mean - 0.5) / 0.5, of inputs normalised as for ImageNet."""
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    pixels = np.random.default_rng(0).uniform(size=(4, 4, 3))
    theirs = (pixels - mean) / std * (std / 0.5) + (mean - 0.5) / 0.5
    model = abstract("googlenet_torchvision")
    about = weights.load(model, {entry.name: np.zeros(entry.shape) for entry in entries(model, "torchvision")}).about
    np.testing.assert_allclose((pixels - np.array(about.mean)) / np.array(about.std), theirs, rtol=1e-6)


def test_config_of_timm_beside_the_weights(tmp_path):
    model = abstract("vgg_a", num_classes=3, **VGG)
    weights.save(drawn(model), tmp_path / "model.safetensors", layout="timm")
    config = {"architecture": "vgg11", "pretrained_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1]}}
    (tmp_path / "config.json").write_text(json.dumps({**config, "label_names": {"0": "cat", "2": "owl"}}))
    about = weights.load(model, tmp_path).about  # a folder with the files of a repository on the hub
    assert (about.mean, about.std, about.class_names) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1), ("cat", "", "owl"))
    assert about.architecture == "vgg_a"
    # Its blurred ResNet has the same tensors as the plain one, and would load without an error.
    (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "resnetblur50"}))
    with pytest.raises(
        UsageError, match=r"config\.json beside the weights: timm's 'resnetblur50' is not one of the supported networks"
    ):
        weights.load(model, tmp_path)
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(UsageError, match=r"config\.json beside the weights is not in timm's format"):
        weights.load(model, tmp_path)


def test_networks_of_timm_are_built_from_their_config(tmp_path):
    options = {"num_classes": 3, "stride": "v1.5"}
    model = abstract("resnet_18", **options)
    weights.save(drawn(model), tmp_path / "model.safetensors", layout="timm")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "num_classes": 3}))
    loaded = weights.create(tmp_path)
    assert_same(loaded.model, drawn(model))
    assert loaded.about.options == options


def test_what_does_not_fit_is_a_table_and_changes_nothing():
    model = drawn(abstract("vgg_a", num_classes=3, **VGG))
    before = tensors(model)
    changed = {path: array + 1 for path, array in before.items()}
    changed["conv9_1/kernel"] = changed.pop("conv1_1/kernel")
    changed["fc6/bias"] = np.ones((2, 2))
    with pytest.raises(UsageError) as error:
        weights.load(model, changed)
    lines = str(error.value).splitlines()
    assert lines[0] == (
        "weights: the state dict does not fit the model: 1 missing, 1 unexpected, 1 mismatched of 22 tensors; "
        "create the network that the weights belong to"
    )
    assert lines[1:] == [
        "  tensor          in the file   in the model",
        "  conv1_1/kernel  -             (3, 3, 3, 1)",
        "  conv9_1/kernel  (3, 3, 3, 1)  -",
        "  fc6/bias        (2, 2)        (64,)",
    ]
    assert_same(model, drawn(abstract("vgg_a", num_classes=3, **VGG)))


@pytest.mark.parametrize("layout", ["cnn_jax", "torchvision"])
def test_another_number_of_classes_has_a_fix(tmp_path, layout):
    weights.save(drawn(abstract("vgg_a", num_classes=3, **VGG)), tmp_path / "x.safetensors", layout=layout)
    with pytest.raises(
        UsageError,
        match=r"2 mismatched of 22 tensors; create the network with num_classes=3, .*; or keep .* with adapt=True",
    ):
        weights.load(abstract("vgg_a", num_classes=4, **VGG), tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("name", "options", "change", "fix"),
    [
        ("lenet_5", {}, {"num_classes": 26}, "num_classes=26"),
        ("resnet_20", {"width": 0.25}, {"num_classes": 4}, "num_classes=4"),
        ("mlp", {}, {"hidden_sizes": (7, 100)}, "create the network that the weights belong to"),
        ("logistic_regression", {}, {"input_shape": (8, 8, 1)}, "create the network that the weights belong to"),
    ],
)
def test_classes_are_only_suspected_where_they_are(name, options, change, fix):
    state = nnx.state(abstract(name, **options, **change))
    theirs = {path: np.zeros(leaf.shape, np.float32) for path, leaf in paths(state).items()}
    with pytest.raises(UsageError, match=fix):
        weights.load(abstract(name, **options), theirs)


def test_another_variant_is_an_error(tmp_path):
    weights.save(drawn(abstract("vgg_a", **VGG)), tmp_path / "x.safetensors", layout="torchvision")
    with pytest.raises(UsageError, match="86 missing, 6 unexpected, 8 mismatched of 102 tensors") as error:
        weights.load(abstract("vgg_e_bn", **VGG), tmp_path / "x.safetensors")
    assert str(error.value).splitlines()[-1].startswith("  and ")
    assert len(str(error.value).splitlines()) == 43


def test_the_model_given_stays_as_it_was():
    model = drawn(abstract("vgg_a", num_classes=3, **VGG))
    before = tensors(model)
    loaded = weights.load(model, {path: array + 1 for path, array in before.items()}).model
    assert loaded is not model
    for path, array in tensors(model).items():
        np.testing.assert_array_equal(array, before[path])
        np.testing.assert_allclose(tensors(loaded)[path], before[path] + 1, rtol=1e-6)


def test_needs_pytorch_for_its_files(tmp_path):
    model = drawn(abstract("vgg_a", num_classes=3, **VGG))
    (tmp_path / "x.pth").write_bytes(b"\x80\x02")
    line = r"^weights: .* needs PyTorch: pip install -e '.\[torch\]'; or use .safetensors, which does not need it$"
    with pytest.raises(UsageError, match=line):
        weights.load(model, tmp_path / "x.pth")
    with pytest.raises(UsageError, match=line):
        weights.save(model, tmp_path / "y.pth", layout="torchvision")
    with pytest.raises(UsageError, match=line):
        weights.to_torch(model)
    assert not (tmp_path / "y.pth").exists()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, path: weights.save(model, path / "x.npz"), r"must end in \.safetensors, \.pth, \.pt or \.bin"),
        (
            lambda model, path: weights.save(model, path / "x.pth"),
            r"give layout='torchvision', or save a \.safetensors",
        ),
        (lambda model, path: weights.save(model, path / "x.safetensors", layout="tim"), r"did you mean 'timm'\?"),
        (
            lambda model, path: weights.save(model, path / "x.safetensors", about=weights.About("vgg_dd")),
            "did you mean 'vgg_d'",
        ),
        (lambda model, path: weights.to_torch(model, layout="cnn_jax"), r"layout='torchvision' or 'timm'"),
        (lambda model, path: weights.load(model, path / "none.safetensors"), "there is no file"),
        (
            lambda model, path: weights.load(model, "vgg16"),
            r"there is no file 'vgg16', and it is not a name on the hub",
        ),
        (lambda model, path: weights.load(model, path / "README"), "README is empty; download or copy it again"),
        (lambda model, path: weights.load(model, path / "cut.safetensors"), "is not a complete safetensors file"),
        (lambda model, path: weights.load(model, path), r"the folder .* has no model\.safetensors"),
        (
            lambda model, path: weights.load(model, {"a": np.array(["b"])}),
            r"must map names to tensors, but .*'a' \(ndarray",
        ),
        (
            lambda model, path: weights.save(model, path / "none" / "x.safetensors"),
            "there is no folder .*create it first",
        ),
        (lambda model, path: weights.save(abstract("mlp"), path / "x.safetensors"), "has no values to save"),
        (lambda model, path: weights.load(model, {"a": 1.0}), r"must map names to tensors, but .*'a' \(float"),
        (lambda model, path: weights.create(path / "other.safetensors"), "does not name its network"),
        (lambda model, path: weights.create(path / "newer.safetensors"), "may be from another version"),
        (lambda model, path: weights.About(mean=(0.5,)), "must have one value per channel each"),
        (lambda model, path: weights.About(mean=(0.5,), std=(0.0,)), "must be positive"),
        (lambda model, path: weights.About(options={"norm": nn.BatchNorm}), "cannot be written as JSON"),
    ],
)
def test_mistakes_are_one_line(tmp_path, call, message):
    model = models.create("mlp_two_neurons", rngs=nnx.Rngs(0))
    whole = safetensors.numpy.save({"a": np.ones(100)})
    (tmp_path / "cut.safetensors").write_bytes(whole[:200])
    (tmp_path / "other.safetensors").write_bytes(whole)
    newer = {"cnn_jax": '{"licence": "MIT"}'}
    (tmp_path / "newer.safetensors").write_bytes(safetensors.numpy.save({"a": np.ones(1)}, metadata=newer))
    (tmp_path / "README").touch()
    with pytest.raises(UsageError, match=message) as error:
        call(model, tmp_path)
    assert "\n" not in str(error.value)
