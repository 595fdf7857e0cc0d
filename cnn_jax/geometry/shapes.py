"""Output shapes of layers and networks, found without running them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from cnn_jax.errors import UsageError


def output_shape(
    layers: Callable[..., Any] | Mapping[str, Callable[..., Any]] | Sequence[Callable[..., Any]],
    input_shape: Sequence[int],
) -> tuple[int, ...]:
    """The shape of what layers make of one input; nothing is computed.

    Args:
      layers: a model, a layer, or layers one after the other: names to layers, or a bare list. They may hold abstract
        parameters, those of ``nnx.eval_shape``.
      input_shape: without the batch axis, channels last.

    Returns:
      Without the batch axis.

    Raises:
      UsageError: the error of the layer that the shape does not fit, with the layer's name (its index in a list).

    >>> from cnn_jax import nn
    >>> conv = nn.Conv(3, 16, (5, 5), padding="VALID", rngs=nnx.Rngs(0))
    >>> output_shape({"conv": conv, "pool": nn.MaxPool((2, 2)), "flatten": nn.flatten}, (32, 32, 3))
    (3136,)
    >>> output_shape([conv, conv], (32, 32, 3))
    Traceback (most recent call last):
    cnn_jax.errors.UsageError: layer 1: Conv: inputs of shape (1, 28, 28, 16) have 16 channels, ...
    """
    shape = tuple(input_shape)
    if isinstance(layers, Mapping):
        named = [(repr(name), layer) for name, layer in layers.items()]
    elif isinstance(layers, Sequence):
        named = [(str(index), layer) for index, layer in enumerate(layers)]
    else:
        return _applied(layers, shape)
    for name, layer in named:
        try:
            shape = _applied(layer, shape)
        except UsageError as error:
            raise UsageError(f"layer {name}: {error}") from error
    return shape


def _applied(layer: Callable[..., Any], shape: tuple[int, ...]) -> tuple[int, ...]:
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    if not isinstance(layer, nnx.Module):
        return jax.eval_shape(layer, x).shape[1:]
    # The parameters are passed in and not closed over, because abstract ones cannot be.
    graph, state = nnx.split(layer)

    def run(state: Any, x: jax.Array) -> Any:
        merged = nnx.merge(graph, state)
        merged.eval()
        return merged(x)

    return jax.eval_shape(run, state, x).shape[1:]
