"""A test of attribution methods: does the result depend on what the network has learned?"""

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Shaped

from cnn_jax import geometry
from cnn_jax.attribution.target import Target, check_images, check_ready
from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray

_OTHERS = "parameters outside layers"


@dataclasses.dataclass(frozen=True)
class Stage:
    """The result of a method after the parameters of some layers were shuffled.

    Attributes:
      layer: The last layer that was shuffled; '' for the trained network.
      result: The result of the method.
      correlation: Spearman's rank correlation of ``result`` with that of the trained network, one per image, (N,). It
        is NaN if all values of an image are equal.
      absolute_correlation: The rank correlation of the absolute values.
    """

    layer: str
    result: Shaped[Array, "..."]
    correlation: Float[np.ndarray, "..."]
    absolute_correlation: Float[np.ndarray, "..."]


def randomization_test(
    method: Callable[..., Any],
    model: Callable[..., Any],
    x: Shaped[AnyArray, "..."],
    target: Target,
    *,
    key: Shaped[Array, "..."] | None = None,
) -> Iterator[Stage]:
    """Applies a method to a network whose parameters are shuffled layer by layer, from the top.

    A method that explains what the network has learned gives other results then. A method that still gives the same
    result explains the image, not the network. Each layer stays shuffled while those below it are shuffled. The entries
    of each parameter are permuted, so that their distribution stays the same.

    Args:
      method: A function ``method(model, x, target)`` that returns one array, such as
        :func:`cnn_jax.attribution.saliency`; set options with ``functools.partial``.
      model: A Flax NNX module in evaluation mode.
      x: A batch of inputs with channels last, (N, *space, C).
      target: The target that is passed to the method.
      key: The JAX key of the permutations; ``jax.random.key(0)`` by default.

    Returns:
      An iterator over the stages: the trained network first, then one stage per layer with parameters, from the last
      layer to the first. A stage is computed when the iterator reaches it.

    Raises:
      UsageError: The model is not an NNX module, is in training mode, or has no parameters.

    References:
      Adebayo et al., Sanity checks for saliency maps, 2018: cascading randomization.

    >>> from cnn_jax import attribution, models
    >>> model = models.create("lenet_5_modern")
    >>> x = jax.random.normal(jax.random.key(1), (1, 32, 32, 1))
    >>> [stage.layer for stage in randomization_test(attribution.gradient, model, x, target=3)]
    ['', 'output', 'f6', 'c5', 'c3', 'c1']
    """
    op = "randomization_test"
    if not isinstance(model, nnx.Module):
        raise UsageError(f"{op}: model is a {type(model).__name__}, but parameters are shuffled in an nnx.Module")
    check_ready(op, model)
    x = check_images(op, x)
    layers = _layers(model, x.shape[1:])
    if not layers:
        raise UsageError(f"{op}: {type(model).__name__} has no parameters to shuffle")
    return _stages(method, model, x, target, jax.random.key(0) if key is None else key, layers)


def _stages(
    method: Callable[..., Any],
    model: nnx.Module,
    x: Array,
    target: Target,
    key: Array,
    layers: dict[str, list[tuple[Any, ...]]],
) -> Iterator[Stage]:
    graph, params, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]

    @jax.jit
    def run(params: Any, rest: Any, x: Array) -> Array:
        return method(nnx.merge(graph, params, rest), x, target)

    trained = run(params, rest, x)
    flat = dict(nnx.to_flat_state(params))
    for layer in ["", *reversed(layers)]:
        for path in layers.get(layer, []):
            flat[path] = flat[path].replace(_shuffled(key, path, flat[path][...]))
        result = run(nnx.from_flat_state(flat), rest, x)
        yield Stage(
            layer,
            result,
            _correlations(np.asarray(trained), np.asarray(result)),
            _correlations(np.abs(trained), np.abs(result)),
        )


def _layers(model: nnx.Module, input_shape: Sequence[int]) -> dict[str, list[tuple[Any, ...]]]:
    """The paths of the parameters of each layer, in the order in which the layers run."""
    names = [row.name for row in geometry.trace(model, input_shape)]
    owned: dict[str, list[tuple[Any, ...]]] = {name: [] for name in [_OTHERS, *names]}
    for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        joined = "/".join(map(str, path))
        owned[next((name for name in names if joined.startswith(f"{name}/")), _OTHERS)].append(path)
    return {name: paths for name, paths in owned.items() if paths}


def _shuffled(key: Array, path: tuple[Any, ...], array: Array) -> Array:
    own = jax.random.fold_in(key, zlib.crc32("/".join(map(str, path)).encode()))
    return jax.random.permutation(own, array.ravel()).reshape(array.shape)


def _correlations(one: Shaped[np.ndarray, "..."], other: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The rank correlation of each pair of images."""
    from scipy import stats  # takes half a second to import

    def correlation(a: np.ndarray, b: np.ndarray) -> float:
        constant = (a == a[0]).all() or (b == b[0]).all()
        return np.nan if constant else stats.spearmanr(a, b).statistic

    pairs = zip(one.reshape(len(one), -1), other.reshape(len(other), -1), strict=True)
    return np.array([correlation(a, b) for a, b in pairs])
