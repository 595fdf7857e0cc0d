"""Output shapes of layers and networks, computed without running them."""

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
    """Computes the output shape of layers for one input, without running them.

    Args:
      layers: A model, a layer, a list of layers, or a mapping from names to layers. Their parameters may be abstract,
        as from ``nnx.eval_shape``.
      input_shape: The shape of one input without the batch axis, with channels last.

    Returns:
      The output shape without the batch axis.

    Raises:
      UsageError: The input of a layer does not fit; the message contains the layer's name (or index in a list).

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
    run, state = in_evaluation(layer)
    return jax.eval_shape(run, state, jax.ShapeDtypeStruct((1, *shape), jnp.float32)).shape[1:]


def in_evaluation(layer: Callable[..., Any]) -> tuple[Callable[[Any, jax.Array], Any], Any]:
    """A layer in evaluation mode as a function of its state and its input, and the state (empty if it is a function).

    The state is an argument, because a function cannot close over abstract arrays.
    """
    if not isinstance(layer, nnx.Module):
        return lambda state, x: layer(x), ()
    graph, state = nnx.split(layer)

    def run(state: Any, x: jax.Array) -> Any:
        merged = nnx.merge(graph, state)
        merged.eval()
        return merged(x)

    return run, state
