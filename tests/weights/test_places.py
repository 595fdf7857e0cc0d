"""Finding networks in files: the keys, prefixes and wrappers of training scripts."""

import logging

import numpy as np
import pytest
import safetensors.numpy

from cnn_jax import weights
from cnn_jax.errors import UsageError
from tests.weights.networks import abstract

SHAPES = {
    "classifier.0.weight": (2, 784),
    "classifier.0.bias": (2,),
    "classifier.2.weight": (10, 2),
    "classifier.2.bias": (10,),
}
STEP = {"optimizer": {"state": {0: {"exp_avg": np.ones(2)}}, "param_groups": [{"lr": 0.1}]}, "epoch": 3}


def network(seed=0, prefix=""):
    rng = np.random.default_rng(seed)
    return {prefix + name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def load(source, **options):
    return weights.load(abstract("mlp_two_neurons"), source, **options)


def assert_is(loaded, seed=0):
    expected = network(seed)
    found = [loaded.model.fc1.kernel, loaded.model.fc1.bias, loaded.model.output.kernel, loaded.model.output.bias]
    for (name, array), variable in zip(expected.items(), found, strict=True):
        np.testing.assert_array_equal(np.asarray(variable[...]).T, array, err_msg=name)


def renamed(old, new):
    return {name.replace(old, new): array for name, array in network().items()}


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        (network(), ()),
        ({"state_dict": network(), **STEP}, ("found under 'state_dict'",)),
        ({"model_state_dict": network(), **STEP}, ("found under 'model_state_dict'",)),
        ({"model": network(), **STEP}, ("found under 'model'",)),
        ({"net": network(), "acc": 91.2}, ("found under 'net'",)),
        ({"anything": {"at": {"all": network()}}}, ("found under 'anything/at/all'",)),
        ({"generator": network(), "discriminator": {"conv.weight": np.ones((3, 3))}}, ("found under 'generator'",)),
        (network(prefix="module."), ("stripped from the names: 'module.'",)),
        (network(prefix="_orig_mod."), ("stripped from the names: '_orig_mod.'",)),
        (network(prefix="_orig_mod.module."), ("stripped from the names: '_orig_mod.module.'",)),
        (network(prefix="backbone."), ("stripped from the names: 'backbone.'",)),
        (network(prefix="model.net."), ("stripped from the names: 'model.net.'",)),
        (network(prefix="module.model."), ("stripped from the names: 'module.model.'",)),
        (
            {"state_dict": network(prefix="model._orig_mod."), **STEP},
            ("found under 'state_dict'", "stripped from the names: 'model._orig_mod.'"),
        ),
        # In PyTorch's example only the convolutions of VGG and AlexNet run in parallel.
        (renamed("classifier.0", "classifier.module.0"), ("stripped from the names: 'module.'",)),
        (
            {
                "net": {
                    f"module.{name.replace('classifier.2', 'classifier.module.2')}": array
                    for name, array in network().items()
                }
            },
            ("found under 'net'", "stripped from the names: 'module.'"),
        ),
        (renamed("classifier.2", "classifier._orig_mod.2"), ("stripped from the names: '_orig_mod.'",)),
        # torch.optim.swa_utils.AveragedModel has a counter, losses have class weights, metrics have states.
        (
            {**network(prefix="module."), "n_averaged": np.array(7)},
            ("stripped from the names: 'module.'", "other tensors ignored: 'n_averaged'"),
        ),
        (
            {"state_dict": {**network(prefix="model."), "criterion.weight": np.ones(10), "acc.total": np.array(1)}},
            (
                "found under 'state_dict'",
                "stripped from the names: 'model.'",
                "other tensors ignored: 'criterion.weight', 'acc.total'",
            ),
        ),
        (
            {**network(prefix="encoder."), **{f"decoder.{index}.weight": np.ones(1) for index in range(5)}},
            (
                "stripped from the names: 'encoder.'",
                "other tensors ignored: 'decoder.0.weight', 'decoder.1.weight', 'decoder.2.weight' and 2 more",
            ),
        ),
        ({"ema": {"module": network()}, "epoch": 1}, ("found under 'ema/module'",)),
        # Scalars among the tensors belong to the checkpoint, not to the network.
        ({**network(), "epoch": 3, "arch": "mlp"}, ()),
    ],
)
def test_finds_the_network(content, notes):
    loaded = load(content)
    assert_is(loaded)
    assert loaded.layout == "torchvision"
    assert loaded.notes == notes


