"""What torchvision and timm call the layers of a network, by rules that read the network's structure.

- A network with a ``Flatten`` (AlexNet, VGG) is two lists in torchvision, ``features`` before it and ``classifier``
  after it, and a layer is called by its place in its list: ``features.3``. timm calls the three full connections of VGG
  ``pre_logits.fc1``, ``pre_logits.fc2`` and ``head.fc``, and the first two are convolutions there.
- A network with ``Residual`` blocks (ResNet): layers are called as they are here, in a block with its stage and number,
  ``layer1.0.conv1``; its shortcut is a list, ``layer2.0.downsample.0``. timm has the same names.
- A network with ``Parallel`` branches (GoogLeNet): branches are counted, ``inception3a.branch1.conv``, and are lists
  themselves where they have more than one unit, ``inception3a.branch2.1.bn``.
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
    """A layer with parameters, here and there.

    Attributes:
      path: Where it is in the network, ``'layer1_0/branch/conv1'``.
      name: What it is called there, ``'layer1.0.conv1'``.
      module: The layer.
      maps: (height, width, channels) of what was flattened for a ``Linear``, which PyTorch flattens channels first.
      as_convolution: Whether a ``Linear`` is a convolution there.
    """

    path: str
    name: str
    module: nn.Conv | nn.Linear | nn.BatchNorm
    maps: tuple[int, ...] | None = None
    as_convolution: bool = False


def torch_layers(model: nnx.Module, layout: str = "torchvision") -> list[TorchLayer]:
    """The layers of a network with their names in PyTorch.

    Args:
      model: One whose structure torchvision has too; it may be abstract.
      layout: ``'torchvision'`` or ``'timm'``.

    Raises:
      UsageError: A network, or a layer of it, that neither of them has.

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
            "weights: torchvision has no network of this structure; it has those with a Flatten (AlexNet, VGG), "
            "with Residual blocks (ResNet) or with Parallel branches (GoogLeNet). Convolutionalize after loading"
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
    """``features.0``, ``features.1``, ..., and after the ``Flatten`` ``classifier.0``, ..."""
    flatten = next(index for index, name in enumerate(model.names) if isinstance(getattr(model, name), nn.Flatten))
    after = len(model.names) - flatten - 1
    return [*(f"features.{index}" for index in range(flatten)), "", *(f"classifier.{index}" for index in range(after))]


def _with_timm_classifier(layers: list[TorchLayer]) -> list[TorchLayer]:
    linear = [layer for layer in layers if isinstance(layer.module, nn.Linear)]
    if len(linear) != len(_TIMM_CLASSIFIER):
        raise UsageError(f"weights: timm's VGG has three full connections and not {len(linear)}; use 'torchvision'")
    renamed = [
        dataclasses.replace(layer, name=name, as_convolution=name != "head.fc")
        for layer, name in zip(linear, _TIMM_CLASSIFIER, strict=True)
    ]
    return [layer for layer in layers if layer not in linear] + renamed


def _sequence(module: nn.Sequence, path: str, prefix: str, names: Iterable[str]) -> Iterator[TorchLayer]:
    """The layers in a sequence whose children have these names in PyTorch."""
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
    """What a state dict does not say, and the numbers of a layer still depend on."""
    module = layer.module
    if isinstance(module, nn.BatchNorm) and module.epsilon != epsilon:
        raise UsageError(
            f"weights: BatchNorm {layer.path!r} has epsilon={module.epsilon}, in torchvision's network it is {epsilon}"
        )
    if isinstance(module, nn.Conv) and module.mask is not None:
        raise UsageError(f"weights: Conv {layer.path!r} has a mask, torchvision's convolutions have none")


def _check_block(branch: nn.Sequence, path: str) -> None:
    layers = [getattr(branch, name) for name in branch.names]
    if not isinstance(layers[0], nn.Conv):
        raise UsageError(f"weights: block {path!r} starts with {branch.names[0]!r}, torchvision's with a convolution")
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv)]
    if len(convolutions) == 3 and max(convolutions[0].strides) > 1:
        raise UsageError(
            f"weights: block {path!r} strides in its 1x1 convolution, as in the paper; the weights of torchvision and "
            f"timm are for strides in the 3x3: create the network with stride='v1.5'"
        )
