"""Weights for other classes or channels, as timm adapts them: the head is left alone, the first kernel is adapted."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from flax import nnx

from cnn_jax import models, nn
from cnn_jax.weights.layouts import Entry


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """By what a file does not fit a network, as far as that can be adapted.

    Attributes:
      head: The tensors of output layers that the file has for another number of classes, or not at all.
      stem: The first kernel, if the file has it for another number of channels.
    """

    head: tuple[Entry, ...] = ()
    stem: Entry | None = None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All of them."""
        return (*self.head, *([] if self.stem is None else [self.stem]))


def between(model: nnx.Module, entries: list[Entry], found: Mapping[str, tuple[int, ...]]) -> Adaptation:
    """What has to be adapted.

    Args:
      model: The network; it may be abstract.
      entries: Its tensors.
      found: The shapes of tensors in a file, by name.

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
    """A first kernel for the channels of a network, by the rule of timm's ``adapt_input_conv``.

    One channel: the sum over the channels, which is what an image of equal channels meets. Otherwise the three
    channels, repeated as often as there is place for and scaled by 3 / channels.

    Args:
      stem: The tensor.
      kernel: As the file has it.
    """
    axis = _channel_axis(stem)
    channels = stem.shape[axis]
    kernel = kernel.astype(np.float32)
    if channels == 1:
        return kernel.sum(axis, keepdims=True)
    return np.take(kernel, np.arange(channels) % 3, axis) * np.float32(3 / channels)


def class_axis(entry: Entry) -> int:
    """Where the classes are in a file's tensor of an output layer."""
    # The first axis of codes; the last one here of kernels and biases.
    return 0 if entry.path.endswith("/centers") else entry.order.index(len(entry.split) - 1)


def _channel_axis(entry: Entry) -> int:
    return entry.order.index(len(entry.split) - 2)


def _same_but(entry: Entry, theirs: tuple[int, ...], axis: int) -> bool:
    """Whether a shape is that of a tensor, but for the size of one axis."""
    return len(theirs) == len(entry.shape) and all(
        one == other or index == axis for index, (one, other) in enumerate(zip(theirs, entry.shape, strict=True))
    )


def _first_layer(model: nn.Sequence) -> str | None:
    """The path of the first layer, if that is a convolution of all channels."""
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
