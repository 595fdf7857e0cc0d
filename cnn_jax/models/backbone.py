"""Layers of a network for classification that another network takes over, up to a map."""

import math
from collections.abc import Callable
from typing import Any

from flax import nnx
from jaxtyping import DTypeLike

from cnn_jax import geometry, nn
from cnn_jax.errors import UsageError
from cnn_jax.models.variant import Variant

Lookup = Callable[[str], Variant]
"""Finds the registry entry of a network by its name."""


def create_backbone(
    variant: Lookup,
    name: str,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    options: Any,
) -> nn.Sequence:
    """The network whose layers another one takes over; of its output layer nothing is used."""
    chosen = variant(name)
    unknown = [option for option in options if option not in chosen.options()]
    if unknown:
        raise UsageError(f"{name} has no option {unknown[0]!r}, of backbone_options")
    return chosen.builder(num_classes=2, input_shape=input_shape, width=width, dtype=dtype, rngs=rngs, **options)


def maps_of(
    base: nn.Sequence, name: str, input_shape: tuple[int, ...], coarsest: int
) -> tuple[dict[str, Any], dict[int, tuple[str, int]]]:
    """The layers up to the coarsest map, and for each number of pixels of a cell the last layer and its channels.

    Args:
      base: The network.
      name: Its name, for messages.
      input_shape: The shape of one input.
      coarsest: The number of pixels of a cell of the coarsest map that is wanted.

    Raises:
      UsageError: The network is not one for classification, or its maps have no equal cells.
    """
    layers: dict[str, Any] = {}
    levels: dict[int, tuple[str, int]] = {}
    shape, whole = tuple(input_shape), input_shape[:-1]
    if isinstance(base, nn.SkipSequence):
        raise UsageError(f"backbone={name!r} is not a network for classification; use one such as resnet_18")
    for layer_name in base.names:
        layer = getattr(base, layer_name)
        if isinstance(layer, nn.Auxiliary):
            continue
        shape = geometry.output_shape({layer_name: layer}, shape)
        space = shape[:-1]
        if (
            len(space) != len(whole)
            or max(before / after for before, after in zip(whole, space, strict=True)) > coarsest
        ):
            break
        strides = {before / after for before, after in zip(whole, space, strict=True)}
        stride = strides.pop()
        if strides or stride != math.floor(stride):
            raise UsageError(
                f"backbone={name!r}: layer {layer_name!r} makes {space} of {whole}, no map of equal cells; use one "
                "whose convolutions keep the size, such as resnet_18 or small_cnn"
            )
        layers[layer_name] = layer
        levels[int(stride)] = layer_name, shape[-1]
    return layers, levels
