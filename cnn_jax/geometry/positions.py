"""What single layers do to receptive fields: read off their windows, or off what JAX traces of them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from cnn_jax.geometry.fields import AxisField, adaptive_field
from cnn_jax.geometry.follower import follow
from cnn_jax.geometry.places import Factor, Place, Shape
from cnn_jax.geometry.windows import adaptive_size, window_of


def keeps_positions(layer: Callable[..., Any], shape: Sequence[int], *, mixing_channels: bool = True) -> bool:
    """Whether every output of a layer depends on the input at its own position only.

    So do an activation, a normalisation, dropout at test time, a sum over channels.

    Args:
      layer: A function, or a module, whose parameters may be abstract.
      shape: Of one input, without the batch axis, channels last.
      mixing_channels: Whether an output may depend on all channels of its position.

    Returns:
      False also where it cannot be told.

    >>> import jax
    >>> keeps_positions(jax.nn.softmax, (28, 28, 6)), keeps_positions(lambda x: x[:, ::-1], (28, 28, 6))
    (True, False)
    """
    before = Place.of_input((1, *shape), len(shape) - mixing_channels)
    behind, _ = follow(layer, before)
    if behind is None or behind.fields != before.fields or len(behind.layout) != len(before.layout):
        return False
    return all(
        one == other
        for one, other in zip(behind.layout, before.layout, strict=True)
        if one[0].along is not None or other[0].along is not None
    )


def behind_layer(layer: Any, place: Place, shape: Shape) -> tuple[Place, int]:
    """What the outputs of a layer see, and the products in its program; 0 for a layer that describes itself.

    Args:
      layer: It says itself how it looks at its input (see :mod:`cnn_jax.geometry.windows`), or its program does.
      place: The input.
      shape: Of the output.
    """
    behind, products = by_description(layer, place, shape), 0
    if behind is None and callable(layer):
        behind, products = follow(layer, place)
    return place.lost(shape) if behind is None or behind.shape != shape else behind, products


def by_description(layer: Any, place: Place, shape: Shape) -> Place | None:
    """The same for a layer with a window, or one that is given its output size; None for another."""
    window, channels = window_of(layer), len(place.layout) - 1
    given = None if window is not None or channels < 2 else adaptive_size(layer, channels - 1)
    rank = (window.rank or channels - 1) if window is not None else len(given or ())
    axes = range(channels - rank, channels)
    if not 0 < rank < channels + 1 or len(shape) != channels + 1 or place.shape[: axes[0]] != shape[: axes[0]]:
        return None
    if place.running(channels):
        place = place.collapsed(channels)
    place = place.with_axis(channels, Factor(shape[-1]))
    if window is not None:
        return place.windowed(window, axes, shape)
    assert given is not None
    for axis, field in zip(axes, adaptive_field([place.shape[axis] for axis in axes], given), strict=True):
        place = place.moved(axis, shape[axis], partial(AxisField.through, layer=field))
    return place
