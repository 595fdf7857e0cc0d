"""Networks that map images to maps, applied to images of any size: overlapping tiles, or one padded image.

Without padding a network loses a margin of the image on every side. As in Ronneberger, Fischer & Brox, "U-Net", 2015,
figure 2, the image is continued by mirroring, and the network is applied to overlapping tiles whose outputs, side by
side, cover the image. Tiles are a multiple of the network's largest stride apart, so that its pools have the same
windows as in one pass over the whole image, and the stitched output equals that of the pass.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from cnn_jax import geometry
from cnn_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How a network is applied to images of any size.

    Attributes:
      tile: The spatial sizes of the network's input.
      output: Those of its output for a tile.
      stride: The largest distance of neighbouring units in the network, along each axis.

    >>> from flax import nnx
    >>> from cnn_jax import models
    >>> create = lambda: models.create("u_net", input_shape=(572, 572, 1))
    >>> tiling = Tiling.of(nnx.eval_shape(create), (572, 572, 1))
    >>> tiling.output, tiling.margins, tiling.steps, tiling.padded((512, 512))
    ((388, 388), (92, 92), (384, 384), (956, 956))
    """

    tile: tuple[int, ...]
    output: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, model: Any, input_shape: Sequence[int]) -> "Tiling":
        """The tiling of a network.

        Args:
          model: Maps (batch, *space, channels) to (batch, *space, classes); its parameters may be abstract.
          input_shape: The shape of one input, (*space, channels).

        Raises:
          UsageError: The output has other axes than the input, or is larger.
        """
        tile = tuple(input_shape[:-1])
        output = geometry.output_shape(model, input_shape)[:-1]
        if len(output) != len(tile) or any(after > before for before, after in zip(tile, output, strict=True)):
            raise UsageError(
                f"the output of the network has shape {output} for each class, which is not a map of its input of "
                f"{tile}; use a network for segmentation, such as u_net_padded"
            )
        fields = [row.receptive_field for row in geometry.trace(model, input_shape)]
        jumps = [field.jump for field in fields if field is not None and len(field.jump) == len(tile)]
        return cls(tile, output, tuple(max([1, *(int(jump[axis]) for jump in jumps)]) for axis in range(len(tile))))

    @property
    def margins(self) -> tuple[int, ...]:
        """How many pixels before the first one of the output the input begins."""
        return tuple((before - after) // 2 for before, after in zip(self.tile, self.output, strict=True))

    @property
    def keeps_size(self) -> bool:
        """Whether the output is as large as the input."""
        return self.tile == self.output

    @property
    def steps(self) -> tuple[int, ...]:
        """The distance of neighbouring tiles: the largest multiple of the stride that leaves no gaps between outputs.

        An output that is smaller than the stride is moved by its own size; it is not that of one pass then.
        """
        pairs = zip(self.output, self.stride, strict=True)
        return tuple(after // stride * stride if after >= stride else after for after, stride in pairs)

    def padded(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """The spatial sizes to which an image is continued.

        Args:
          sizes: Those of the image.
        """
        if self.keeps_size:
            return tuple(-(-size // stride) * stride for size, stride in zip(sizes, self.stride, strict=True))
        counts = self._counts(sizes)
        return tuple(step * (count - 1) + tile for step, count, tile in zip(self.steps, counts, self.tile, strict=True))

    def _counts(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """The number of tiles along each axis."""
        return tuple(
            1 + max(0, -(-(size - after) // step))
            for size, after, step in zip(sizes, self.output, self.steps, strict=True)
        )

    def continued(self, images: Shaped[Array, "batch *space channels"]) -> Shaped[Array, "batch *padded channels"]:
        """Images with the margins that the network loses, mirrored at the border's pixels, which are not repeated."""
        sizes = images.shape[1:-1]
        margins = (0,) * len(sizes) if self.keeps_size else self.margins
        places = [
            _mirrored(size, margin, length)
            for size, margin, length in zip(sizes, margins, self.padded(sizes), strict=True)
        ]
        for axis, indices in enumerate(places, start=1):
            images = jnp.take(images, indices, axis=axis)
        return images

    def __call__(
        self, network: Callable[[Array], Array], images: Shaped[Array, "batch *space channels"]
    ) -> Shaped[Array, "batch *space classes"]:
        """The network's outputs for images of any size.

        Args:
          network: Maps (batch, *space, channels) to (batch, *space, classes).
          images: Of any spatial sizes, all the same.
        """
        sizes = images.shape[1:-1]
        inside = tuple(map(slice, sizes))
        continued = self.continued(images)
        if self.keeps_size:
            return network(continued)[(slice(None), *inside)]
        corners = np.array(list(itertools.product(*map(range, self._counts(sizes))))) * self.steps
        batch, channels = images.shape[0], images.shape[-1]

        def one(corner: Array) -> Array:
            starts = (0, *corner, 0)
            return network(jax.lax.dynamic_slice(continued, starts, (batch, *self.tile, channels)))

        outputs = jax.lax.map(one, jnp.asarray(corners))
        ends = tuple(int(end) + after for end, after in zip(corners.max(axis=0), self.output, strict=True))
        stitched = jnp.zeros((batch, *ends, outputs.shape[-1]), outputs.dtype)
        for corner, output in zip(corners.tolist(), outputs, strict=True):
            place = tuple(slice(start, start + after) for start, after in zip(corner, self.output, strict=True))
            stitched = stitched.at[(slice(None), *place)].set(output)
        return stitched[(slice(None), *inside)]


@dataclasses.dataclass(frozen=True)
class Cells:
    """How a network whose outputs are maps of cells is applied to images of any size.

    Each cell is for a square of pixels. An image is continued by zeros, which are the mean of normalised images, at its
    bottom and right to a multiple of the network's largest stride, and the cells that lie in the image are kept.

    Attributes:
      tile: The spatial sizes of the network's input in training.
      cell: The number of pixels of a cell along each axis.
      stride: The largest distance of neighbouring units in the network.
    """

    tile: tuple[int, ...]
    cell: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, model: Any, input_shape: Sequence[int]) -> "Cells":
        """The cells of a network.

        Args:
          model: Maps (batch, *space, channels) to (batch, *cells, outputs); its parameters may be abstract.
          input_shape: The shape of one input, (*space, channels).

        Raises:
          UsageError: The output is not a map of equal cells.
        """
        tile = tuple(input_shape[:-1])
        output = geometry.output_shape(model, input_shape)[:-1]
        if len(output) != len(tile) or any(before % after for before, after in zip(tile, output, strict=True)):
            raise UsageError(
                f"the output of the network has shape {output} for each class, which is not a map of equal cells of "
                f"its input of {tile}; use a network for detection, such as detector"
            )
        cell = tuple(before // after for before, after in zip(tile, output, strict=True))
        return cls(tile, cell, Tiling.of(model, input_shape).stride)

    def __call__(
        self, network: Callable[[Array], Array], images: Shaped[Array, "batch *space channels"]
    ) -> Shaped[Array, "batch *cells outputs"]:
        """The network's outputs for images of any size: a cell for each square of pixels that is begun.

        Args:
          network: Maps (batch, *space, channels) to (batch, *cells, outputs).
          images: Of any spatial sizes, all the same.
        """
        sizes = images.shape[1:-1]
        missing = [-size % stride for size, stride in zip(sizes, self.stride, strict=True)]
        outputs = network(jnp.pad(images, [(0, 0), *((0, pixels) for pixels in missing), (0, 0)]))
        inside = tuple(slice(-(-size // cell)) for size, cell in zip(sizes, self.cell, strict=True))
        return outputs[(slice(None), *inside)]


def _mirrored(size: int, margin: int, length: int) -> np.ndarray:
    """Which pixels a mirrored axis of ``length`` has that begins ``margin`` pixels before the image.

    >>> _mirrored(4, 2, 9).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1, 0]
    """
    places = np.arange(-margin, length - margin) % max(1, 2 * (size - 1))
    return np.minimum(places, 2 * (size - 1) - places) if size > 1 else np.zeros(length, int)
