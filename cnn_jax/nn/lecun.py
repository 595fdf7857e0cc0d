"""Layers that only the early LeNets use: partial connections, biases per unit, and trained subsampling."""

import math
from collections import Counter
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.nnx.nn.linear import default_bias_init, default_kernel_init
from jax.nn.initializers import Initializer, constant
from jaxtyping import Array, DTypeLike, Shaped

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.nn.conv import check_channels
from cnn_jax.nn.options import static_padding
from cnn_jax.ops.arguments import AnyArray, per_axis
from cnn_jax.ops.padding import Padding
from cnn_jax.ops.wide import affine


class TableConv(nnx.Module):
    """A convolution in which each output channel is connected to a subset of the input channels.

    Its kernel contains only the weights of existing connections, and so do parameter counts, multiply-adds and
    optimiser states. A mask over a full kernel (``nn.Conv(mask=...)``) gives the same outputs but stores weights
    without effect.

    Args:
      in_features: The number of input channels.
      table: For every output channel, the input channels that it is connected to.
      kernel_size: The sizes of the window.
      strides: One int, or one per axis.
      padding: The same as in :func:`cnn_jax.ops.conv`, as are ``boundary`` and ``boundary_value``.
      boundary: The values of the padding; see :func:`cnn_jax.ops.pad`.
      boundary_value: The value of ``boundary='constant'``.
      bias_space: The spatial sizes of the output, to give every unit its own bias. By default the units of a channel
        share one bias.
      dtype: The dtype of the computation; by default the dtype that the input and the parameters promote to.
      kernel_init: Initialises the kernels of all output channels with the same number of inputs together, like the
        kernel of a full convolution: ``(*kernel_size, inputs per output, number of such outputs)``.
      bias_init: Initialises the bias, ``(*bias_space, out_features)``.
      rngs: The random number generators for the parameters.

    Raises:
      UsageError: A row of the table is empty or contains channels that do not exist; calls raise the errors of
        :func:`cnn_jax.ops.conv`.

    References:
      LeCun et al., Backpropagation applied to handwritten zip code recognition, 1989; Gradient-based learning applied
      to document recognition, 1998, table 1.

    >>> layer = TableConv(3, [(0, 1), (1, 2), (0, 1, 2)], (5, 5), padding="VALID", rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((8, 14, 14, 3))).shape, layer.kernel.shape
    ((8, 10, 10, 3), (5, 5, 7))
    """

    def __init__(
        self,
        in_features: int,
        table: Sequence[Sequence[int]],
        kernel_size: Sequence[int],
        strides: int | Sequence[int] = 1,
        *,
        padding: Padding = "SAME",
        boundary: str = "zero",
        boundary_value: float = 0.0,
        bias_space: Sequence[int] = (),
        dtype: DTypeLike | None = None,
        kernel_init: Initializer = default_kernel_init,
        bias_init: Initializer = default_bias_init,
        rngs: nnx.Rngs,
    ) -> None:
        for output, inputs in enumerate(table):
            if not inputs or not set(inputs) <= set(range(in_features)) or len(set(inputs)) < len(inputs):
                raise UsageError(
                    f"TableConv: output channel {output} has the input channels {tuple(inputs)}; "
                    f"give at least one of 0 to {in_features - 1}, each at most once"
                )
        window = tuple(kernel_size)
        counts = [len(inputs) for inputs in table]
        drawn = {
            count: iter(jnp.moveaxis(kernel_init(rngs.params(), (*window, count, number), jnp.float32), -1, 0))
            for count, number in sorted(Counter(counts).items())
        }
        self.kernel = nnx.Param(jnp.concatenate([next(drawn[count]) for count in counts], axis=-1))
        self.bias = nnx.Param(bias_init(rngs.params(), (*bias_space, len(table)), jnp.float32))
        self.in_features = in_features
        self.out_features = len(table)
        self.table = tuple(tuple(inputs) for inputs in table)
        self.kernel_size = window
        self.strides = per_axis("TableConv", "strides", strides, len(window))
        self.padding = static_padding(padding)
        self.boundary = boundary
        self.boundary_value = boundary_value
        self.dtype = dtype

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space in_features"]
    ) -> Shaped[Array, "*batch_and_output out_features"]:
        """Convolves ``(*batch, *space, in_features)`` to ``(*batch, *output, out_features)``."""
        check_channels("TableConv", inputs, self.in_features, len(self.kernel_size))
        inputs, kernel, bias = promote_dtype((inputs, self.kernel[...], self.bias[...]), dtype=self.dtype)
        seen = np.concatenate([np.array(inputs) for inputs in self.table])
        by = np.repeat(np.arange(self.out_features), [len(inputs) for inputs in self.table])
        full = jnp.zeros((*self.kernel_size, self.in_features, self.out_features), kernel.dtype)
        y = ops.conv(
            inputs,
            full.at[..., seen, by].set(kernel),
            strides=self.strides,
            padding=self.padding,
            boundary=self.boundary,
            boundary_value=self.boundary_value,
        )
        return affine(y, bias=bias)


class Subsampling(nnx.Module):
    """LeNet's pooling: the sum of a window, times a trained coefficient, plus a trained bias, both per channel.

    Args:
      features: The number of channels.
      window_shape: The sizes of the window, which is also the strides.
      dtype: The dtype of the computation; by default the dtype that the input and the parameters promote to.
      coefficient_init: Initialises the coefficients, ``(features,)``. With the default the layer computes an average.
      bias_init: Initialises the biases, ``(features,)``.
      rngs: The random number generators for the parameters.

    Raises:
      UsageError: In a call, the inputs are smaller than the window or have another number of channels.

    References:
      LeCun et al., Gradient-based learning applied to document recognition, 1998, section II.B.

    >>> layer = Subsampling(2, (2, 2), coefficient_init=nnx.initializers.ones, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((8, 28, 28, 2)))[0, 0, 0]
    Array([4., 4.], dtype=float32)
    """

    def __init__(
        self,
        features: int,
        window_shape: Sequence[int],
        *,
        dtype: DTypeLike | None = None,
        coefficient_init: Initializer | None = None,
        bias_init: Initializer = default_bias_init,
        rngs: nnx.Rngs,
    ) -> None:
        self.window_shape = self.strides = per_axis("Subsampling", "window_shape", window_shape, len(window_shape))
        self.padding = "VALID"
        coefficient_init = coefficient_init or constant(1 / math.prod(self.window_shape))
        self.coefficient = nnx.Param(coefficient_init(rngs.params(), (features,), jnp.float32))
        self.bias = nnx.Param(bias_init(rngs.params(), (features,), jnp.float32))
        self.features = features
        self.dtype = dtype

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space features"]
    ) -> Shaped[Array, "*batch_and_output features"]:
        """Maps ``(*batch, *space, features)`` to ``(*batch, *output, features)``."""
        if inputs.shape[-1] != self.features:
            raise UsageError(
                f"Subsampling: inputs of shape {inputs.shape} have {inputs.shape[-1]} channels, "
                f"but features={self.features}; channels come last"
            )
        inputs, coefficient, bias = promote_dtype((inputs, self.coefficient[...], self.bias[...]), dtype=self.dtype)
        sums = ops.avg_pool(inputs, self.window_shape) * math.prod(self.window_shape)
        return affine(sums, scale=coefficient, bias=bias)
