"""Adapts weights to other classes or channels, as timm does: the model keeps its head, the first kernel is adapted."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from flax import nnx

from cnn_jax import models, nn
from cnn_jax.weights.layouts import Entry


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """The differences between a file and a network that can be adapted.

    Attributes:
      head: The tensors of output layers that the file lacks, or has for another number of classes.
      stem: The first kernel, if the file has it for another number of channels.
    """

    head: tuple[Entry, ...] = ()
    stem: Entry | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries of the head and the stem."""
        return (*self.head, *([] if self.stem is None else [self.stem]))


def between(model: nnx.Module, entries: list[Entry], found: Mapping[str, tuple[int, ...]]) -> Adaptation:
    """Finds the differences between a file and a network that can be adapted.

    Args:
      model: The network. It may be abstract, from ``nnx.eval_shape``.
      entries: The network's tensors.
      found: The shapes of the tensors in the file, by name.

    >>> from cnn_jax.weights import layouts
    >>> model = nnx.eval_shape(lambda: models.create("lenet_5_modern", rngs=nnx.Rngs(0)))
    >>> entries = layouts.entries(model, "cnn_jax")
    >>> found = {entry.name: entry.shape for entry in entries} | {"output/kernel": (84, 26), "output/bias": (26,)}
    >>> [entry.path for entry in between(model, entries, found).entries]
    ['output/bias', 'output/kernel']
    """
    if not isinstance(model, nn.Sequence):
        return Adaptation()
    head: list[Entry] = []
    for path in models.output_layers(model):
        layer = [entry for entry in entries if entry.path.startswith(f"{'/'.join(path)}/")]
        if all(_same_but(entry, found.get(entry.name, entry.shape), class_axis(entry)) for entry in layer):
            differs = any(found.get(entry.name) != entry.shape for entry in layer)
            head += layer if differs else []
    stem = next((entry for entry in entries if entry.path == f"{_first_layer(model)}/kernel"), None)
    if stem is not None:
        theirs = found.get(stem.name, stem.shape)
        axis = _channel_axis(stem)
        if theirs == stem.shape or not _same_but(stem, theirs, axis) or (stem.shape[axis] != 1 and theirs[axis] != 3):
            stem = None
    return Adaptation(tuple(head), stem)


def adapted_kernel(stem: Entry, kernel: np.ndarray) -> np.ndarray:
    """Adapts a first kernel to the network's number of input channels, by the rule of timm's ``adapt_input_conv``.

    For one channel it is the sum over the kernel's channels, which gives the same output as a grey image repeated over
    all channels. Otherwise the three channels are repeated as often as needed and scaled by 3 / channels.

    Args:
      stem: The entry of the first kernel.
      kernel: The kernel in the file's layout.

    Returns:
      The adapted kernel in the file's layout, in float32.
    """
    axis = _channel_axis(stem)
    channels = stem.shape[axis]
    kernel = kernel.astype(np.float32)
    if channels == 1:
        return kernel.sum(axis, keepdims=True)
    return np.take(kernel, np.arange(channels) % 3, axis) * np.float32(3 / channels)


def class_axis(entry: Entry) -> int:
    """The axis of the classes in a file's tensor of an output layer."""
    # Class codes have the classes first; kernels and biases of this package have them last.
    return 0 if entry.path.endswith("/centers") else entry.order.index(len(entry.split) - 1)


def _channel_axis(entry: Entry) -> int:
    return entry.order.index(len(entry.split) - 2)


def _same_but(entry: Entry, theirs: tuple[int, ...], axis: int) -> bool:
    """Whether a shape equals that of an entry, apart from the size of one axis."""
    return len(theirs) == len(entry.shape) and all(
        one == other or index == axis for index, (one, other) in enumerate(zip(theirs, entry.shape, strict=True))
    )


def _first_layer(model: nn.Sequence) -> str | None:
    """The path of the first layer, if it is a convolution without feature groups."""
    for name in model.names:
        layer = getattr(model, name)
        if isinstance(layer, nn.Sequence):
            inner = _first_layer(layer)
            return None if inner is None else f"{name}/{inner}"
        if isinstance(layer, nn.Conv):
            return name if layer.kernel.shape[-2] == layer.in_features else None
        if isinstance(layer, nn.Linear):
            return None
    return None
