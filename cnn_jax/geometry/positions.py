"""The effect of single layers on receptive fields, from their windows or from their jaxprs."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from cnn_jax.geometry.fields import AxisField, adaptive_field
from cnn_jax.geometry.follower import follow
from cnn_jax.geometry.places import Factor, Place, Shape
from cnn_jax.geometry.windows import adaptive_size, window_of


def keeps_positions(layer: Callable[..., Any], shape: Sequence[int]) -> bool:
    """Whether every output of a layer depends on the input at its own position only.

    Examples are activations, normalisation in evaluation, dropout in evaluation, and sums over channels.

    Args:
      layer: A function or module; the parameters of a module may be abstract.
      shape: The shape of one input, without the batch axis, with channels last.

    Returns:
      True if it does; False if it does not or if this is unknown.

    >>> import jax
    >>> keeps_positions(jax.nn.softmax, (28, 28, 6)), keeps_positions(lambda x: x[:, ::-1], (28, 28, 6))
    (True, False)
    """
    before = Place.of_input((1, *shape), len(shape) - 1)
    result, _ = follow(layer, before)
    if result is None or result.fields != before.fields or len(result.layout) != len(before.layout):
        return False
    return all(
        one == other
        for one, other in zip(result.layout, before.layout, strict=True)
        if one[0].along is not None or other[0].along is not None
    )


def after_layer(layer: Any, place: Place, shape: Shape) -> tuple[Place, int]:
    """The place of a layer's output, and the number of products in its jaxpr (0 if its attributes describe it).

    Args:
      layer: The layer. Its window is read from its attributes (see :mod:`cnn_jax.geometry.windows`), or else its jaxpr
        is analysed.
      place: The place of the input.
      shape: The shape of the output.
    """
    result, products = from_attributes(layer, place, shape), 0
    if result is None and callable(layer):
        result, products = follow(layer, place)
    return place.only_common(shape) if result is None or result.shape != shape else result, products


def from_attributes(layer: Any, place: Place, shape: Shape) -> Place | None:
    """The place of the output for a layer with a window or for an adaptive pool; None for other layers."""
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
