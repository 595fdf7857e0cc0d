"""Files in the formats of PyTorch, Lightning, timm, torchvision and training scripts, and invalid files."""

import argparse
import collections
import datetime
import enum
import io
import os
import pathlib
import pickle
import subprocess

import numpy as np
import pytest
import torch
import torch.optim.swa_utils

from cnn_jax import weights
from cnn_jax.errors import UsageError
from cnn_jax.weights.layouts import entries
from tests.weights.networks import abstract
from tests.weights.test_places import assert_is, load, network

RAN = []


def state_dict(seed=0, prefix=""):
    named = {name: torch.from_numpy(array) for name, array in network(seed, prefix).items()}
    return collections.OrderedDict(named)


class Net(torch.nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        self.classifier = torch.nn.Sequential(torch.nn.Linear(784, 2), torch.nn.Tanh(), torch.nn.Linear(2, 10))
        self.load_state_dict(state_dict(seed))

    def forward(self, x):
        return self.classifier(x)


class Lightning(torch.nn.Module):
    """A module with the names of a LightningModule that contains a network and a loss with class weights."""

    def __init__(self):
        super().__init__()
        self.model = Net()
        self.criterion = torch.nn.CrossEntropyLoss(weight=torch.ones(10))


class AttributeDict(dict):
    """A dict like those of settings libraries."""


class Mode(enum.Enum):
    MAX = "max"


class Settings:
    def __init__(self):
        RAN.append("__init__")
        self.rate = 0.1

    def __setstate__(self, state):
        RAN.append("__setstate__")


def run(*arguments):
    RAN.append(arguments)
    return arguments


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def optimizer():
    net = Net()
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 784)).sum().backward()
    adam.step()
    return adam.state_dict()


HERE = "tests.parity.test_torch_files"
ARGS = argparse.Namespace(
    lr=0.1, output=pathlib.PurePosixPath("out"), started=datetime.datetime(2024, 5, 1), mode=Mode.MAX
)
CALLBACKS = {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.9), "best_k_models": {}}}
FOUND = "found under 'state_dict'"
IGNORED = "ignored, because only tensors are read: "

FILES = {  # name: the content, the notes
    "plain.pth": (state_dict(), ()),
    "plain.PTH": (state_dict(), ()),
    "plain.pt": (Net().state_dict(), ()),
    "pytorch_model.bin": (dict(Net().named_parameters()), ()),
    "no_suffix": (state_dict(), ()),
    # github.com/pytorch/examples, imagenet
    "model_best.pth.tar": (
        {
            "epoch": 90,
            "arch": "resnet18",
            "state_dict": torch.nn.DataParallel(Net()).state_dict(),
            "best_acc1": torch.tensor(69.8),
            "optimizer": optimizer(),
            "scheduler": {"step_size": 30, "gamma": 0.1},
        },
        (FOUND, "stripped from the names: 'module.'"),
    ),
    # torchvision's references/classification
    "model_89.pth": (
        {
            "model": state_dict(1),
            "optimizer": optimizer(),
            "lr_scheduler": {"last_epoch": 89},
            "epoch": 89,
            "args": ARGS,
            "model_ema": torch.optim.swa_utils.AveragedModel(Net()).state_dict(),
        },
        (
            IGNORED + f"argparse.Namespace, datetime.datetime, pathlib.PurePosixPath, {HERE}.Mode",
            "found under 'model_ema' (also there: 'model'; choose with key=)",
            "stripped from the names: 'module.'",
            "other tensors ignored: 'n_averaged'",
        ),
    ),
    # timm's CheckpointSaver
    "checkpoint-299.pth.tar": (
        {
            "epoch": 299,
            "arch": "resnet50",
            "state_dict": state_dict(1),
            "optimizer": optimizer(),
            "version": 2,
            "args": argparse.Namespace(lr=0.1),
            "amp_scaler": {"scale": 65536.0},
            "state_dict_ema": state_dict(),
            "metric": 80.1,
        },
        (
            IGNORED + "argparse.Namespace",
            "found under 'state_dict_ema' (also there: 'state_dict'; choose with key=)",
        ),
    ),
    "last.ckpt": (
        {
            "epoch": 9,
            "global_step": 1000,
            "pytorch-lightning_version": "2.5.0",
            "state_dict": Lightning().state_dict(),
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 10}}}},
            "callbacks": CALLBACKS,
            "optimizer_states": [optimizer()],
            "lr_schedulers": [],
            "hparams_name": "kwargs",
            "hyper_parameters": {"lr": 0.1, "optimizer": torch.optim.Adam},
        },
        (
            FOUND,
            "stripped from the names: 'model.'",
            "other tensors ignored: 'criterion.weight'",
        ),
    ),
    # mmengine
    "epoch_12.pth": (
        {"meta": {"epoch": 12}, "state_dict": state_dict(prefix="backbone."), "message_hub": {"loss": Settings()}},
        (
            IGNORED + f"{HERE}.Settings",
            FOUND,
            "stripped from the names: 'backbone.'",
        ),
    ),
    "compiled.pt": (torch.compile(Net(), backend="eager").state_dict(), ("stripped from the names: '_orig_mod.'",)),
    "compiled_parallel.pt": (
        {
            "model_state_dict": torch.compile(torch.nn.DataParallel(Net()), backend="eager").state_dict(),
            "loss": torch.tensor(0.1),
        },
        ("found under 'model_state_dict'", "stripped from the names: '_orig_mod.module.'"),
    ),
    "swa.pth": (
        torch.optim.swa_utils.AveragedModel(Net()).state_dict(),
        ("stripped from the names: 'module.'", "other tensors ignored: 'n_averaged'"),
    ),
    # kuangliu/pytorch-cifar
    "ckpt.pth": (
        {"net": torch.nn.DataParallel(Net()).state_dict(), "acc": 95.4, "epoch": 199},
        ("found under 'net'", "stripped from the names: 'module.'"),
    ),
    "numpy_beside.pth": (
        {"model": state_dict(), "best": np.float64(0.9), "history": np.arange(3.0)},
        (
            IGNORED + "numpy._core.multiarray._reconstruct, numpy._core.multiarray.scalar, numpy.dtype, numpy.ndarray",
            "found under 'model'",
        ),
    ),
    "containers_beside.pth": (
        {"model": state_dict(), "names": {"cat", "dog"}, "size": torch.Size((3,)), "device": torch.device("cpu")},
        ("found under 'model'",),
    ),
    "transposed.pth": (
        {name: tensor.t().contiguous().t() if tensor.ndim > 1 else tensor for name, tensor in state_dict().items()},
        (),
    ),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", FILES)
