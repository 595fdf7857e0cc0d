"""How much a layer holds and does: parameters, multiply-adds, connections. Masked entries of kernels do not count."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from cnn_jax.errors import UsageError
from cnn_jax.geometry.windows import Window, window_of


def parameter_count(layers: Any) -> int:
    """The number of trained numbers, those of ``nnx.Param``; a masked entry of a kernel is none.

    A parameter that several layers share counts once, as does a layer that is there several times.

    Args:
      layers: A model, a layer, or layers: a bare list, or names to layers. Parameters may be abstract.

    Raises:
      UsageError: A bare window among the layers, which says nothing of channels.

    >>> parameter_count(nnx.Linear(28 * 28, 10, rngs=nnx.Rngs(0)))
    7850
    >>> from cnn_jax import nn
    >>> parameter_count([nn.Conv(1, 6, (5, 5), rngs=nnx.Rngs(0)), jax.numpy.tanh, nn.MaxPool((2, 2))])
    156
    """
    return sum(trained(layers).values())


def trained(layers: Any) -> dict[int, int]:
    """The sizes of the parameters, without masked entries, by the ``id`` of the variable; see above."""
    if isinstance(layers, Mapping):
        return trained(list(layers.values()))
    if isinstance(layers, list | tuple):
        return {variable: size for layer in layers for variable, size in trained(layer).items()}
    if isinstance(layers, Window | int):
        raise UsageError("parameter_count: a window has no channels to count; give layers, such as nn.Conv")
    if not isinstance(layers, nnx.Module):
        return {}
    nodes: list[Any] = [node for _, node in nnx.iter_graph(layers)]
    sizes = {id(node): int(node.size) for node in nodes if isinstance(node, nnx.Param)}
    masked = [node for node in nodes if getattr(node, "mask", None) is not None and hasattr(node, "kernel")]
    unmasked = {id(node.kernel) for node in nodes if getattr(node, "mask", None) is None and hasattr(node, "kernel")}
    return sizes | {id(node.kernel): kernel_entries(node) for node in masked if id(node.kernel) not in unmasked}


def kernel_entries(layer: Any) -> int:
    """The number of entries of a layer's weights that have an effect: of its ``kernel``, or of its ``centers``.

    Raises:
      UsageError: The kernel has a mask whose numbers are not known, because it was an argument of what made the layer.

    >>> from cnn_jax import nn
    >>> kernel_entries(nn.Conv(6, 16, (5, 5), mask=np.eye(6, 16), rngs=nnx.Rngs(0)))
    150
    """
    weights = getattr(layer, "kernel", None)
    if weights is None:
        weights = getattr(layer, "centers", None)
    if weights is None:
        return 0
    mask = getattr(layer, "mask", None)
    if mask is None:
        return int(weights.size)
    if not isinstance(mask, jax.ShapeDtypeStruct | jax.core.Tracer):
        return int(np.count_nonzero(np.broadcast_to(np.asarray(mask), weights.shape)))
    entries = getattr(layer, "mask_entries", None)  # counted by the layer when it was made
    if entries is None:
        raise UsageError(
            f"the entries of a mask of shape {mask.shape} are not known under nnx.eval_shape; give it as a NumPy array"
        )
    return int(entries)


def multiply_adds(layer: Any, input_shape: Sequence[int], output_shape: Sequence[int], products: int = 0) -> int:
    """Products of weights with inputs, for one example: those of convolutions and matrix products; no biases.

    What counts is what other tools count (fvcore, and for convolutions torchvision): every entry of a kernel once for
    each position of the output, padding and the gaps of dilated kernels no different from the inside of an image; of a
    transposed convolution once for each position of its *input*, so that it has as many as the convolution that it
    transposes. Grouped convolutions count the channels of one group, masked entries of a kernel do not count.

    Args:
      layer: With a window, or with a ``kernel`` or ``centers`` that meets the last axis of its input, or any other of
        which the products are known.
      input_shape: Without the batch axis.
      output_shape: Likewise.
      products: Those of weights with inputs in the program of the layer; for one without window or mask.

    >>> from cnn_jax import nn
    >>> multiply_adds(nn.Conv(1, 6, (5, 5), rngs=nnx.Rngs(0)), (28, 28, 1), (28, 28, 6))
    117600
    >>> multiply_adds(nnx.ConvTranspose(3, 5, (3, 3), strides=2, rngs=nnx.Rngs(0)), (4, 4, 3), (8, 8, 5))
    2160
    """
    entries, window = kernel_entries(layer), window_of(layer)
    if window is None and products and getattr(layer, "mask", None) is None:
        return products
    if window is None:
        return entries * math.prod(output_shape[:-1])
    rank = len(output_shape) - 1
    if len(getattr(getattr(layer, "kernel", None), "shape", ())) > rank + 2:  # one kernel for each position
        return entries
    taps = window.taps(input_shape[:-1], output_shape[:-1])
    return entries * taps // math.prod(window.over(rank)["kernel_size"])


def connections(layer: Any, input_shape: Sequence[int], output_shape: Sequence[int], products: int = 0) -> int:
    """Connections as LeCun counts them: of every unit, one to each of its inputs, and one to its bias.

    A window without a kernel has one connection to each of its positions, so that a trained subsampling layer of 2x2
    has 5 a unit. Layers without kernel or window, such as activations and normalisations, have none, unless they hold a
    bias for each unit.

    Args:
      layer: As for :func:`multiply_adds`, as are the others.
      input_shape: Without the batch axis.
      output_shape: Likewise.
      products: In the program of the layer.

    References:
      LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998, section II.B.

    >>> from cnn_jax import nn
    >>> connections(nn.Conv(1, 6, (5, 5), padding="VALID", rngs=nnx.Rngs(0)), (32, 32, 1), (28, 28, 6))
    122304
    """
    products, window = multiply_adds(layer, input_shape, output_shape, products), window_of(layer)
    bias = getattr(layer, "bias", None)
    biases = 0 if bias is None else math.prod(output_shape)
    if products:
        return products + biases
    if window is not None:
        return window.taps(input_shape[:-1], output_shape[:-1]) * output_shape[-1] + biases
    return biases if bias is not None and tuple(bias.shape) == tuple(output_shape) else 0
