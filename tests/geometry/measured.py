"""Measures receptive fields by gradients: the input positions where the gradient of a unit is not zero.

All weights are positive, so that gradients do not cancel, and scaled so that a hundred layers stay within the range of
float32. Max pools, which pass a gradient to one position only, are replaced by averages over the same windows.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_jax import nn
from tests.compiled import compiled


def transparent(abstract: nnx.Module) -> nnx.Module:
    """A model of ``nnx.eval_shape`` with positive weights, averages instead of maxima, and no scaled branches."""
    for _, module in list(nnx.iter_modules(abstract)):
        if isinstance(module, nn.Scale):
            module.factor = 1.0
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
    model: nnx.Module, input_shape: Sequence[int], units: Mapping[str, Sequence[tuple[int, int]]]
) -> dict[str, list[list[tuple[int, int]]]]:
    """For some units (row, column) of some layers, the first and last input position of its field on each axis."""
    model = _compiled_by_layer(model)

    def features(x: jax.Array) -> dict[str, jax.Array]:
        activations = model(x, return_activations=True)[1]
        return {layer: activations[layer] for layer in units}

    x = np.random.default_rng(1).uniform(0.05, 0.15, (1, *input_shape)).astype(np.float32)
    maps, pull = jax.vjp(features, jnp.asarray(x))
    found: dict[str, list[list[tuple[int, int]]]] = {layer: [] for layer in units}
    for layer, places in units.items():
        for row, column in places:
            weights = {name: np.zeros(array.shape, np.float32) for name, array in maps.items()}
            weights[layer][0, row, column] = 1
            [gradient] = np.abs(np.asarray(pull(weights)[0])).sum(axis=3)
            axes = [np.flatnonzero(gradient.sum(axis=axis)) for axis in (1, 0)]
            found[layer].append([(int(axis[0]), int(axis[-1])) for axis in axes])
    return found


def _compiled_by_layer(model: nnx.Module) -> nnx.Module:
    """The network with each layer, and its gradient, compiled separately.

    Equal layers share programs, in all networks of a process. As one program, a hundred layers take minutes to compile.
    """
    model = nnx.clone(model)
    for _, module in list(nnx.iter_modules(model)):
        for name in getattr(module, "names", ()):
            layer = getattr(module, name)
            if not hasattr(layer, "flow"):
                setattr(module, name, _as_programs(layer))
    return model


def _as_programs(layer: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    graph, state = nnx.split(layer) if isinstance(layer, nnx.Module) else (layer, None)

    @jax.custom_vjp
    def run(x: jax.Array) -> jax.Array:
        return _output(graph, state, x)

    run.defvjp(lambda x: (run(x), x), lambda x, dy: (_gradient(graph, state, x, dy),))
    return run


def _called(graph: Any, state: nnx.State | None, x: jax.Array) -> jax.Array:
    return (graph if state is None else nnx.merge(graph, state))(x)


_output = compiled(_called, static_argnums=0)


@functools.partial(compiled, static_argnums=0)
def _gradient(graph: Any, state: nnx.State | None, x: jax.Array, dy: jax.Array) -> jax.Array:
    return jax.vjp(functools.partial(_called, graph, state), x)[1](dy)[0]
