"""Replaces every layer of this project's networks with Flax's own, as a user of ``flax.nnx`` would write them."""

from typing import Any

import jax
from flax import nnx

from cnn_jax import nn, ops


def exchanged(layer: Any) -> Any:
    """Replaces a layer, or all layers in a sequence, with Flax's own. The structure stays the same."""
    if isinstance(layer, nn.Residual):
        layer.branch, layer.shortcut = exchanged(layer.branch), exchanged(layer.shortcut)
    elif isinstance(layer, nn.Sequence):
        for name in layer.names:
            setattr(layer, name, exchanged(getattr(layer, name)))
    elif isinstance(layer, nn.Conv):
        return stock_conv(layer)
    elif isinstance(layer, nn.ConvTranspose):
        return stock_conv_transpose(layer)
    elif isinstance(layer, nn.BatchNorm):
        return BatchNorm(layer)
    elif isinstance(layer, nn.MaxPool) and layer.return_indices:
        return PoolWithPlaces()
    elif isinstance(layer, nn.MaxUnpool):
        return Unpool()
    elif isinstance(layer, nn.MaxPool | nn.AvgPool):
        return Pool(layer)
    elif layer is ops.relu:
        return jax.nn.relu
    elif layer is ops.global_avg_pool:
        return lambda x: x.mean(axis=(1, 2))
    return layer


def stock_padding(layer: Any) -> Any:
    """The padding of a window in Flax's format. Rounding up is expressed as padding at the end."""
    padding = layer.padding
    if padding == "HALF":
        return tuple((size // 2, size // 2) for size in layer.kernel_size)
    if isinstance(padding, int):
        padding = ((padding, padding),) * len(layer.strides)
    if getattr(layer, "rounding", "floor") == "ceil":
        assert padding == "VALID"
        return tuple((0, stride - 1) for stride in layer.strides)
    return padding


def stock_conv(layer: Any) -> Any:
    """An ``nnx.Conv`` with the parameters of our layer."""
    conv = nnx.Conv(
        layer.in_features,
        layer.out_features,
        layer.kernel_size,
        layer.strides,
        padding=stock_padding(layer),
        feature_group_count=layer.feature_group_count,
        use_bias=layer.use_bias,
        dtype=layer.dtype,
        rngs=nnx.Rngs(0),
    )
    conv.kernel, conv.bias = layer.kernel, layer.bias
    return conv


def stock_conv_transpose(layer: nn.ConvTranspose) -> nnx.ConvTranspose:
    """An ``nnx.ConvTranspose`` with the parameters of our layer."""
    conv = nnx.ConvTranspose(
        layer.in_features,
        layer.out_features,
        layer.kernel_size,
        layer.strides,
        padding=layer.padding,
        use_bias=layer.use_bias,
        dtype=layer.dtype,
        rngs=nnx.Rngs(0),
    )
    conv.kernel, conv.bias = layer.kernel, layer.bias
    return conv


class PoolWithPlaces(nnx.Module):
    """Maxima of 2x2 windows, and the place of each in its window. Flax has neither this nor unpooling."""

    return_indices = True

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Pools ``(batch, height, width, channels)``, whose sizes must be even."""
        batch, height, width, channels = x.shape
        windows = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 5, 2, 4)
        windows = windows.reshape(*windows.shape[:4], 4)
        return windows.max(axis=-1), windows.argmax(axis=-1)


class Unpool(nnx.Module):
    """The inverse of ``PoolWithPlaces``, with zeros elsewhere."""

    def __call__(self, x: jax.Array, places: jax.Array, sizes: tuple[int, int]) -> jax.Array:
        """Unpools ``(batch, height, width, channels)`` to ``(batch, *sizes, channels)``."""
        windows = (x[..., None] * jax.nn.one_hot(places, 4, dtype=x.dtype)).reshape(*x.shape, 2, 2)
        return windows.transpose(0, 1, 4, 2, 5, 3).reshape(len(x), *sizes, x.shape[-1])


class Pool(nnx.Module):
    """``nnx.max_pool`` or ``nnx.avg_pool`` with the window of our layer."""

    def __init__(self, layer: nn.MaxPool | nn.AvgPool) -> None:
        self.pool = nnx.max_pool if isinstance(layer, nn.MaxPool) else nnx.avg_pool
        self.window_shape, self.strides, self.padding = layer.window_shape, layer.strides, stock_padding(layer)

    def __call__(self, x: Any) -> Any:
        """Pools ``(batch, height, width, channels)``."""
        return self.pool(x, self.window_shape, self.strides, self.padding)


class BatchNorm(nnx.Module):
    """``nnx.BatchNorm`` with the options of our layer, and the argument ``train`` in calls."""

    def __init__(self, layer: nn.BatchNorm) -> None:
        options = {"momentum": layer.momentum, "epsilon": layer.epsilon, "dtype": layer.dtype}
        self.norm = nnx.BatchNorm(layer.num_features, rngs=nnx.Rngs(0), **options)

    def __call__(self, x: Any, *, train: bool = False) -> Any:
        """Normalises with batch statistics if ``train``, otherwise with running statistics."""
        return self.norm(x, use_running_average=not train)
