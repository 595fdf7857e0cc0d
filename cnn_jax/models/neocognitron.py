"""The neocognitron: S-cells that learn features without labels, and C-cells that tolerate shifts of these features.

Fukushima, "Neocognitron: a self-organizing neural network model for a mechanism of pattern recognition unaffected by
shift in position", Biological Cybernetics 36, 1980. The cells of a plane share their connections, so the S-cells are
convolutions, whose outputs are inhibited by V-cells. A plane corresponds to a channel. The network is not trained by
gradients, but by :func:`self_organize`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from jax import lax
from jaxtyping import Array, DTypeLike, Shaped

from cnn_jax import geometry, nn, ops
from cnn_jax.models.variant import Variant, scaled
from cnn_jax.ops.arguments import AnyArray
from cnn_jax.ops.wide import affine, in_float32


@dataclasses.dataclass(frozen=True)
class CellStage:
    """A layer of S-cells and the layer of C-cells after it.

    Attributes:
      planes: The number of planes of each layer.
      s_padding: The number of zeros on each side of the S-cells' input. An S-cell has a 5x5 window.
      selectivity: The paper's r. An S-cell responds to inputs whose similarity to its feature is above r / (1 + r).
      reinforcement: The paper's q, the learning rate.
      column: The height and width of the regions in which S-cells compete. By default the whole layer is one region.
    """

    planes: int
    s_padding: int
    selectivity: float
    reinforcement: float
    column: int | None = None


STAGES = (CellStage(24, 2, 4.0, 1.0, 5), CellStage(24, 1, 1.5, 16.0, 5), CellStage(24, 0, 1.5, 16.0))
INHIBITION = 0.5  # the paper's alpha, the excess at which the response of C-cells is one half


def nearness(window: Sequence[int]) -> np.ndarray:
    """Fixed connections that decrease with the distance from the centre by a factor of 0.9 per cell.

    The paper says that they decrease, and does not give the rate.

    >>> nearness((1, 3))
    array([[0.9, 1. , 0.9]])
    """
    rows, columns = np.meshgrid(*(np.arange(size) - (size - 1) / 2 for size in window), indexing="ij")
    return 0.9 ** np.hypot(rows, columns)


class SCells(nnx.Module):
    """Cells that respond to a feature at any position, inhibited by the total activity in their window.

    With e the weighted sum of a cell's inputs, v their weighted root mean square (the V-cell's output), and b the
    inhibitory connection, the response is ``r max(0, (1 + e) / (1 + 2 r b v / (1 + r)) - 1)``.

    Args:
      in_features: The number of input planes.
      stage: The number of planes and the constants.
      dtype: The type to compute in.
      rngs: Draws the excitatory connections, which are small and positive. The inhibitory connections start at zero.
    """

    def __init__(self, in_features: int, stage: CellStage, *, dtype: DTypeLike | None = None, rngs: nnx.Rngs) -> None:
        self.kernel_size = (5, 5)
        self.strides = (1, 1)
        self.padding = stage.s_padding
        self.stage = stage
        self.dtype = dtype
        shape = (*self.kernel_size, in_features, stage.planes)
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), shape) * 1e-2 * self.fixed(in_features)[..., None])
        self.inhibition = nnx.Param(jnp.zeros(stage.planes))

    def fixed(self, in_features: int) -> np.ndarray:
        """The fixed connections of the V-cell, of shape (5, 5, in_features), which sum to 1."""
        weights = np.repeat(nearness(self.kernel_size)[..., None], in_features, axis=-1)
        return weights / weights.sum()

    def inhibitory(self, inputs: Shaped[AnyArray, "batch h w planes"]) -> Shaped[Array, "batch h2 w2 1"]:
        """The V-cells' outputs: at each position, the weighted root mean square of the S-cells' inputs."""
        kernel = jnp.asarray(self.fixed(inputs.shape[-1])[..., None], inputs.dtype)
        squares = ops.conv(jnp.square(inputs), kernel, padding=self.padding)
        silent = squares <= 0  # the square root has no derivative at 0
        return jnp.where(silent, 0, jnp.sqrt(jnp.where(silent, 1, squares)))

    def __call__(self, inputs: Shaped[AnyArray, "batch h w planes"]) -> Shaped[Array, "batch h2 w2 planes2"]:
        """Maps (batch, height, width, in_features) to responses of shape (batch, height2, width2, planes)."""
        inputs, kernel, inhibition = promote_dtype((inputs, self.kernel[...], self.inhibition[...]), dtype=self.dtype)
        r = self.stage.selectivity
        excited = ops.conv(inputs, kernel, padding=self.padding)
        inhibited = affine(self.inhibitory(inputs), scale=2 * r / (1 + r) * inhibition)
        return r * jax.nn.relu((1 + excited) / (1 + inhibited) - 1)


class CCells(nnx.Module):
    """Cells that respond if any S-cell of their plane responds within a window, and less if all planes respond.

    Args:
      window: The height and width of the window.
      strides: The distance between neighbouring windows, the same in both directions.
      padding: The padding of the S-cells' outputs.
    """

    def __init__(self, window: Sequence[int], *, strides: int = 1, padding: Any = "VALID") -> None:
        self.window_shape = tuple(window)
        self.strides = (strides, strides)
        self.padding = padding

    def __call__(self, inputs: Shaped[AnyArray, "batch h w planes"]) -> Shaped[Array, "batch h2 w2 planes"]:
        """Maps the responses of S-cells to responses between 0 and 1."""
        window = jnp.asarray(nearness(self.window_shape)[..., None, None], inputs.dtype)
        kernel = jnp.broadcast_to(window, (*self.window_shape, inputs.shape[-1], 1))
        sums = ops.depthwise_conv(inputs, kernel, strides=self.strides, padding=self.padding)

        def response(sums: Array) -> Array:
            excess = jax.nn.relu((1 + sums) / (1 + sums.mean(axis=-1, keepdims=True)) - 1)
            return excess / (INHIBITION + excess)

        return in_float32(response, sums)


def neocognitron(
    *, num_classes: int, input_shape: tuple[int, ...], width: float, dtype: DTypeLike | None, rngs: nnx.Rngs
) -> nn.Sequence:
    """Three stages of S-cells and C-cells in 24 planes each.

    For 16x16 images the layers are 16, 10, 8, 6, 2 and 1 cells wide. The planes of the last stage are the outputs.
    Learning is unsupervised, so it is not known in advance which output responds to which class. The paper gives the
    sizes of the layers C1 and C2 but not the positions of their cells. Here they are two cells apart, and the outermost
    windows extend beyond the edge. The window of the last layer's C-cells is the whole plane, for any input size.
    """
    layers: dict[str, Any] = {}
    channels = input_shape[-1]
    for index, stage in enumerate(STAGES, start=1):
        last = index == len(STAGES)
        stage = dataclasses.replace(stage, planes=num_classes if last else scaled(stage.planes, width))
        layers[f"s{index}"] = SCells(channels, stage, dtype=dtype, rngs=rngs)
        if last:
            layers[f"c{index}"] = CCells(geometry.output_shape(layers, input_shape)[:-1])
        else:
            layers[f"c{index}"] = CCells((5, 5), strides=2, padding=((3, 4), (3, 4)))
        channels = stage.planes
    layers["flatten"] = nn.Flatten((1, 1, channels))
    return nn.Sequence(layers)


def representatives(
    responses: Shaped[AnyArray, "h w planes"], column: int | None
) -> tuple[Shaped[Array, "planes 2"], Shaped[Array, "planes"]]:
    """The S-cells that learn from one image, at most one for each plane.

    A column is a square region across all planes; there is one at every position. In each column the cell with the
    largest response is a candidate. Of the candidates in a plane, the one with the largest response represents it.

    Args:
      responses: The responses of S-cells to one image, of shape (height, width, planes).
      column: The height and width of the columns. None makes the whole layer one column.

    Returns:
      The row and column of each plane's representative, of shape (planes, 2), and whether the plane has one, of shape
      (planes,).

    >>> responses = jnp.zeros((2, 2, 3)).at[0, 1, 0].set(1.0).at[1, 1, 2].set(2.0)
    >>> positions, found = representatives(responses, None)
    >>> positions[2], found
    (Array([1, 1], dtype=int32), Array([False, False,  True], dtype=bool))
    """
    height, width = responses.shape[:2]
    window = (min(column or height, height), min(column or width, width))
    largest = ops.max_pool(responses.max(axis=-1, keepdims=True), window, strides=1)
    around = tuple((size - 1, size - 1) for size in window)
    # For each position, the smallest of the maxima of the columns that contain it.
    least = -ops.max_pool(-largest, window, strides=1, padding=around)
    candidates = jnp.where((responses > 0) & (responses >= least), responses, 0).reshape(height * width, -1)
    flat = candidates.argmax(axis=0)
    return jnp.stack([flat // width, flat % width], axis=-1), candidates.max(axis=0) > 0


def reinforced(layer: SCells, below: Shaped[AnyArray, "h w planes"]) -> tuple[Array, Array]:
    """The connections of a layer after learning from one image.

    The excitatory connections of each plane grow by ``q c u`` and its inhibitory connection by ``q v / 2``. Here u is
    the input of the plane's representative, c the fixed connections of its V-cell, and v the V-cell's output.

    Args:
      layer: The layer of S-cells.
      below: The layer's input, of shape (height, width, in_features).

    Returns:
      The new kernel and the new inhibitory connections.
    """
    positions, found = representatives(layer(below[None])[0], layer.stage.column)
    padding = layer.padding
    padded = jnp.pad(below, ((padding, padding), (padding, padding), (0, 0)))
    size = (*layer.kernel_size, below.shape[-1])

    def seen(position: Array) -> Array:
        return lax.dynamic_slice(padded, (position[0], position[1], 0), size)

    patches = jax.vmap(seen, out_axes=-1)(positions)
    shunting = layer.inhibitory(below[None])[0, positions[:, 0], positions[:, 1], 0]
    step = jnp.where(found, layer.stage.reinforcement, 0.0)
    fixed = jnp.asarray(layer.fixed(below.shape[-1])[..., None], patches.dtype)
    kernel = layer.kernel[...] + lax.broadcast_to_rank(step, patches.ndim) * fixed * patches
    return kernel, layer.inhibition[...] + step / 2 * shunting


def self_organize(model: nn.Sequence, images: Shaped[AnyArray, "images h w channels"]) -> nn.Sequence:
    """Trains a neocognitron without labels: each stage in turn, from the input up, learns from all images.

    The paper of 1980 trains all stages at once. The higher stages then spend planes on features that the lower stages
    do not keep. Training stage by stage is what Fukushima did later ("Neocognitron: a hierarchical neural network
    capable of visual pattern recognition", Neural Networks 1, 1988).

    Args:
      model: A neocognitron. It is not changed.
      images: Images of shape (images, height, width, channels), in the order in which they are shown. Ink is positive
        and background is zero.

    Returns:
      A copy of the network with the learned connections.

    >>> from cnn_jax import models
    >>> model = models.create("neocognitron", width=0.2, rngs=nnx.Rngs(0))
    >>> bars = jnp.zeros((8, 16, 16, 1)).at[:, 4:12, 7].set(1.0)
    >>> respond = nnx.jit(lambda model: self_organize(model, bars)(bars[:1]))
    >>> bool(respond(model).max() > 0.1)
    True
    """
    model = nnx.clone(model)
    below = jnp.asarray(images)
    for name in model.names:
        layer = getattr(model, name)
        if isinstance(layer, SCells):
            layer = _learned(layer, below)
            setattr(model, name, layer)
        below = layer(below)
    return model


def _learned(layer: SCells, below: Array) -> SCells:
    """A copy of a layer that has learned from its inputs, of shape (images, height, width, channels), in order."""
    graph, params = nnx.split(layer)

    def show(params: Any, image: Array) -> tuple[Any, None]:
        layer = nnx.merge(graph, params)
        layer.kernel[...], layer.inhibition[...] = reinforced(layer, image)
        return nnx.state(layer), None

    return nnx.merge(graph, lax.scan(show, params, below)[0])


VARIANTS = {"neocognitron": Variant(neocognitron, (16, 16, 1), 24)}
