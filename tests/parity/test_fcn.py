"""A fully convolutional network from the weights of a VGG: its score map is that of the VGG at each window."""

from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from ml_collections import ConfigDict

from cnn_jax import data, models, weights
from cnn_jax.errors import UsageError
from cnn_jax.tasks import Segmentation, default_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks.sets import known_examples
from cnn_jax.tasks.start import Start, find_start
from cnn_jax.weights.layouts import paths
from tests.compiled import compiled
from tests.models import creation
from tests.parity import torch_networks as theirs

WIDTH, CLASSES = 1 / 32, 5
SHAPE = (58, 90, 3)  # with the padding of 99 pixels 256 and 288, which all five pools halve without a rest
GENERATOR = np.random.default_rng(0)
FIELDS = {"image": GENERATOR.integers(0, 256, (2, *SHAPE), np.uint8), "where": np.zeros((2, *SHAPE[:2]), np.uint8)}
SPEC = {"image": "image", "where": data.Field("mask", class_names=("none", "cell"))}
SET = data.Dataset("mine", "train", FIELDS, SPEC)
NEW = {"score", "fuse4", "fuse3", "upscore4", "upscore3", "upscore"}


def config(source: Path, **changes) -> ConfigDict:
    settings = default_config("segmentation")
    settings.model.name, settings.model.width, settings.input_shape = "fcn_8s", WIDTH, SHAPE
    settings.model.weights = str(source)
    settings.update_from_flattened_dict(changes)
    return settings


def created(settings: ConfigDict, outputs: int) -> nnx.Module:
    options = {"width": WIDTH, "input_shape": SHAPE, "num_classes": outputs}
    return creation.create(settings.model.name, **options)


def start(settings: ConfigDict) -> Start:
    return find_start(settings, Segmentation(settings, known_examples(SET)), SET)


@pytest.fixture(scope="module")
def vgg() -> torch.nn.Module:
    return theirs.randomize(theirs.VGG("vgg_d", WIDTH, CLASSES, (7, 7), batch_norm=False), seed=0)


@pytest.fixture(scope="module")
def file(vgg: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(vgg.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def found(file: Path) -> Start:
    return start(config(file))


def test_scores_are_those_of_the_vgg_applied_to_every_window(vgg: torch.nn.Module, file: Path, found: Start) -> None:
    """With the VGG's last layer as the layer of scores. Its linear layers are written as products with all windows."""
    model = created(config(file), 2)
    own = paths(nnx.state(model, nnx.Param))
    assert {name.partition("/")[0] for name in own.keys() - found.values.keys()} == NEW
    for name, value in found.values.items():
        layer, kind = name.split("/")
        getattr(getattr(model, layer), kind)[...] = value

    x = GENERATOR.standard_normal((2, *SHAPE)).astype(np.float32)
    model.eval()
    activations = compiled(lambda x: model(x, return_activations=True)[1])(x)
    with torch.no_grad():
        padded = torch.nn.functional.pad(torch.from_numpy(np.moveaxis(x, -1, 1)), (99,) * 4)
        maps = vgg.features(padded)
        windows = torch.nn.functional.unfold(maps, 7)  # (images, channels * 49, windows)
        hidden = vgg.classifier[:5](windows.transpose(1, 2)).numpy()  # to the ReLU of FC7
    np.testing.assert_allclose(activations["fc7_relu"].reshape(hidden.shape), hidden, rtol=1e-4, atol=1e-4)
    assert activations["fc7_relu"].shape[1:3] == (2, 3)
    assert (hidden > 0).mean() > 0.1, "not nothing"


def test_own_files_of_the_vgg_and_of_the_network_are_told_apart(file: Path, found: Start, tmp_path: Path) -> None:
    vgg = nnx.eval_shape(lambda: models.create("vgg_d", num_classes=CLASSES, width=WIDTH, rngs=nnx.Rngs(0)))
    weights.save(weights.load(vgg, file).model, tmp_path / "vgg.safetensors")
    again = start(config(tmp_path / "vgg.safetensors")).values
    assert again.keys() == found.values.keys()
    jax.tree.map(np.testing.assert_array_equal, dict(again), dict(found.values))
    network = created(config(file), 2)
    weights.save(network, tmp_path / "fcn.safetensors")
    whole = start(config(tmp_path / "fcn.safetensors")).values
    assert whole.keys() == paths(nnx.state(network, nnx.Param)).keys()


def test_weights_of_another_width_are_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="does not fit the model"):
        start(config(file, **{"model.width": 1 / 16}))


@pytest.mark.slow
def test_a_run_of_the_vgg_is_a_start(tmp_path: Path) -> None:
    source = default_config()
    source.data.train, source.data.test, source.data.validation = "train[:8]", "test[:8]", ""
    source.data.resize, source.model.name, source.input_shape = "bilinear", "vgg_d", (224, 224, 1)
    source.model.width, source.batch_size, source.duration, source.evaluate_every = WIDTH, 8, "1 steps", "1 steps"
    runs.train(source, tmp_path / "vgg", report=False)
    grey = {**FIELDS, "image": FIELDS["image"][..., :1]}
    settings = config(tmp_path / "vgg", input_shape=(*SHAPE[:2], 1))
    train_set = data.Dataset("mine", "train", grey, SPEC)
    found = find_start(settings, Segmentation(settings, known_examples(train_set)), train_set)
    network, state = runs.load_run(source, tmp_path / "vgg")
    trained = paths(network.parameters(state))
    assert {name.partition("/")[0] for name in found.values} == {name.partition("/")[0] for name in trained} - {"fc8"}
    for name, value in found.values.items():
        np.testing.assert_array_equal(np.ravel(value), np.ravel(trained[name]))
    assert found.preprocess.mean == network.preprocess.mean
