"""The parts of a data set's images that units respond to most, cropped to their receptive fields."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from cnn_jax.attribution.target import Function, objective
from cnn_jax.errors import UsageError
from cnn_jax.geometry.fields import AxisField
from cnn_jax.geometry.follower import follow
from cnn_jax.geometry.places import Place
from cnn_jax.ops.arguments import AnyArray, integer


@dataclasses.dataclass(frozen=True)
class StrongestCrops:
    """The strongest responses of some channels to the images of a data set, the strongest first.

    Attributes:
      function: The network.
      activation: The name of the activation; None for the function's output.
      channels: The channels, (C,).
      responses: The values of the units, (C, k); -inf if there were fewer than k images.
      indices: The index in the data set of the image of each response, (C, k); -1 for none.
      positions: The position of each unit in its map, (C, k, rank).
      intervals: The part of the image that the unit depends on, (C, k, axes, 2): the first pixel and the one after the
        last along each axis. If the receptive field extends beyond the image, it is clipped to the image.
      images: Index -> whole image, for the images of the responses.
    """

    function: Function
    activation: str | None
    channels: Int[np.ndarray, " channels"]
    responses: Float[np.ndarray, "channels k"]
    indices: Int[np.ndarray, "channels k"]
    positions: Int[np.ndarray, "channels k rank"]
    intervals: Int[np.ndarray, "channels k axes 2"]
    images: dict[int, Shaped[np.ndarray, "*space colours"]]

    def of_channels(self, rows: Sequence[int] | Int[np.ndarray, " chosen"]) -> "StrongestCrops":
        """The responses of some of the channels.

        Args:
          rows: The indices of these channels in ``channels``.
        """
        chosen = np.asarray(rows, int)
        arrays = {
            name: getattr(self, name)[chosen] for name in ("channels", "responses", "indices", "positions", "intervals")
        }
        numbers = set(arrays["indices"].ravel().tolist())
        images = {number: image for number, image in self.images.items() if number in numbers}
        return dataclasses.replace(self, images=images, **arrays)

    def crop(self, array: Shaped[np.ndarray, "*space colours"], row: int, column: int) -> Shaped[np.ndarray, "..."]:
        """The part of an image, or of another array of its size, that one unit depends on."""
        return array[tuple(slice(start, stop) for start, stop in self.intervals[row, column].tolist())]

    def crops(self) -> list[list[Shaped[np.ndarray, "..."]]]:
        """The crop of each response: a list for each channel, the strongest first."""
        return self._each(lambda row, column: self.images[int(self.indices[row, column])])

    def pictures(self, method: Callable[..., Array], **options: Any) -> list[list[Shaped[np.ndarray, "..."]]]:
        """The attribution map of each response by a method such as ``deconvnet``, cropped like the images.

        Args:
          method: ``method(function, x, target, **options)``, such as
            :func:`~cnn_jax.attribution.guided_backpropagation`.
          options: The options of the method.

        Returns:
          A list for each channel, as :meth:`crops`.
        """

        @jax.jit
        def shown(images: Array, positions: Array, channels: Array) -> Array:
            units = (self.activation, tuple(positions.T), channels)
            return method(self.function, images, units, **options)

        rows = []
        for row, channel in enumerate(self.channels):
            found = self.indices[row] >= 0
            numbers = np.where(found, self.indices[row], self.indices[row, 0])  # the same shape for every channel
            images = jnp.asarray(np.stack([self.images[int(number)] for number in numbers]))
            channels = jnp.full(len(numbers), channel)
            rows.append(np.asarray(shown(images, jnp.asarray(self.positions[row]), channels)))
        return self._each(lambda row, column: rows[row][column])

    def _each(self, array: Callable[[int, int], np.ndarray]) -> list[list[np.ndarray]]:
        return [
            [self.crop(array(row, column), row, column) for column in range(np.count_nonzero(numbers >= 0))]
            for row, numbers in enumerate(self.indices)
        ]


class _Strongest(NamedTuple):
    """The strongest responses so far, (C, k) each."""

    responses: Array
    indices: Array
    positions: Array  # flattened


def strongest_crops(
    function: Function,
    images: Shaped[AnyArray, "n *space colours"] | Iterable[Shaped[AnyArray, "batch *space colours"]],
    activation: str | None,
    channels: int | Sequence[int] | None = None,
    *,
    k: int = 9,
    one_per_image: bool = True,
    batch_size: int = 256,
) -> StrongestCrops:
    """Finds the strongest responses of some channels to the images of a data set, which is read once.

    Args:
      function: A network with named activations, or any JAX function of a batch with ``activation=None``.
      images: All images, (N, *space, C), or an iterable of batches, for data sets that do not fit into memory. No batch
        may have more images than the first one.
      activation: The name of the activation; None for the output.
      channels: The channels of the activation; all by default.
      k: The number of responses to keep for each channel.
      one_per_image: Whether to keep at most one response of each channel per image, as in the papers. The second
        strongest response is often at the same place, shifted by a pixel.
      batch_size: The size of the batches into which an array ``images`` is divided.

    Returns:
      The responses with their crops. Besides one batch, only the images of the responses are kept in memory: at most
      ``k`` for each channel.

    Raises:
      UsageError: An activation or channel is unknown, there are no images, or the receptive field of the activation is
        unknown because its axes do not correspond to those of the image, for example after a transposition.

    References:
      Lecture 001, "Illustration of deconvnet and guided backpropagation"; Zeiler and Fergus, Visualizing and
      understanding convolutional networks, 2014, figure 2.

    >>> images = jnp.zeros((20, 8, 8, 1)).at[7, 2:4, 5].set(1.0)
    >>> mean_of_3x3 = lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME") / 9
    >>> found = strongest_crops(mean_of_3x3, images, None, k=1)
    >>> found.indices.item(), found.positions[0, 0].tolist(), found.intervals[0, 0].tolist(), found.crops()[0][0].shape
    (7, [2, 4], [[1, 4], [3, 6]], (3, 3, 1))
    """
    op = "strongest_crops"
    k, batch_size = integer(op, "k", k, least=1), integer(op, "batch_size", batch_size, least=1)
    responses = objective(op, function, (activation, None, 0)).activation
    batches = _batches(op, images, batch_size)
    first = next(batches, None)
    if first is None:
        raise UsageError(f"{op}: there are no images")
    shape, size = first.shape[1:], len(first)
    place = _place(op, responses, shape)
    chosen = _channels(op, channels, place.shape[-1])

    @jax.jit
    def update(best: _Strongest, images: Array, start: Array, count: Array) -> _Strongest:
        values = responses(images)[..., chosen].reshape(len(images), -1, len(chosen)).astype(jnp.float32)
        values = jnp.where(jnp.arange(len(images))[:, None, None] < count, values, -jnp.inf)
        places = jnp.broadcast_to(jnp.arange(values.shape[1])[None, :, None], values.shape)
        if one_per_image:
            places = values.argmax(axis=1, keepdims=True)
            values = values.max(axis=1, keepdims=True)
        numbers = start + jnp.broadcast_to(jnp.arange(len(images))[:, None, None], values.shape)
        flat = [array.reshape(-1, len(chosen)).T for array in (values, numbers, places)]
        new = _strongest(_Strongest(*flat), min(k, flat[0].shape[1]))
        return _strongest(jax.tree.map(lambda *pair: jnp.concatenate(pair, axis=1), best, new), k)

    nothing = jnp.full((len(chosen), k), -1)
    best, start = _Strongest(jnp.full((len(chosen), k), -jnp.inf, jnp.float32), nothing, nothing), 0
    kept: dict[int, np.ndarray] = {}
    for batch in itertools.chain([first], batches):
        if batch.shape[1:] != shape or len(batch) > size:
            raise UsageError(
                f"{op}: a batch has shape {batch.shape}, the first one {first.shape}; give images of one size, and no "
                "batch larger than the first"
            )
        padded = np.concatenate([batch, np.zeros((size - len(batch), *shape), batch.dtype)])
        best = update(best, padded, start, len(batch))
        wanted = set(np.unique(best.indices).tolist()) - {-1}
        kept = {number: image for number, image in kept.items() if number in wanted}
        kept |= {number: np.array(batch[number - start]) for number in wanted if number >= start}
        start += len(batch)
    return _collected(function, activation, chosen, best, place, kept)


def _collected(
    function: Function,
    activation: str | None,
    channels: np.ndarray,
    best: _Strongest,
    place: Place,
    images: dict[int, np.ndarray],
) -> StrongestCrops:
    """The result, with the positions and intervals of the responses."""
    maps, found = place.shape[1:-1], np.maximum(best.positions, 0)
    positions = (
        np.stack([*np.unravel_index(found, maps), found][: len(maps)], axis=-1) if maps else found[..., None][..., :0]
    )
    intervals = [
        [place.interval((0, *position, int(channel))) for position in row.tolist()]
        for channel, row in zip(channels, positions.reshape(*found.shape, len(maps)), strict=True)
    ]
    return StrongestCrops(
        function=function,
        activation=activation,
        channels=channels,
        responses=np.asarray(best.responses),
        indices=np.asarray(best.indices),
        positions=positions,
        intervals=np.clip(np.array(intervals) + np.array([0, 1]), 0, np.array(place.space)[:, None]),
        images=images,
    )


def _strongest(found: _Strongest, k: int) -> _Strongest:
    """The k strongest responses of each channel; of equal ones the first."""
    responses, order = jax.lax.top_k(found.responses, k)
    return _Strongest(responses, *(jnp.take_along_axis(array, order, axis=1) for array in found[1:]))


def _batches(op: str, images: Any, batch_size: int) -> Iterator[np.ndarray]:
    """Batches as NumPy arrays."""
    if isinstance(images, AnyArray):
        whole, starts = images, range(0, len(images), batch_size)
        images = (whole[first : first + batch_size] for first in starts)
    for batch in images:
        array = np.asarray(batch)
        if array.ndim < 2 or not len(array):
            raise UsageError(f"{op}: a batch has shape {array.shape}; give (N, *space, C) with at least one image")
        yield array


def _place(op: str, responses: Callable[[Array], Array], shape: tuple[int, ...]) -> Place:
    """The receptive fields of the units of an activation, for images of a shape."""
    start = Place.of_input((1, *shape), len(shape) - 1)
    jax.eval_shape(responses, jax.ShapeDtypeStruct((1, *shape), jnp.float32))  # raises an error for invalid functions
    place, _ = follow(responses, start)
    if place is not None and len(place.shape) == 2 and None in place.fields:
        whole = tuple(AxisField.constant((0, size - 1)) for size in shape[:-1])
        return dataclasses.replace(place, fields=whole)  # a dense layer depends on the whole image
    if place is None or None in place.fields:
        raise UsageError(
            f"{op}: the receptive field of the activation is unknown for images of shape {shape}; choose an activation "
            "before the layer that moves pixels"
        )
    return place


def _channels(op: str, channels: int | Sequence[int] | None, count: int) -> Int[np.ndarray, " channels"]:
    given = range(count) if channels is None else np.atleast_1d(channels).tolist()
    for channel in given:
        if not 0 <= integer(op, "channels", channel) < count:
            raise UsageError(f"{op}: there is no channel {channel}; the activation has {count}, from 0 to {count - 1}")
    return np.array(given, int)
