"""The names of layers in torchvision and timm, derived from the network's structure.

- A network with a ``Flatten`` (AlexNet, VGG) consists of two lists in torchvision, ``features`` before it and
  ``classifier`` after it. The name of a layer is its position in the list: ``features.3``. In timm the three fully
  connected layers of VGG are ``pre_logits.fc1``, ``pre_logits.fc2`` and ``head.fc``; the first two are convolutions.
- A network with ``Residual`` blocks (ResNet) has the same layer names. A block is named by its stage and number,
  ``layer1.0.conv1``, and its shortcut is a list, ``layer2.0.downsample.0``. timm's names are the same.
- In a network with ``Parallel`` branches (GoogLeNet) the branches are numbered, ``inception3a.branch1.conv``. A branch
  with more than one unit is a list, ``inception3a.branch2.1.bn``.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any

import jax
from flax import nnx

from cnn_jax import nn
from cnn_jax.errors import UsageError

_TIMM_CLASSIFIER = ("pre_logits.fc1", "pre_logits.fc2", "head.fc")
_EPSILON = 1e-5  # PyTorch's default
_INCEPTION_EPSILON = 1e-3


@dataclasses.dataclass(frozen=True)
class TorchLayer:
    """A layer with parameters and its name in PyTorch.

    Attributes:
      path: The path in the network, such as ``'layer1_0/branch/conv1'``.
      name: The name in PyTorch, such as ``'layer1.0.conv1'``.
      module: The layer.
      maps: The shape (height, width, channels) of the flattened input of a ``Linear``. PyTorch flattens channels first.
      as_convolution: Whether a ``Linear`` is a convolution in PyTorch.
    """

    path: str
    name: str
    module: nn.Conv | nn.Linear | nn.BatchNorm
    maps: tuple[int, ...] | None = None
    as_convolution: bool = False


def torch_layers(model: nnx.Module, layout: str = "torchvision") -> list[TorchLayer]:
    """The layers of a network with their names in PyTorch.

    Args:
      model: A network whose structure exists in torchvision. It may be abstract, from ``nnx.eval_shape``.
      layout: ``'torchvision'`` or ``'timm'``.

    Raises:
      UsageError: The network, or one of its layers, does not exist in torchvision and timm.

    >>> from cnn_jax import models
    >>> resnet = nnx.eval_shape(lambda: models.create("resnet_18", rngs=nnx.Rngs(0)))
    >>> [layer.name for layer in torch_layers(resnet) if "downsample" in layer.name][:2]
    ['layer2.0.downsample.0', 'layer2.0.downsample.1']
    >>> vgg = nnx.eval_shape(lambda: models.create("vgg_a", rngs=nnx.Rngs(0)))
    >>> {layer.path: layer.name for layer in torch_layers(vgg) if layer.path in ("conv2_1", "fc7")}
    {'conv2_1': 'features.3', 'fc7': 'classifier.3'}
    """
    children = [getattr(model, name) for name in model.names] if isinstance(model, nn.Sequence) else []
    kinds = {kind for kind in (nn.Flatten, nn.Residual, nn.Parallel) if any(isinstance(c, kind) for c in children)}
    if not isinstance(model, nn.Sequence) or len(kinds) != 1:
        raise UsageError(
            "weights: torchvision has no network of this structure; supported are networks with a Flatten (AlexNet, "
            "VGG), Residual blocks (ResNet) or Parallel branches (GoogLeNet); use convolutionalize only after loading"
        )
    if kinds == {nn.Flatten}:
        layers = list(_sequence(model, "", "", _two_lists(model)))
        if layout == "timm":
            layers = _with_timm_classifier(layers)
    else:
        layers = list(_sequence(model, "", "", [re.sub(r"^(layer\d+)_(\d+)$", r"\1.\2", name) for name in model.names]))
    epsilon = _INCEPTION_EPSILON if kinds == {nn.Parallel} else _EPSILON
    for layer in layers:
        _check(layer, epsilon)
    return layers


def _two_lists(model: nn.Sequence) -> list[str]:
    """The names ``features.0``, ``features.1``, ..., and after the ``Flatten`` ``classifier.0``, ..."""
    flatten = next(index for index, name in enumerate(model.names) if isinstance(getattr(model, name), nn.Flatten))
    after = len(model.names) - flatten - 1
    return [*(f"features.{index}" for index in range(flatten)), "", *(f"classifier.{index}" for index in range(after))]


def _with_timm_classifier(layers: list[TorchLayer]) -> list[TorchLayer]:
    linear = [layer for layer in layers if isinstance(layer.module, nn.Linear)]
    if len(linear) != len(_TIMM_CLASSIFIER):
        raise UsageError(
            f"weights: timm's VGG has three fully connected layers and not {len(linear)}; use layout='torchvision'"
        )
    renamed = [
        dataclasses.replace(layer, name=name, as_convolution=name != "head.fc")
        for layer, name in zip(linear, _TIMM_CLASSIFIER, strict=True)
    ]
    return [layer for layer in layers if layer not in linear] + renamed


def _sequence(module: nn.Sequence, path: str, prefix: str, names: Iterable[str]) -> Iterator[TorchLayer]:
    """The layers in a sequence, given the names of its children in PyTorch."""
    maps = None
    for own, name in zip(module.names, names, strict=True):
        child = getattr(module, own)
        if isinstance(child, nn.Flatten):
            maps = child.input_shape
        yield from _layer(child, f"{path}/{own}".lstrip("/"), f"{prefix}.{name}".lstrip("."), maps)
        if isinstance(child, nn.Linear):
            maps = None


def _layer(module: Any, path: str, prefix: str, maps: tuple[int, ...] | None) -> Iterator[TorchLayer]:
    if isinstance(module, nn.Residual):
        _check_block(module.branch, path)
        yield from _sequence(module.branch, f"{path}/branch", prefix, module.branch.names)
        if module.shortcut is not None:
            yield from _sequence(module.shortcut, f"{path}/shortcut", f"{prefix}.downsample", _numbers(module.shortcut))
    elif isinstance(module, nn.Parallel):
        for index, name in enumerate(module.names, start=1):
            branch = getattr(module, name)
            if not isinstance(branch, nn.Sequence):
                yield from _layer(branch, f"{path}/{name}", f"{prefix}.branch{index}", None)
                continue
            is_list = any(isinstance(getattr(branch, inner), nn.Sequence) for inner in branch.names)
            names = _numbers(branch) if is_list else branch.names
            yield from _sequence(branch, f"{path}/{name}", f"{prefix}.branch{index}", names)
    elif isinstance(module, nn.Sequence):
        yield from _sequence(module, path, prefix, module.names)
    elif isinstance(module, nn.Conv | nn.Linear | nn.BatchNorm):
        yield TorchLayer(path, prefix, module, maps if isinstance(module, nn.Linear) else None)
    elif isinstance(module, nnx.Module) and jax.tree.leaves(nnx.state(module)):
        raise UsageError(f"weights: layer {path!r} is a {type(module).__name__}, which torchvision does not have")


def _numbers(module: nn.Sequence) -> list[str]:
    return [str(index) for index in range(len(module.names))]


def _check(layer: TorchLayer, epsilon: float) -> None:
    """Checks properties of a layer that affect its outputs and are not stored in a state dict."""
    module = layer.module
    if isinstance(module, nn.BatchNorm) and module.epsilon != epsilon:
        raise UsageError(
            f"weights: BatchNorm {layer.path!r} has epsilon={module.epsilon}, but in torchvision it is {epsilon}"
        )
    if isinstance(module, nn.Conv) and module.mask is not None:
        raise UsageError(f"weights: Conv {layer.path!r} has a mask, but torchvision's convolutions have none")


def _check_block(branch: nn.Sequence, path: str) -> None:
    layers = [getattr(branch, name) for name in branch.names]
    if not isinstance(layers[0], nn.Conv):
        raise UsageError(
            f"weights: block {path!r} starts with {branch.names[0]!r}, but in torchvision with a convolution"
        )
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv)]
    if len(convolutions) == 3 and max(convolutions[0].strides) > 1:
        raise UsageError(
            f"weights: block {path!r} has its stride in the 1x1 convolution, as in the paper, but torchvision and timm "
            f"have it in the 3x3 convolution; create the network with stride='v1.5'"
        )
