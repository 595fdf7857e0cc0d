"""Counts of parameters, multiply-adds and connections. Masked kernel entries do not count."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from cnn_jax.errors import UsageError
from cnn_jax.geometry.windows import Window, window_of


def parameter_count(layers: Any) -> int:
    """Counts the parameters: the entries of all ``nnx.Param`` without masked kernel entries.

    A parameter that several layers share counts once, and so does a layer that occurs several times.

    Args:
      layers: A model, a layer, a list of layers, or a mapping from names to layers. Parameters may be abstract.

    Returns:
      The number of parameters.

    Raises:
      UsageError: One of the layers is only a window, which has no channels.

    >>> parameter_count(nnx.Linear(28 * 28, 10, rngs=nnx.Rngs(0)))
    7850
    >>> from cnn_jax import nn
    >>> parameter_count([nn.Conv(1, 6, (5, 5), rngs=nnx.Rngs(0)), jax.numpy.tanh, nn.MaxPool((2, 2))])
    156
    """
    return sum(trained(layers).values())


def trained(layers: Any) -> dict[int, int]:
    """The sizes of the parameters without masked entries, by the ``id`` of the variable."""
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
    """The number of entries of a layer's ``kernel`` or ``centers`` that are not masked.

    Raises:
      UsageError: The values of the mask are unknown, because it was traced when the layer was created.

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
    entries = getattr(layer, "mask_entries", None)  # counted when the layer was created
    if entries is None:
        raise UsageError(
            f"the entries of a mask of shape {mask.shape} are unknown under nnx.eval_shape; give it as a NumPy array"
        )
    return int(entries)


def multiply_adds(layer: Any, input_shape: Sequence[int], output_shape: Sequence[int], products: int = 0) -> int:
    """Counts the products of weights with inputs for one example, in convolutions and matrix products, without biases.

    The count agrees with other tools (fvcore, and torchvision for convolutions). Every kernel entry counts once per
    output position, including positions in padding or in the gaps of dilated kernels. For a transposed convolution it
    counts once per *input* position, so the count equals that of the convolution that it transposes. In grouped
    convolutions only the channels of one group count per output. Masked kernel entries do not count.

    Args:
      layer: A layer with a window; or with a ``kernel`` or ``centers`` that is multiplied with the last axis of the
        input; or any other layer whose ``products`` are given.
      input_shape: The input shape without the batch axis.
      output_shape: The output shape without the batch axis.
      products: The number of products of weights with inputs in the jaxpr of the layer; used for a layer without window
        or mask.

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
    if len(getattr(getattr(layer, "kernel", None), "shape", ())) > rank + 2:  # one kernel per position
        return entries
    taps = window.taps(input_shape[:-1], output_shape[:-1])
    return entries * taps // math.prod(window.over(rank)["kernel_size"])


def connections(layer: Any, input_shape: Sequence[int], output_shape: Sequence[int], products: int = 0) -> int:
    """Counts connections as LeCun does: each unit has one connection per input and one to its bias.

    A window without a kernel has one connection per position, so a trained 2x2 subsampling layer has 5 connections per
    unit. Layers without kernel or window, such as activations and normalisation, have no connections, unless they have
    a bias for each unit.

    Args:
      layer: The same as in :func:`multiply_adds`.
      input_shape: The input shape without the batch axis.
      output_shape: The output shape without the batch axis.
      products: The same as in :func:`multiply_adds`.

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
