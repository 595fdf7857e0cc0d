"""The basic unit of inception networks: a convolution, optional batch normalisation, and a ReLU."""

from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx
from jax.nn.initializers import Initializer, zeros
from jaxtyping import DTypeLike

from cnn_jax import nn, ops
from cnn_jax.ops.padding import Padding


def conv_unit(
    in_features: int,
    out_features: int,
    kernel_size: int | Sequence[int],
    *,
    strides: int = 1,
    padding: Padding = "HALF",
    batch_norm: bool = True,
    kernel_init: Initializer,
    bias_init: Initializer = zeros,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
) -> nn.Sequence:
    """A sequence of the layers ``conv``, ``bn`` and ``relu``.

    Without batch normalisation there is no layer ``bn``, and the convolution has a bias. The epsilon of batch
    normalisation is 0.001, as in the inception networks.

    >>> conv_unit(3, 64, 7, strides=2, kernel_init=zeros, dtype=None, rngs=nnx.Rngs(0)).names
    ('conv', 'bn', 'relu')
    """
    window = (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)
    layers: dict[str, Callable[..., Any]] = {
        "conv": nn.Conv(
            in_features,
            out_features,
            window,
            strides,
            padding=padding,
            use_bias=not batch_norm,
            kernel_init=kernel_init,
            bias_init=bias_init,
            dtype=dtype,
            rngs=rngs,
        )
    }
    if batch_norm:
        layers["bn"] = nn.BatchNorm(out_features, momentum=0.9, epsilon=1e-3, dtype=dtype, rngs=rngs)
    return nn.Sequence({**layers, "relu": ops.relu})