def test_finds_the_network(tmp_path, name, legacy):
    RAN.clear()
    content, notes = FILES[name]
    torch.save(content, tmp_path / name, _use_new_zipfile_serialization=not legacy)
    loaded = load(tmp_path / name)
    assert_is(loaded)
    assert loaded.notes == notes
    assert not RAN


@pytest.mark.parametrize(
    ("content", "key", "seed"),
    [
        (FILES["checkpoint-299.pth.tar"][0], "state_dict", 1),
        (FILES["model_89.pth"][0], "model", 1),
        ({"student": state_dict(1, "module.backbone."), "teacher": state_dict(2, "backbone.")}, "teacher", 2),
    ],
)
def test_one_of_several_is_chosen(tmp_path, content, key, seed):
    torch.save(content, tmp_path / "x.pth")
    assert_is(load(tmp_path / "x.pth", key=key), seed)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz"])
def test_types_of_numbers(tmp_path, dtype):
    tensors = {name: tensor.to(getattr(torch, dtype)) for name, tensor in state_dict().items()}
    torch.save(tensors, tmp_path / "x.pth")
    for source in (tensors, tmp_path / "x.pth"):
        loaded = load(source)
        assert loaded.notes == (f"{dtype} converted to float32",)
        expected = tensors["classifier.2.weight"].float().numpy()
        np.testing.assert_array_equal(np.asarray(loaded.model.output.kernel[...]).T, expected)


