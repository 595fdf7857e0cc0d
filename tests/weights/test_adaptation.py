"""Weights for other classes and channels, against the outputs of the networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import models, weights
from cnn_jax.errors import UsageError
from cnn_jax.weights import adaptation
from cnn_jax.weights.layouts import entries
from tests.weights.networks import VGG, abstract, drawn
from tests.weights.test_transfer import tensors

NAME = "vgg_a"
SIDE = 32


@pytest.fixture(scope="module")
def theirs():
    return drawn(abstract(NAME, num_classes=5, **VGG))


def convolution(kernel, image):
    """A convolution at one position, by its definition."""
    return np.einsum("hwio,hwi->o", kernel, image)


@pytest.mark.parametrize("layout", ["cnn_jax", "torchvision"])
@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_the_first_kernel(theirs, tmp_path, layout, channels):
    weights.save(theirs, tmp_path / "x.safetensors", layout=layout)
    shape = (SIDE, SIDE, channels)
    model = abstract(NAME, num_classes=5, input_shape=shape, width=1 / 64)
    with pytest.raises(UsageError, match=r"1 mismatched of 22 tensors; adapt the first kernel with adapt=True"):
        weights.load(model, tmp_path / "x.safetensors")
    loaded = weights.load(model, tmp_path / "x.safetensors", adapt=True)
    note = f"conv1_1/kernel adapted to inputs of {channels} channel{'s' if channels > 1 else ''}"
    assert loaded.notes == (note,)
    before, after = tensors(theirs), tensors(loaded.model)
    for path in before.keys() - {"conv1_1/kernel"}:
        np.testing.assert_array_equal(before[path], after[path])
    old, new = before["conv1_1/kernel"], after["conv1_1/kernel"]
    if channels == 1:  # an image of equal channels
        image = np.random.default_rng(0).normal(size=(3, 3, 1))
        np.testing.assert_allclose(convolution(new, image), convolution(old, np.repeat(image, 3, 2)), rtol=1e-4)
    else:  # timm: channel c is channel c % 3, and all are scaled so that equal inputs give outputs of equal size
        for channel in range(channels):
            np.testing.assert_allclose(new[:, :, channel], old[:, :, channel % 3] * (3 / channels), rtol=1e-6)


def test_another_head_stays_as_it_is(theirs, tmp_path):
    weights.save(theirs, tmp_path / "x.safetensors", layout="torchvision")
    model = drawn(abstract(NAME, num_classes=7, **VGG))
    loaded = weights.load(model, tmp_path / "x.safetensors", adapt=True)
    assert set(loaded.kept) == {"fc8/bias", "fc8/kernel"}
    assert set(loaded.unused) == {"classifier.6.bias", "classifier.6.weight"}
    before, after, own = tensors(theirs), tensors(loaded.model), tensors(model)
    for path in before:
        np.testing.assert_array_equal(after[path], (own if path.startswith("fc8/") else before)[path])
    assert loaded.notes == ("the model keeps its own head: fc8/kernel, fc8/bias",)
    with pytest.raises(
        UsageError, match=r"adapt=True keeps the model's own head, but a model from nnx.eval_shape"
    ) as e:
        weights.load(abstract(NAME, num_classes=7, **VGG), tmp_path / "x.safetensors", adapt=True)
    assert "\n" not in str(e.value)


def test_a_file_without_a_head(theirs, tmp_path):
    """Backbones of self-supervised training are published in this form."""
    state_dict = {f"backbone.{entry.name}": np.zeros(entry.shape, np.float32) for entry in entries(theirs, "timm")}
    backbone = {name: array for name, array in state_dict.items() if "head." not in name}
    with pytest.raises(UsageError, match=r"2 missing of 22 tensors; keep the model's own head with adapt=True"):
        weights.load(theirs, backbone)
    loaded = weights.load(theirs, backbone, adapt=True)
    np.testing.assert_array_equal(loaded.model.fc8.kernel[...], theirs.fc8.kernel[...])
    assert not np.asarray(loaded.model.conv1_1.kernel[...]).any()
    assert loaded.unused == ()


def test_all_fits_and_nothing_is_adapted(theirs, tmp_path):
    weights.save(theirs, tmp_path / "x.safetensors")
    loaded = weights.load(abstract(NAME, num_classes=5, **VGG), tmp_path / "x.safetensors", adapt=True)
    assert (loaded.kept, loaded.unused, loaded.notes) == ((), (), ())


@pytest.mark.parametrize(
    ("file", "model"),
    [
        ({"input_shape": (SIDE, SIDE, 1)}, {"input_shape": (SIDE, SIDE, 3)}),  # timm has no rule for this
        ({"input_shape": (SIDE, SIDE, 4)}, {"input_shape": (SIDE, SIDE, 6)}),
        ({"width": 1 / 32}, {}),  # another network
    ],
)
def test_what_cannot_be_adapted_is_a_table(file, model):
    file, model = ({"num_classes": 5, **VGG, **options} for options in (file, model))
    theirs = {entry.name: np.zeros(entry.shape) for entry in entries(abstract(NAME, **file), "torchvision")}
    for adapt in (False, True):
        with pytest.raises(
            UsageError, match=r"mismatched of .* tensors; create the network that the weights belong to"
        ):
            weights.load(abstract(NAME, **model), theirs, adapt=adapt)


def test_googlenets_three_heads():
    model = abstract("googlenet_torchvision")
    wanted = entries(model, "torchvision")
    found = {entry.name: tuple(5 if size == 1000 else size for size in entry.shape) for entry in wanted}
    heads = {f"{path}/{leaf}" for path in ("fc", "aux1/fc2", "aux2/fc2") for leaf in ("kernel", "bias")}
    assert {entry.path for entry in adaptation.between(model, wanted, found).entries} == heads


def test_imagenets_normalisation_is_that_of_the_file():
    file = abstract(NAME, num_classes=1000, **VGG)
    theirs = {entry.name: np.zeros(entry.shape) for entry in entries(file, "torchvision")}
    model = drawn(abstract(NAME, num_classes=5, **VGG))
    assert weights.load(model, theirs, adapt=True).about.mean == (0.485, 0.456, 0.406)
    gray = drawn(abstract(NAME, num_classes=5, input_shape=(SIDE, SIDE, 1), width=1 / 64))
    assert weights.load(gray, theirs, adapt=True).about.mean is None


def test_create_for_other_classes_and_channels(theirs, tmp_path):
    names = tuple("abcde")
    about = weights.About(NAME, {"num_classes": 5, **VGG}, (0.1,) * 3, (0.2,) * 3, names)
    path = tmp_path / "x.safetensors"
    weights.save(theirs, path, about=about)

    loaded = weights.create(path, num_classes=2, in_chans=1, rngs=nnx.Rngs(3))
    x = jnp.ones((1, SIDE, SIDE, 1))
    assert jax.eval_shape(loaded.model, x).shape == (1, 2)
    expected = models.replace_head(theirs, 2, rngs=nnx.Rngs(3))
    np.testing.assert_array_equal(loaded.model.fc8.kernel[...], expected.fc8.kernel[...])
    summed = np.asarray(theirs.conv1_1.kernel[...]).sum(2, keepdims=True)
    np.testing.assert_allclose(loaded.model.conv1_1.kernel[...], summed, rtol=1e-5, atol=1e-6)
    options = {"num_classes": 2, "input_shape": (SIDE, SIDE, 1), "width": 1 / 64}
    assert loaded.about == weights.About(NAME, options)
    weights.save(loaded.model, path, about=loaded.about)
    assert weights.create(path).model.fc8.kernel.shape[-1] == 2

    weights.save(theirs, path, about=about)
    same = weights.create(path, num_classes=5, in_chans=3)
    assert (same.about, same.notes) == (about, ())
    assert tensors(same.model).keys() == tensors(theirs).keys()
