"""Convolutions with fewer connections or less weight sharing: depthwise separable and locally connected layers."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.nnx.nn.linear import default_bias_init
from jax import lax
from jax.nn.initializers import Initializer
from jaxtyping import Array, DTypeLike, Shaped

from cnn_jax import ops
from cnn_jax.nn import sequence
from cnn_jax.nn.conv import Conv, check_channels, check_sizes
from cnn_jax.nn.options import static_padding
from cnn_jax.ops.arguments import AnyArray, integer, per_axis
from cnn_jax.ops.padding import Padding, slide
from cnn_jax.ops.wide import affine


class SeparableConv(sequence.Sequence):
    """A depthwise convolution, followed by a 1x1 convolution that mixes the channels.

    It has two :class:`Conv` layers, ``depthwise`` and ``pointwise``. Its activations have the same names.

    Args:
      in_features: The number of input channels.
      out_features: The number of output channels.
      kernel_size: The sizes of the window; one int for one spatial axis.
      strides: One int, or one per axis.
      channel_multiplier: The number of filters per channel.
      use_bias: Whether the pointwise layer adds a bias. The depthwise layer never does.
      rngs: The random number generators for the parameters.
      **options: Options of :class:`Conv`. The window options (``padding``, ``kernel_dilation``, ``boundary``,
        ``rounding``) apply to the depthwise layer. ``dtype``, ``param_dtype``, ``precision``, ``kernel_init``,
        ``method`` and ``derivatives`` apply to both layers.

    Raises:
      UsageError: See :class:`Conv`.

    References:
      Sifre, Rigid-motion scattering for image classification, 2014; Chollet, Xception, 2017.

    >>> layer = SeparableConv(8, 32, (3, 3), channel_multiplier=2, rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((4, 28, 28, 8))).shape, layer.depthwise.kernel.shape, layer.pointwise.kernel.shape
    ((4, 28, 28, 32), (3, 3, 1, 16), (1, 1, 16, 32))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] | None = 1,
        *,
        channel_multiplier: int = 1,
        use_bias: bool = True,
        rngs: nnx.Rngs,
        **options: Any,
    ) -> None:
        common = ("dtype", "param_dtype", "precision", "kernel_init", "method", "derivatives")
        shared = {name: options[name] for name in common if name in options}
        middle = in_features * integer("SeparableConv", "channel_multiplier", channel_multiplier)
        depthwise = Conv(
            in_features,
            middle,
            kernel_size,
            strides,
            feature_group_count=in_features,
            use_bias=False,
            rngs=rngs,
            **options,
        )
        one = (1,) * len(depthwise.kernel_size)
        pointwise = Conv(middle, out_features, one, use_bias=use_bias, rngs=rngs, **shared)
        super().__init__({"depthwise": depthwise, "pointwise": pointwise})


def unshared_kernel_init(
    key: Array, shape: Sequence[int], dtype: Any = jnp.float32, out_sharding: Any = None
) -> Shaped[Array, "..."]:
    """LeCun normal initialisation for ``(*output, *window, C_in / groups, C_out)``.

    The fan-in is that of a single output position.

    >>> unshared_kernel_init(jax.random.key(0), (2, 3, 4, 5)).shape
    (2, 3, 4, 5)
    """
    rank = (len(shape) - 2) // 2
    batched = jax.nn.initializers.lecun_normal(batch_axis=tuple(range(rank)))
    return batched(key, tuple(shape), dtype, out_sharding)


