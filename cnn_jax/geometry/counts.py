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
    if isinstance(layers, Mapping):
        return parameter_count(list(layers.values()))
    if isinstance(layers, list | tuple):
        return sum(parameter_count(layer) for layer in layers)
    if isinstance(layers, Window | int):
        raise UsageError("parameter_count: a window has no channels to count; give layers, such as nn.Conv")
    if not isinstance(layers, nnx.Module):
        return 0
    total = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layers, nnx.Param)))
    modules: list[Any] = [module for _, module in nnx.iter_modules(layers)]
    masked = [module for module in modules if getattr(module, "mask", None) is not None]
    return total - sum(module.kernel.size - kernel_entries(module) for module in masked)


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


def multiply_adds(layer: Any, output_shape: Sequence[int]) -> int:
    """Multiplications of weights with inputs, for one example: those of convolutions and matrix products; no biases.

    Args:
      layer: A layer.
      output_shape: Without the batch axis.

    >>> from cnn_jax import nn
    >>> multiply_adds(nn.Conv(1, 6, (5, 5), rngs=nnx.Rngs(0)), (28, 28, 6))
    117600
    """
    kernel, positions = kernel_entries(layer), output_shape[:-1]
    unshared = len(getattr(getattr(layer, "kernel", None), "shape", ())) > len(positions) + 2
    products = kernel if unshared else kernel * math.prod(positions)
    window = window_of(layer)
    # A transposed convolution visits positions that are zero, all but one in ``input_dilation``.
    spread = window.over(len(output_shape) - 1)["input_dilation"] if products and window else (1,)
    return products // math.prod(spread)


def connections(layer: Any, output_shape: Sequence[int]) -> int:
    """Connections as LeCun counts them: of every unit, one to each of its inputs, and one to its bias.

    A window without a kernel has one connection to each of its positions, so that a trained subsampling layer of 2x2
    has 5 a unit. Layers without kernel or window, such as activations and normalisations, have none, unless they hold a
    bias for each unit.

    Args:
      layer: A layer.
      output_shape: Without the batch axis.

    References:
      LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, 1998, section II.B.

    >>> from cnn_jax import nn
    >>> connections(nn.Conv(1, 6, (5, 5), padding="VALID", rngs=nnx.Rngs(0)), (28, 28, 6))
    122304
    """
    units, window = math.prod(output_shape), window_of(layer)
    bias = getattr(layer, "bias", None)
    biases = 0 if bias is None else units
    products = multiply_adds(layer, output_shape)
    if products:
        return products + biases
    if window is not None:
        return units * math.prod(window.over(len(output_shape) - 1)["kernel_size"]) + biases
    return biases if bias is not None and tuple(bias.shape) == tuple(output_shape) else 0
