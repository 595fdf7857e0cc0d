"""Weights are converted from PyTorch and to PyTorch with the same activations in every stage."""

import functools

import jax
import numpy as np
import pytest
import torch
from flax import nnx

from cnn_jax import models, nn, weights
from cnn_jax.errors import UsageError
from cnn_jax.weights.layouts import paths
from cnn_jax.weights.torch_names import torch_layers
from tests.parity import torch_networks as theirs

CLASSES = 7
SMALL = {"num_classes": CLASSES, "width": 1 / 16}

# Name, options, and the network in PyTorch. Maps are not square, so that swapped height and width are detected.
NETWORKS = {
    "alexnet_torchvision": (
        {**SMALL, "input_shape": (127, 159, 3)},
        lambda: theirs.AlexNet(1 / 16, CLASSES),
    ),
    "alexnet": (
        {**SMALL, "input_shape": (131, 163, 3)},
        lambda: theirs.GroupedAlexNet(1 / 16, CLASSES, (3, 4)),
    ),
    "vgg_a": (
        {**SMALL, "input_shape": (64, 96, 3)},
        lambda: theirs.VGG("vgg_a", 1 / 16, CLASSES, (2, 3), batch_norm=False),
    ),
    "vgg_d_bn": (
        {**SMALL, "input_shape": (64, 96, 3)},
        lambda: theirs.VGG("vgg_d", 1 / 16, CLASSES, (2, 3), batch_norm=True),
    ),
    "googlenet_torchvision": (
        {"num_classes": CLASSES, "width": 1 / 8, "input_shape": (96, 128, 3)},
        lambda: theirs.GoogLeNet(1 / 8, CLASSES),
    ),
    "resnet_18": (
        {**SMALL, "input_shape": (64, 96, 3)},
        lambda: theirs.ResNet(theirs.BasicBlock, (2, 2, 2, 2), 1 / 16, CLASSES),
    ),
    "resnet_50": (
        {**SMALL, "input_shape": (64, 96, 3), "stride": "v1.5"},
        lambda: theirs.ResNet(theirs.Bottleneck, (3, 4, 6, 3), 1 / 16, CLASSES),
    ),
}


@functools.cache
def abstract(name):
    return nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **NETWORKS[name][0]))


def images(name):
    return np.random.default_rng(0).normal(size=(2, *NETWORKS[name][0]["input_shape"])).astype(np.float32)


@functools.cache
def compiled(name):
    """The network as a function of its state and images, compiled with few optimisations, since it runs rarely."""
    graph, state = nnx.split(abstract(name))
    run = jax.jit(lambda state, x: nnx.merge(graph, state)(x, return_activations=True))
    return run.lower(state, images(name)).compile(compiler_options={"xla_backend_optimization_level": 0})


def run_ours(name, model):
    return compiled(name)(nnx.split(model)[1], images(name))


def run_theirs(network, x):
    """The output of every module by its name, with channels last, and the output of the network."""
    outputs = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _, __, y, name=name: outputs.__setitem__(name, channels_last(y)))
    with torch.no_grad():
        logits = network(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
    return logits, outputs


def channels_last(tensor):
    return np.moveaxis(tensor.detach().numpy(), 1, -1).copy()


def stages(model):
    """Pairs of an activation and a PyTorch module that must agree: layers with parameters, and outputs of blocks.

    Auxiliary heads have their own test.
    """
    pairs = {layer.path: layer.name for layer in torch_layers(model)}
    for index, name in enumerate(model.names):
        layer = getattr(model, name)
        if isinstance(layer, nn.Residual):
            pairs[model.names[index + 1]] = name.replace("_", ".")
        elif isinstance(layer, nn.Parallel):
            pairs[f"{name}/concatenate"] = name
        elif isinstance(layer, nn.Flatten):
            pairs |= {own: f"features.{place}" for place, own in enumerate(model.names[:index]) if own != "avgpool"}
    return {own: name for own, name in pairs.items() if not own.startswith("aux")}


def assert_same(actual, expected, message=""):
    scale = np.abs(expected).max()
    assert scale > 1e-3, message
    np.testing.assert_allclose(actual, expected, atol=1e-4 * scale, rtol=0, err_msg=message)


def drawn(model):
    """Fills an abstract model: positive scales and variances, kernels that preserve the scale of signals."""
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        if path.endswith(("scale", "var")):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        deviation = 0.3 if len(leaf.shape) == 1 else (1.5 / np.prod(leaf.shape[:-1])) ** 0.5
        return rng.normal(0, deviation, leaf.shape).astype(np.float32)

    return weights.load(model, {path: draw(path, leaf) for path, leaf in paths(nnx.state(model)).items()}).model


@pytest.mark.parametrize("name", NETWORKS)
def test_both_ways(name):
    model, x = abstract(name), images(name)
    network = theirs.randomize(NETWORKS[name][1](), seed=0)
    loaded = weights.load(model, network.state_dict())
    assert (loaded.layout, loaded.unused, loaded.kept) == ("torchvision", (), ())

    logits, activations = run_ours(name, loaded.model)
    expected, outputs = run_theirs(network, x)
    assert_same(logits, expected)
    for own, other in stages(loaded.model).items():
        assert_same(activations[own], outputs[other], f"{own} and {other}")

    returned, given = weights.to_torch(loaded.model), network.state_dict()
    assert {key: value.shape for key, value in returned.items()} == {key: value.shape for key, value in given.items()}
    assert all(torch.equal(returned[key], given[key]) for key in given)

    ours = drawn(model)
    network.load_state_dict(weights.to_torch(ours), strict=True)
    assert_same(run_ours(name, ours)[0], run_theirs(network, x)[0])


def test_timm_vgg():
    name = "vgg_d_bn"
    network = theirs.randomize(theirs.TimmVGG("vgg_d", 1 / 16, CLASSES, (2, 3), batch_norm=True), seed=0)
    loaded = weights.load(abstract(name), network.state_dict())
    assert loaded.layout == "timm"
    assert_same(run_ours(name, loaded.model)[0], run_theirs(network, images(name))[0])
    returned, given = weights.to_torch(loaded.model, layout="timm"), network.state_dict()
    assert returned.keys() == given.keys()
    assert all(torch.equal(returned[key], given[key]) for key in given)


def test_auxiliary_heads_agree_and_are_optional():
    name = "googlenet_torchvision"
    network = theirs.randomize(NETWORKS[name][1](), seed=0)
    state_dict = network.state_dict()
    model = weights.load(abstract(name), state_dict).model
    features = run_theirs(network, images(name))[1]
    for head, before, expected in zip(("aux1", "aux2"), ("inception4a", "inception4d"), network.heads, strict=True):
        layers = nn.Sequence({name: getattr(getattr(model, head), name) for name in getattr(model, head).names})
        assert_same(jax.jit(layers)(features[before]), expected.detach().numpy())

    with_heads = {key for key in state_dict if key.startswith("aux")}
    plain = {key: value for key, value in state_dict.items() if key not in with_heads}
    without = nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), auxiliary_heads=False, **NETWORKS[name][0]))
    loaded = weights.load(without, state_dict)
    assert {key for key in with_heads if not key.endswith("num_batches_tracked")} == set(loaded.unused)
    assert weights.to_torch(loaded.model).keys() == plain.keys()

    kept = weights.load(model, {key: value + 1 for key, value in plain.items()})
    assert kept.kept
    assert all(path.startswith("aux") for path in kept.kept)
    np.testing.assert_array_equal(kept.model.aux1.fc1.kernel[...], model.aux1.fc1.kernel[...])
    np.testing.assert_array_equal(kept.model.fc.bias[...], state_dict["fc.bias"] + 1)
    with pytest.raises(UsageError, match=r"does not fit the model: 18 missing of"):
        weights.load(abstract(name), plain)


