"""Receptive fields as gradients show them: the input positions from which a unit's gradient is not zero.

So that nothing cancels and nothing is cut off, all weights are positive, and of a size that keeps a hundred layers
within float32; max pools, which pass a gradient to one position only, become averages over the same windows.
"""

from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

from cnn_jax import nn


def transparent(abstract: nnx.Module) -> nnx.Module:
    """A model of ``nnx.eval_shape`` with positive weights, and averages for maxima."""
    for _, module in list(nnx.iter_modules(abstract)):
        for name in getattr(module, "names", ()):
            layer = getattr(module, name)
            if isinstance(layer, nn.MaxPool):
                options = {key: getattr(layer, key) for key in ("strides", "padding", "dilation", "rounding")}
                setattr(module, name, nn.AvgPool(layer.window_shape, **options))
    graph, state = nnx.split(abstract)
    generator = np.random.default_rng(0)

    def filled(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        names = {str(getattr(key, "key", getattr(key, "name", key))) for key in path}
        if "kernel" in names:
            *window, channels, _ = leaf.shape
            size = channels * np.prod(window) ** 0.75
            return (generator.uniform(0.8, 1.2, leaf.shape) / size).astype(leaf.dtype)
        return np.full(leaf.shape, 0.0 if names & {"bias", "inhibition", "mean"} else 1.0, leaf.dtype)

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(filled, state))


def intervals(
    model: nnx.Module, input_shape: Sequence[int], layer: str, units: Sequence[tuple[int, int]]
) -> list[list[tuple[int, int]]]:
    """Of some units (row, column) of a layer: the first and last input position that each sees, along each axis."""
    graph, state = nnx.split(model)

    @jax.jit
    def gradients(state: nnx.State, x: jax.Array) -> jax.Array:
        def features(x: jax.Array) -> jax.Array:
            activations = nnx.merge(graph, state)(x, return_activations=True)[1]
            return activations[layer].sum(axis=(0, 3))

        _, pull = jax.vjp(features, x)
        weights = np.zeros((len(units), *jax.eval_shape(features, x).shape), np.float32)
        for index, (row, column) in enumerate(units):
            weights[index, row, column] = 1
        return jax.vmap(lambda weight: pull(weight)[0])(weights)

    x = np.random.default_rng(1).uniform(0.05, 0.15, (1, *input_shape)).astype(np.float32)
    found = []
    for gradient in np.abs(np.asarray(gradients(state, x))).sum(axis=(1, 4)):
        axes = [np.flatnonzero(gradient.sum(axis=axis)) for axis in (1, 0)]
        found.append([(int(axis[0]), int(axis[-1])) for axis in axes])
    return found