def quantised(tensor):
    # PyTorch warns that quantised types are deprecated, but files with them still exist.
    with pytest.warns(UserWarning, match="deprecated"):
        return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor.to(torch.int8), r"has integers \(int8\) where the model has real numbers"),
        (lambda tensor: tensor.to(torch.complex64), r"has complex numbers \(complex64\)"),
        (quantised, r"cannot be read \(qint8, strided, on cpu\); save it as a dense float32 tensor"),
        (lambda tensor: tensor.to_sparse(), r"cannot be read \(float32, sparse_coo, on cpu\)"),
        (lambda tensor: tensor.to("meta"), r"cannot be read \(float32, strided, on meta\)"),
    ],
)
def test_tensors_without_real_numbers(tmp_path, change, message):
    tensors = state_dict() | {"classifier.0.weight": change(state_dict()["classifier.0.weight"])}
    torch.save(tensors, tmp_path / "x.pth")
    for source in (tensors, tmp_path / "x.pth"):
        with pytest.raises(UsageError, match=rf"tensor 'classifier\.0\.weight' {message}") as error:
            load(source)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (eval, ("1",), r"contains more than tensors: it names builtins\.eval, so reading it would run code"),
        (exec, ("1",), r"it names builtins\.exec"),
        (getattr, (1, "real"), r"it names builtins\.getattr"),
        (os.system, ("true",), r"it names (posix|nt)\.system"),
        (subprocess.check_output, (["true"],), r"it names subprocess\.check_output"),
        (pickle.loads, (b"",), r"it names _?pickle\.loads"),
        (run, ("a",), None),
        (np.save, ("harm.npy", 1), None),
        (torch.save, ({}, "harm.pth"), None),
    ],
)
def test_nothing_that_a_file_names_is_run(tmp_path, monkeypatch, function, arguments, message, legacy):
    """Files that name Python's own functions are rejected; other functions are replaced by an empty object."""
    monkeypatch.chdir(tmp_path)
    RAN.clear()
    torch.save(
        {"model": state_dict(), "x": Calls(function, *arguments)}, "x.pth", _use_new_zipfile_serialization=not legacy
    )
    if message is None:
        assert_is(load("x.pth"))
    else:
        with pytest.raises(UsageError, match=message) as error:
            load("x.pth")
        assert "\n" not in str(error.value)
    assert not RAN
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def scripted():
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(Net(), torch.ones(1, 784)), buffer)
    return buffer.getvalue()


def saved(content, legacy=False):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def without_the_end(legacy):
    content = saved(state_dict(), legacy)
    return content[: len(content) * 2 // 3]


def with_other_bytes():
    content = saved(state_dict())
    place = content.index(b"classifier.2.weight")
    return content[: place - 40] + bytes(40) + content[place:]


@pytest.mark.filterwarnings("ignore:.*(TorchScript|torch.jit)")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: without_the_end(False), "is damaged or incomplete; download or copy it again"),
        (lambda: without_the_end(True), "is damaged"),
        (lambda: saved(state_dict(), True)[:40], "is damaged, or not a PyTorch file"),
        (with_other_bytes, "is damaged"),
        (lambda: saved(Net()), r"contains a whole object \(.*Net.*\) and not a state dict"),
        (lambda: saved({"model": Net(), "epoch": 3}), r"must map names to tensors, .*'model' \(NotImported\), 'epoch'"),
        (
            lambda: saved({"model": state_dict(), "args": AttributeDict(lr=0.1)}),
            r"contains more than tensors \(.*AttributeDict\), so reading it would run code; save only the state_dict",
        ),
        (scripted, "is a TorchScript program and not a state dict"),
        (lambda: saved(optimizer()), r"must map names to tensors, but contains only 'state' \(dict\)"),
        (lambda: saved({}), "must map names to tensors, but contains only nothing"),
        (lambda: pickle.dumps({"a": [1, 2]}, protocol=2), "is damaged, or not a PyTorch file"),
        (lambda: pickle.dumps(network(), protocol=4), "is damaged, or not a PyTorch file"),
    ],
)
def test_what_holds_no_state_dict_is_one_line(tmp_path, content, message):
    (tmp_path / "x.pth").write_bytes(content())
    with pytest.raises(UsageError, match=message) as error:
        load(tmp_path / "x.pth")
    assert "\n" not in str(error.value)


def test_a_folder_of_the_hub_without_safetensors(tmp_path):
    torch.save(state_dict(), tmp_path / "pytorch_model.bin")
    assert_is(load(tmp_path))


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_first_kernels_as_timm_adapts_them(channels):
    """Against PyTorch's operations: a sum, or three channels that are repeated, cut and scaled by 3 / channels."""
    options = {"width": 1 / 64, "num_classes": 3}
    file = abstract("vgg_a", input_shape=(32, 32, 3), **options)
    tensors = {entry.name: torch.randn(entry.shape) for entry in entries(file, "torchvision")}
    model = abstract("vgg_a", input_shape=(32, 32, channels), **options)
    kernel = tensors["features.0.weight"]
    expected = kernel.sum(1, keepdim=True)
    if channels > 1:
        expected = kernel.repeat(1, -(-channels // 3), 1, 1)[:, :channels] * (3 / channels)
    ours = weights.to_torch(weights.load(model, tensors, adapt=True).model)["features.0.weight"]
    torch.testing.assert_close(ours, expected)
