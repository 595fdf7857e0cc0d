"""The units at one place of a network, and what is known of them behind a layer."""

import dataclasses
import math
from typing import Any

from cnn_jax.geometry.positions import keeps_positions
from cnn_jax.geometry.receptive_field import Flow
from cnn_jax.geometry.windows import adaptive_size, window_of

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Place:
    """The units at one place of a network: their shape, and what they see."""

    shape: Shape | None
    flow: Flow

    @classmethod
    def unknown(cls, shape: Shape | None) -> "Place":
        """Units of that shape of which it cannot be told what they see."""
        return cls(shape, Flow(None, None))


def behind(layer: Any, place: Place, shape: Shape | None) -> Place:
    """What is known behind a layer; its output has the shape, which is None for one that is not run."""
    before, flow = place.shape, place.flow
    if before is None or shape is None or flow.field is None or flow.sizes is None:
        return Place.unknown(shape)
    rank = len(before) - 1
    field, window = flow.field, window_of(layer)
    if window is not None and rank and window.rank in (None, rank):
        return Place(shape, flow.slid(window, rank))
    output_size = adaptive_size(layer, rank)
    if output_size is not None and rank:
        return Place(shape, flow.adapted(output_size))
    if len(shape) == 1 and rank and math.prod(shape) == math.prod(before):  # flattened: the same units in a row
        return Place(shape, flow)
    if callable(layer) and keeps_positions(layer, before, mixing_channels=rank > 0):
        return Place(shape, flow)
    if math.prod(shape[:-1]) == 1:  # one unit, or a row of them, for all positions
        return Place(shape, Flow(field.of_all(flow.sizes), (1,) * len(flow.sizes)))
    return Place.unknown(shape)