@pytest.mark.parametrize("ending", ["pth", "pt", "bin"])
def test_files_of_pytorch(tmp_path, ending):
    network = theirs.randomize(NETWORKS["resnet_18"][1](), seed=0)
    path = tmp_path / f"weights.{ending}"
    torch.save(network.state_dict(), path)
    model = weights.load(abstract("resnet_18"), path).model
    again = tmp_path / f"again.{ending}"
    weights.save(model, again, layout="torchvision")
    given, returned = network.state_dict(), torch.load(again, weights_only=True)
    assert given.keys() == returned.keys()
    assert all(torch.equal(returned[key], given[key]) for key in given)


@pytest.mark.parametrize("wrap", ["state_dict", "model", "module", "legacy", "bfloat16"])
def test_files_as_training_scripts_write_them(tmp_path, wrap):
    state_dict = theirs.randomize(NETWORKS["resnet_18"][1](), seed=0).state_dict()
    contents = {
        "state_dict": {"epoch": 3, "state_dict": state_dict},
        "model": {"model": state_dict, "args": {"lr": 0.1}},
        "module": {f"module.{key}": value for key, value in state_dict.items()},
        "legacy": state_dict,
        "bfloat16": {key: value.bfloat16() for key, value in state_dict.items()},
    }
    torch.save(contents[wrap], tmp_path / "x.pth", _use_new_zipfile_serialization=wrap != "legacy")
    kernel = weights.load(abstract("resnet_18"), tmp_path / "x.pth").model.fc.kernel[...]
    expected = state_dict["fc.weight"].bfloat16().float() if wrap == "bfloat16" else state_dict["fc.weight"]
    np.testing.assert_array_equal(kernel.T, expected)


class Harm:
    def __reduce__(self):
        return (eval, ("__import__('pathlib').Path('harm').touch()",))


def test_pickles_are_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"fc.weight": torch.ones(1), "harm": Harm()}, "x.pth")
    with pytest.raises(
        UsageError, match=r"^weights: x.pth contains more than tensors: it names builtins\.eval, .*state_dict"
    ) as error:
        weights.load(abstract("resnet_18"), "x.pth")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [[1, 2], {"fc.weight": 3.0}, torch.ones(2)])
def test_files_without_a_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UsageError, match=r"must contain a state dict|must map names to tensors"):
        weights.load(abstract("resnet_18"), tmp_path / "x.pth")


def test_a_truncated_file_is_one_line(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"fc.weight": torch.ones(1000)}, path)
    contents = {path.read_bytes()[:2000]: "is damaged", b"": "is empty", b"hello": "is damaged"}
    for content, message in contents.items():
        path.write_bytes(content)
        with pytest.raises(UsageError, match=message):
            weights.load(abstract("resnet_18"), path)


def test_the_state_dict_and_the_model_share_no_memory():
    network = theirs.randomize(NETWORKS["resnet_18"][1](), seed=0)
    model = weights.load(abstract("resnet_18"), network.state_dict()).model
    before = np.array(model.bn1.mean[...])
    network.bn1.running_mean.zero_()
    np.testing.assert_array_equal(model.bn1.mean[...], before)
    weights.to_torch(model)["bn1.running_mean"].zero_()
    np.testing.assert_array_equal(model.bn1.mean[...], before)