@pytest.mark.parametrize(
    ("content", "key", "seed", "note"),
    [
        (
            {"state_dict": network(1), "state_dict_ema": network(2)},
            None,
            2,
            "found under 'state_dict_ema' (also there: 'state_dict'; choose with key=)",
        ),
        ({"state_dict": network(1), "state_dict_ema": network(2)}, "state_dict", 1, "found under 'state_dict'"),
        (
            {"ema": network(1), "model": network(2)},
            None,
            1,
            "found under 'ema' (also there: 'model'; choose with key=)",
        ),
        (
            {"state_dict": network(1, "model.") | network(2, "ema_model.module.")},
            None,
            2,
            "found under 'state_dict' (also there: 'state_dict/model'; choose with key=)",
        ),
        (
            {"state_dict": network(1, "model.") | network(2, "ema_model.module.")},
            "state_dict/model",
            1,
            "found under 'state_dict'",
        ),
        (
            {"state_dict": network(1, "module.encoder_q.") | network(2, "module.encoder_k.")},
            "state_dict/module.encoder_k",
            2,
            "found under 'state_dict'",
        ),
        ({"student": network(1), "teacher": network(2)}, "teacher", 2, "found under 'teacher'"),
        (network(1) | network(2, "ema."), None, 2, "found under 'ema' (also there: the top level; choose with key=)"),
        # An average without the statistics of batch normalisation is not a complete network.
        (
            {"model": network(1), "ema": {"classifier.0.bias": np.ones(2)}},
            None,
            1,
            "found under 'model'",
        ),
    ],
)
def test_of_several_networks_one_is_chosen(content, key, seed, note):
    loaded = load(content, key=key)
    assert_is(loaded, seed)
    assert loaded.notes[0] == note


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        (
            {"student": network(), "teacher": network()},
            None,
            r"contains the network 2 times: 'student', 'teacher'; choose one with key=$",
        ),
        (
            {"state_dict": network(prefix="encoder_q.") | network(prefix="encoder_k.")},
            "state_dict",
            r"contains the network 2 times: 'state_dict/encoder_q', 'state_dict/encoder_k'",
        ),
        ({"state_dict": network()}, "state_dct", r"no tensors of the network under key='state_dct'; did you mean"),
        (network(), "model", r"under key='model'; the file is not nested, so leave out key"),
        (STEP, None, r"must map names to tensors, but contains only 'optimizer' \(dict\), 'epoch' \(int\)"),
        ({}, None, r"must map names to tensors, but contains only nothing"),
    ],
)
def test_what_is_not_clear_is_one_line(content, key, message):
    with pytest.raises(UsageError, match=message) as error:
        load(content, key=key)
    assert "\n" not in str(error.value)


def test_the_table_of_what_does_not_fit_has_the_names_without_what_was_stripped():
    other = {"features.0.weight": np.ones((1, 1, 3, 3)), "features.0.bias": np.ones(1)}
    content = {**network(prefix="module."), **{f"module.{name}": array for name, array in other.items()}}
    content["module.classifier.2.bias"] = np.ones(3)
    with pytest.raises(UsageError) as error:
        load({"state_dict": content, **STEP})
    assert str(error.value).splitlines()[2:] == [
        "  features.0.weight  (1, 1, 3, 3)  -",
        "  features.0.bias    (1,)          -",
        "  classifier.2.bias  (3,)          (10,)",
    ]
    with pytest.raises(UsageError, match=r"4 missing, 2 unexpected of 4 tensors"):
        load({"state_dict": other, **STEP})


def test_safetensors_with_prefixes_and_one_line_in_the_log(tmp_path, caplog):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(network(prefix="module.model."), path)
    with caplog.at_level(logging.WARNING, logger="cnn_jax.weights"):
        assert_is(load(path))
    assert caplog.messages == [f"weights: {path}: stripped from the names: 'module.model.'"]
    caplog.clear()
    assert_is(load(network()))
    assert not caplog.messages


def test_names_that_would_be_the_same_are_left_as_they_are():
    content = {**network(1), "classifier.module.2.bias": np.ones(10)}
    with pytest.raises(UsageError, match=r"1 unexpected of 4 tensors[^\0]*\n  classifier.module.2.bias  \(10,\) "):
        load(content)


def test_networks_of_ours_are_found_too():
    """Nested dictionaries of Flax give the same names."""
    params = {"fc1": {"kernel": np.ones((784, 2)), "bias": np.ones(2)}}
    params["output"] = {"kernel": np.full((2, 10), 2.0), "bias": np.ones(10)}
    loaded = load({"params": params})
    assert loaded.layout == "cnn_jax"
    assert (np.asarray(loaded.model.output.kernel[...]) == 2).all()
    assert loaded.notes[0] == "found under 'params'"


def test_a_mapping_that_holds_itself():
    content = {"model": network()}
    content["model"]["self"] = content
    assert_is(load(content))
