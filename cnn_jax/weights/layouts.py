"""The name, shape and axis order of each tensor of a network in a file."""

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from flax import nnx

from cnn_jax import nn
from cnn_jax.errors import UsageError, nearest
from cnn_jax.weights.torch_names import TorchLayer, torch_layers

LAYOUTS = ("cnn_jax", "torchvision", "timm")

_TORCH_NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
BATCHES = "num_batches_tracked"  # PyTorch's count of training steps, which is not used here


@dataclasses.dataclass(frozen=True)
class Entry:
    """The correspondence between a tensor of the network and a tensor in a file.

    Attributes:
      path: The path in the network, such as ``'conv1/kernel'``.
      name: The name in the file, such as ``'conv1.weight'``.
      split: The shape in the network, with combined axes split. For a kernel of shape (25088, 4096) after flattened
        feature maps of 7x7x512 it is (7, 7, 512, 4096).
      order: The axes of ``split`` in the order of the file.
      own_shape: The shape in the network.
      shape: The shape in the file.
    """

    path: str
    name: str
    split: tuple[int, ...]
    order: tuple[int, ...]
    own_shape: tuple[int, ...]
    shape: tuple[int, ...]

    def outward(self, array: np.ndarray) -> np.ndarray:
        """Converts from the network's layout to the file's. The result is a copy, which is safe to write to."""
        return np.array(array.reshape(self.split).transpose(self.order), order="C").reshape(self.shape)

    def inward(self, array: np.ndarray) -> np.ndarray:
        """Converts from the file's layout to the network's.

        >>> entry = Entry("fc/kernel", "fc.weight", (2, 3, 5, 7), (3, 2, 0, 1), (30, 7), (7, 30))
        >>> ours = np.arange(210).reshape(30, 7)
        >>> bool((entry.inward(entry.outward(ours)) == ours).all())
        True
        """
        moved = array.reshape([self.split[axis] for axis in self.order]).transpose(np.argsort(self.order))
        return moved.reshape(self.own_shape)


def paths(state: Any) -> dict[str, Any]:
    """The arrays of a state by path, in the order of ``jax.tree.leaves``.

    >>> list(paths(nnx.state(nn.Sequence({"fc": nn.Linear(4, 2, rngs=nnx.Rngs(0))}))))
    ['fc/bias', 'fc/kernel']
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {"/".join(str(key.key) for key in keys if hasattr(key, "key")): leaf for keys, leaf in leaves}


def entries(model: nnx.Module, layout: str) -> list[Entry]:
    """The entries of all tensors of a model in a layout.

    Args:
      model: The model. It may be abstract, from ``nnx.eval_shape``.
      layout: One of :data:`LAYOUTS`. ``'cnn_jax'`` supports any model; for the others see :func:`torch_layers`.

    Raises:
      UsageError: The layout is unknown, or does not support the network.

    >>> from cnn_jax import models
    >>> model = nnx.eval_shape(lambda: models.create("alexnet_torchvision", rngs=nnx.Rngs(0)))
    >>> [(entry.name, entry.shape) for entry in entries(model, "torchvision")][:2]
    [('features.0.weight', (64, 3, 11, 11)), ('features.0.bias', (64,))]
    """
    if layout not in LAYOUTS:
        raise UsageError(f"weights: layout={layout!r} is unknown; {nearest(layout, LAYOUTS)}")
    shapes = {path: tuple(leaf.shape) for path, leaf in paths(nnx.state(model, nnx.Not(nnx.RngState))).items()}
    if layout == "cnn_jax":
        return [Entry(path, path, shape, tuple(range(len(shape))), shape, shape) for path, shape in shapes.items()]
    return [
        _entry(layer, ours, theirs, shapes[f"{layer.path}/{ours}"])
        for layer in torch_layers(model, layout)
        for ours, theirs in _TORCH_NAMES.items()
        if f"{layer.path}/{ours}" in shapes
    ]


def _entry(layer: TorchLayer, ours: str, theirs: str, shape: tuple[int, ...]) -> Entry:
    split = shape
    if layer.maps or layer.as_convolution:
        split = (*(layer.maps or (1, 1, shape[0])), shape[-1]) if ours == "kernel" else shape
    rank = len(split)
    # Kernels are (*window, in, out) here and (out, in, *window) there.
    order = (rank - 1, rank - 2, *range(rank - 2)) if rank > 1 else (0,)
    moved = tuple(split[axis] for axis in order)
    flat = isinstance(layer.module, nn.Linear) and rank > 2 and not layer.as_convolution
    return Entry(
        path=f"{layer.path}/{ours}",
        name=f"{layer.name}.{theirs}",
        split=split,
        order=order,
        own_shape=shape,
        shape=(moved[0], math.prod(moved[1:])) if flat else moved,
    )


def layout_of(names: Iterable[str]) -> str:
    """The layout of a file, determined from the names of its tensors, which may have prefixes.

    >>> layout_of(["conv1/kernel"]), layout_of(["features.0.weight"]), layout_of(["model/pre_logits.fc1.weight"])
    ('cnn_jax', 'torchvision', 'timm')
    """
    names = list(names)
    endings = {*_TORCH_NAMES.values(), BATCHES}
    if not any(name.rpartition(".")[-1] in endings for name in names if "." in name):
        return "cnn_jax"
    return "timm" if any(re.search(r"(^|[./])pre_logits\.", name) for name in names) else "torchvision"


def is_auxiliary(name: str) -> bool:
    """Whether a tensor belongs to one of GoogLeNet's auxiliary classifiers, which a file may leave out.

    >>> is_auxiliary("aux1.fc1.weight"), is_auxiliary("aux2/fc1/kernel"), is_auxiliary("conv1.weight")
    (True, True, False)
    """
    return re.match(r"aux\d+[./]", name) is not None