class ConvLocal(nnx.Module):
    """A convolution with unshared weights: every output position has its own kernel (:func:`cnn_jax.ops.conv_local`).

    Args:
      in_features: The number of input channels.
      out_features: The number of output channels.
      kernel_size: The sizes of the window; one int for one spatial axis.
      strides: One int, or one per axis.
      input_size: The spatial sizes of the input, which determine the number of kernels.
      padding: The same as in :func:`cnn_jax.ops.conv`, as are the options down to ``rounding``.
      input_dilation: One int, or one per axis.
      kernel_dilation: One int, or one per axis.
      feature_group_count: The number of groups; each output channel depends only on the input channels of its group.
      boundary: The values of the padding; see :func:`cnn_jax.ops.pad`.
      boundary_value: The value of ``boundary='constant'``.
      rounding: What to do if the stride does not divide the axis: ``'strict'``, ``'floor'`` or ``'ceil'``; see
        :func:`cnn_jax.ops.conv`.
      use_bias: Whether to add a bias to each unit.
      dtype: The dtype of the computation; by default the dtype that the input and the parameters promote to.
      param_dtype: The dtype of the parameters.
      precision: The same as in ``jax.lax.dot_general``.
      kernel_init: Initialises the kernels,
        ``(*output, *kernel_size, in_features / feature_group_count, out_features)``.
      bias_init: Initialises the biases, ``(*output, out_features)``.
      rngs: The random number generators for the parameters.

    Raises:
      UsageError: Arguments do not fit; calls raise the errors of :func:`cnn_jax.ops.conv_local`.

    References:
      LeCun, Generalization and network design strategies, 1989; Taigman et al., DeepFace, 2014.

    >>> layer = ConvLocal(3, 16, (3, 3), input_size=(8, 8), padding="VALID", rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((4, 8, 8, 3))).shape, layer.kernel.shape
    ((4, 6, 6, 16), (6, 6, 3, 3, 3, 16))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] | None = 1,
        *,
        input_size: int | Sequence[int],
        padding: Padding = "SAME",
        input_dilation: int | Sequence[int] | None = 1,
        kernel_dilation: int | Sequence[int] | None = 1,
        feature_group_count: int = 1,
        boundary: str = "zero",
        boundary_value: float = 0.0,
        rounding: str = "floor",
        use_bias: bool = True,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = unshared_kernel_init,
        bias_init: Initializer = default_bias_init,
        rngs: nnx.Rngs,
    ) -> None:
        name = "ConvLocal"
        window = check_sizes(name, in_features, out_features, kernel_size, feature_group_count)
        rank = len(window)
        self.in_features = in_features
        self.out_features = out_features
        self.kernel_size = window
        self.strides = per_axis(name, "strides", strides or 1, rank)
        self.input_size = per_axis(name, "input_size", input_size, rank)
        self.padding = static_padding(padding)
        self.input_dilation = per_axis(name, "input_dilation", input_dilation or 1, rank)
        self.kernel_dilation = per_axis(name, "kernel_dilation", kernel_dilation or 1, rank)
        self.feature_group_count = feature_group_count
        self.boundary = boundary
        self.boundary_value = boundary_value
        self.rounding = rounding
        self.dtype = dtype
        self.precision = precision
        output = slide(
            name,
            self.input_size,
            window,
            strides=self.strides,
            padding=padding,
            dilation=self.kernel_dilation,
            input_dilation=self.input_dilation,
            rounding=rounding,
        ).output
        shape = (*output, *window, in_features // feature_group_count, out_features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, param_dtype))
        self.bias = (
            nnx.Param(bias_init(rngs.params(), (*output, out_features), param_dtype)) if use_bias else nnx.data(None)
        )

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space in_features"]
    ) -> Shaped[Array, "*batch_and_output out_features"]:
        """Maps ``(*batch, *input_size, in_features)`` to ``(*batch, *output, out_features)``."""
        check_channels("ConvLocal", inputs, self.in_features, len(self.kernel_size))
        bias = None if self.bias is None else self.bias[...]
        inputs, kernel, bias = promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype)
        y = ops.conv_local(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            input_dilation=self.input_dilation,
            kernel_dilation=self.kernel_dilation,
            feature_group_count=self.feature_group_count,
            boundary=self.boundary,
            boundary_value=self.boundary_value,
            rounding=self.rounding,
            precision=self.precision,
        )
        return affine(y, bias=bias)
