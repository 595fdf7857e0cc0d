"""Where each tensor of a network is in a file, under which name, and with its axes in which order."""

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
BATCHES = "num_batches_tracked"  # PyTorch's count of training steps, which nothing here needs


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor here and in a file.

    Attributes:
      path: Here, ``'conv1/kernel'``.
      name: In the file, ``'conv1.weight'``.
      split: The shape here, with every axis that has to move on its own: (7, 7, 512, 4096) for a kernel of
        (25088, 4096) behind maps of 7x7x512.
      order: The axes of ``split`` in the order of the file.
      own_shape: The shape here.
      shape: The shape in the file.
    """

    path: str
    name: str
    split: tuple[int, ...]
    order: tuple[int, ...]
    own_shape: tuple[int, ...]
    shape: tuple[int, ...]

    def outward(self, array: np.ndarray) -> np.ndarray:
        """From here to the file; always a copy, so that nobody writes into an array of JAX's."""
        return np.array(array.reshape(self.split).transpose(self.order), order="C").reshape(self.shape)

    def inward(self, array: np.ndarray) -> np.ndarray:
        """From the file to here.

        >>> entry = Entry("fc/kernel", "fc.weight", (2, 3, 5, 7), (3, 2, 0, 1), (30, 7), (7, 30))
        >>> ours = np.arange(210).reshape(30, 7)
        >>> bool((entry.inward(entry.outward(ours)) == ours).all())
        True
        """
        moved = array.reshape([self.split[axis] for axis in self.order]).transpose(np.argsort(self.order))
        return moved.reshape(self.own_shape)


def paths(state: Any) -> dict[str, Any]:
    """The arrays of a state by their paths, in the order of ``jax.tree.leaves``.

    >>> list(paths(nnx.state(nn.Sequence({"fc": nn.Linear(4, 2, rngs=nnx.Rngs(0))}))))
    ['fc/bias', 'fc/kernel']
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {"/".join(str(key.key) for key in keys if hasattr(key, "key")): leaf for keys, leaf in leaves}


def entries(model: nnx.Module, layout: str) -> list[Entry]:
    """All tensors of a model in a layout.

    Args:
      model: It may be abstract.
      layout: One of :data:`LAYOUTS`; ``'cnn_jax'`` takes any model, the others see :func:`torch_layers`.

    Raises:
      UsageError: An unknown layout, or a network that the layout does not have.

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
    """The layout of a file, from the names of its tensors, wherever in it they are.

    >>> layout_of(["conv1/kernel"]), layout_of(["features.0.weight"]), layout_of(["model/pre_logits.fc1.weight"])
    ('cnn_jax', 'torchvision', 'timm')
    """
    names = list(names)
    endings = {*_TORCH_NAMES.values(), BATCHES}
    if not any(name.rpartition(".")[-1] in endings for name in names if "." in name):
        return "cnn_jax"
    return "timm" if any(re.search(r"(^|[./])pre_logits\.", name) for name in names) else "torchvision"


def is_auxiliary(name: str) -> bool:
    """Whether a tensor is of one of GoogLeNet's heads on the side, which weights may have or leave out.

    >>> is_auxiliary("aux1.fc1.weight"), is_auxiliary("aux2/fc1/kernel"), is_auxiliary("conv1.weight")
    (True, True, False)
    """
    return re.match(r"aux\d+[./]", name) is not None
