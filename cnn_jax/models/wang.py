"""Networks for time series of Wang, Yan & Oates: a fully convolutional network and a residual one.

"Time series classification from scratch with deep neural networks: a strong baseline", IJCNN 2017. Windows have 8, 5
and 3 values, and an average over time precedes the output, so the number of parameters does not depend on the length.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from flax import nnx
from jax.nn.initializers import glorot_uniform
from jaxtyping import DTypeLike

from cnn_jax import nn, ops
from cnn_jax.models.variant import Variant, scaled

Layers = dict[str, Callable[..., Any]]
_WINDOWS = (8, 5, 3)


def fcn_series(
    *, num_classes: int, input_shape: tuple[int, ...], width: float, dtype: DTypeLike | None, rngs: nnx.Rngs
) -> nn.Sequence:
    """The fully convolutional network: convolutions with 128, 256 and 128 filters, each with batch normalisation.

    It has 264,962 parameters for one channel and two classes.

    Args:
      num_classes: The number of outputs.
      input_shape: The shape of one input, (length, channels).
      width: Multiplies the numbers of filters.
      dtype: The type to compute in.
      rngs: Draws the parameters.
    """
    layers: Layers = {}
    channels = input_shape[-1]
    for place, (window, published) in enumerate(zip(_WINDOWS, (128, 256, 128), strict=True), start=1):
        features = scaled(published, width)
        layers |= _unit(str(place), channels, features, window, dtype=dtype, rngs=rngs)
        channels = features
    return _with_output(layers, channels, num_classes, dtype=dtype, rngs=rngs)


def resnet_series(
    *, num_classes: int, input_shape: tuple[int, ...], width: float, dtype: DTypeLike | None, rngs: nnx.Rngs
) -> nn.Sequence:
    """The residual network: three blocks of three convolutions, with 64, 128 and 128 filters.

    It has 504,258 parameters for one channel and two classes. Shortcuts that change the number of channels have a
    convolution; all have batch normalisation.

    Args:
      num_classes: The number of outputs.
      input_shape: The shape of one input, (length, channels).
      width: Multiplies the numbers of filters.
      dtype: The type to compute in.
      rngs: Draws the parameters.
    """
    unit, layers = partial(_unit, dtype=dtype, rngs=rngs), dict[str, Any]()
    channels = input_shape[-1]
    for block, published in enumerate((64, 128, 128), start=1):
        features = scaled(published, width)
        branch: Layers = {}
        inside = channels
        for place, window in enumerate(_WINDOWS, start=1):
            branch |= unit(str(place), inside, features, window)
            inside = features
        del branch[f"relu{len(_WINDOWS)}"]  # which comes after the sum
        around = unit("", channels, features, 1)
        del around["relu"]
        if channels == features:
            del around["conv"]
        layers |= {f"block{block}": nn.Residual(branch, around), f"block{block}_relu": ops.relu}
        channels = features
    return _with_output(layers, channels, num_classes, dtype=dtype, rngs=rngs)


def _unit(name: str, channels: int, features: int, window: int, *, dtype: DTypeLike | None, rngs: nnx.Rngs) -> Layers:
    options: dict[str, Any] = {"padding": "SAME", "kernel_init": glorot_uniform(), "dtype": dtype, "rngs": rngs}
    return {
        f"conv{name}": nn.Conv(channels, features, (window,), **options),
        f"bn{name}": nn.BatchNorm(features, momentum=0.99, epsilon=1e-3, dtype=dtype, rngs=rngs),
        f"relu{name}": ops.relu,
    }


def _with_output(
    layers: Layers, channels: int, num_classes: int, *, dtype: DTypeLike | None, rngs: nnx.Rngs
) -> nn.Sequence:
    output = nn.Linear(channels, num_classes, kernel_init=glorot_uniform(), dtype=dtype, rngs=rngs)
    return nn.Sequence({**layers, "avgpool": ops.global_avg_pool, "output": output})


VARIANTS = {"fcn_series": Variant(fcn_series, (140, 1), 2), "resnet_series": Variant(resnet_series, (140, 1), 2)}
