"""The neocognitron: S-cells that learn features without a teacher, C-cells that forgive shifts of them.

Fukushima, "Neocognitron: a self-organizing neural network model for a mechanism of pattern recognition unaffected by
shift in position", Biological Cybernetics 36, 1980. Cells of a plane share their connections, so the S-cells are
convolutions, inhibited by V-cells; nothing is trained by gradients, but by :func:`self_organize`.
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
class Stage:
    """A layer of S-cells and the layer of C-cells above it.

    Attributes:
      planes: the number of planes of either.
      s_padding: zeros around the layer below, of which an S-cell sees 5x5.
      selectivity: the paper's r. An S-cell responds to what is like its feature by more than r / (1 + r).
      reinforcement: the paper's q, the step of learning.
      column: the size of the regions in which S-cells compete; by default all of the layer is one.
    """

    planes: int
    s_padding: int
    selectivity: float
    reinforcement: float
    column: int | None = None


STAGES = (Stage(24, 2, 4.0, 1.0, 5), Stage(24, 1, 1.5, 16.0, 5), Stage(24, 0, 1.5, 16.0))
INHIBITION = 0.5  # the paper's alpha, at which C-cells reach half of their range


def nearness(window: Sequence[int]) -> np.ndarray:
    """Fixed connections, of which the paper says that they decrease with the distance from the centre: by 0.9 a cell.

    >>> nearness((1, 3))
    array([[0.9, 1. , 0.9]])
    """
    rows, columns = np.meshgrid(*(np.arange(size) - (size - 1) / 2 for size in window), indexing="ij")
    return 0.9 ** np.hypot(rows, columns)


class SCells(nnx.Module):
    """Cells that respond to a feature of the layer below, wherever it is, and are inhibited by all that is there.

    With e the weighted sum of what a cell sees, and v the root mean square of it (the V-cell), the response is
    ``r max(0, (1 + e) / (1 + 2 r b v / (1 + r)) - 1)``.

    Args:
      in_features: planes below.
      stage: the number of planes and the constants.
      dtype: the type to compute in.
      rngs: draws the excitatory connections, small and positive; the inhibitory ones start at zero.
    """

    def __init__(self, in_features: int, stage: Stage, *, dtype: DTypeLike | None = None, rngs: nnx.Rngs) -> None:
        self.kernel_size = (5, 5)
        self.strides = (1, 1)
        self.padding = stage.s_padding
        self.stage = stage
        self.dtype = dtype
        shape = (*self.kernel_size, in_features, stage.planes)
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), shape) * 1e-2 * self.fixed(in_features)[..., None])
        self.inhibition = nnx.Param(jnp.zeros(stage.planes))

    def fixed(self, in_features: int) -> np.ndarray:
        """The connections to the V-cell, (5, 5, in_features), which sum to 1."""
        weights = np.repeat(nearness(self.kernel_size)[..., None], in_features, axis=-1)
        return weights / weights.sum()

    def inhibitory(self, inputs: Shaped[AnyArray, "batch h w planes"]) -> Shaped[Array, "batch h2 w2 1"]:
        """The V-cells: the root mean square of what S-cells of all planes see at a position."""
        kernel = jnp.asarray(self.fixed(inputs.shape[-1])[..., None], inputs.dtype)
        squares = ops.conv(jnp.square(inputs), kernel, padding=self.padding)
        dark = squares <= 0  # where the root has no derivative
        return jnp.where(dark, 0, jnp.sqrt(jnp.where(dark, 1, squares)))

    def __call__(self, inputs: Shaped[AnyArray, "batch h w planes"]) -> Shaped[Array, "batch h2 w2 planes2"]:
        """Responses to (batch, height, width, in_features)."""
        inputs, kernel, inhibition = promote_dtype((inputs, self.kernel[...], self.inhibition[...]), dtype=self.dtype)
        r = self.stage.selectivity
        excited = ops.conv(inputs, kernel, padding=self.padding)
        inhibited = affine(self.inhibitory(inputs), scale=2 * r / (1 + r) * inhibition)
        return r * jax.nn.relu((1 + excited) / (1 + inhibited) - 1)


class CCells(nnx.Module):
    """Cells that respond if any S-cell of their plane does in a region, and less if all planes do.

    Args:
      window: the size of the region.
      strides: the distance between the regions of neighbours.
      padding: zeros around the S-cells.
    """

    def __init__(self, window: Sequence[int], *, strides: int = 1, padding: Any = "VALID") -> None:
        self.window_shape = tuple(window)
        self.strides = (strides, strides)
        self.padding = padding

    def __call__(self, inputs: Shaped[AnyArray, "batch h w planes"]) -> Shaped[Array, "batch h2 w2 planes"]:
        """Responses between 0 and 1 to those of S-cells."""
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
    """Three stages of S- and C-cells in 24 planes each, for 16x16: 16, 10, 8, 6, 2 and 1 cells across.

    The planes of the last stage are the outputs; which of them responds to what is for the network to find. The paper
    gives the numbers of cells and not where those of C1 and C2 lie; here they are two cells apart, and the outermost
    ones look over the edge. The last layer's C-cells see all of their plane, whatever the size of the input.
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
    """The S-cells that learn from one image: at most one of a plane, and none that a neighbour outdoes.

    In each column, a region of all planes, the cell with the largest response is a candidate; of the candidates in a
    plane, the one with the largest response represents it.

    Args:
      responses: (height, width, planes) of S-cells to one image.
      column: the size of the regions, of which there is one at every position; None for the whole.

    Returns:
      The row and column in each plane, and whether the plane has a representative at all.

    >>> responses = jnp.zeros((2, 2, 3)).at[0, 1, 0].set(1.0).at[1, 1, 2].set(2.0)
    >>> positions, found = representatives(responses, None)
    >>> positions[2], found
    (Array([1, 1], dtype=int32), Array([False, False,  True], dtype=bool))
    """
    height, width = responses.shape[:2]
    window = (min(column or height, height), min(column or width, width))
    largest = ops.max_pool(responses.max(axis=-1, keepdims=True), window, strides=1)
    around = tuple((size - 1, size - 1) for size in window)
    least = -ops.max_pool(-largest, window, strides=1, padding=around)  # the easiest column that a cell is in
    candidates = jnp.where((responses > 0) & (responses >= least), responses, 0).reshape(height * width, -1)
    flat = candidates.argmax(axis=0)
    return jnp.stack([flat // width, flat % width], axis=-1), candidates.max(axis=0) > 0


def reinforced(layer: SCells, below: Shaped[AnyArray, "h w planes"]) -> tuple[Array, Array]:
    """The connections of a layer after one image: representatives grow towards what they saw, and take planes along.

    Excitatory connections grow by ``q c u`` and inhibitory ones by ``q v / 2``, where u is what the representative saw,
    c the fixed connections of its V-cell, and v that cell's response.

    Args:
      layer: S-cells.
      below: (height, width, in_features), the layer below.

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
    """Learns without a teacher: shows the images one after the other, all of them to each stage in turn.

    The paper reinforces all stages at once, whose higher ones then spend planes on features that the lower ones give up
    again; one after the other, from below, is what Fukushima did later ("Neocognitron: a hierarchical neural network
    capable of visual pattern recognition", Neural Networks 1, 1988).

    Args:
      model: a neocognitron; it stays as it is.
      images: in the order in which they are shown, with ink positive and background zero.

    Returns:
      The network with its new connections.

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
    """A layer after it has seen the layer below for all images, one after the other."""
    graph, params = nnx.split(layer)

    def show(params: Any, image: Array) -> tuple[Any, None]:
        layer = nnx.merge(graph, params)
        layer.kernel[...], layer.inhibition[...] = reinforced(layer, image)
        return nnx.state(layer), None

    return nnx.merge(graph, lax.scan(show, params, below)[0])


VARIANTS = {"neocognitron": Variant(neocognitron, (16, 16, 1), 24)}
