"""Convolutions as layers: Flax's own parameters and arguments, computed by ``cnn_jax.ops``."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn.dtypes import promote_dtype
from flax.nnx.nn.linear import default_bias_init, default_kernel_init
from jax import lax
from jax.nn.initializers import Initializer
from jaxtyping import Array, DTypeLike, Shaped

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.geometry import Window
from cnn_jax.nn.options import frozen
from cnn_jax.ops.arguments import AnyArray, per_axis
from cnn_jax.ops.padding import Padding, dilated

# Flax has boundary rules among its padding names.
_FLAX_BOUNDARIES = {"CIRCULAR": "periodic", "REFLECT": "mirror"}


class Conv(nnx.Module):
    """A convolution that stands in for ``nnx.Conv``: the same parameters, defaults and outputs, with fast gradients.

    Args:
      in_features: Number of input channels.
      out_features: Number of output channels.
      kernel_size: Sizes of the window; one int for a convolution over one spatial axis.
      strides: One int, or one per axis.
      padding: As for :func:`cnn_jax.ops.conv`, and Flax's ``'CIRCULAR'`` and ``'REFLECT'``: as wide as ``'SAME'``
        at stride 1, with the periodic or mirror boundary.
      input_dilation: One int, or one per axis.
      kernel_dilation: One int, or one per axis.
      feature_group_count: Number of groups of channels that do not see each other.
      use_bias: Whether to add a bias to each output channel.
      mask: Zeros and ones, or booleans, that broadcast to the kernel; where 0, the kernel has no effect. One of
        shape ``(in_features, out_features)`` gives partial connections.
      boundary: What padding is filled with; see :func:`cnn_jax.ops.pad`.
      boundary_value: The value of ``boundary='constant'``.
      flip_kernel: Flips the window first: convolution in the mathematician's sense.
      rounding: Where the stride does not divide: ``'strict'``, ``'floor'`` or ``'ceil'``.
      method: ``'auto'`` or one of ``cnn_jax.ops.METHODS``.
      derivatives: ``'custom'``, fast; or ``'jax'``, which supports forward mode too.
      dtype: What to compute in; by default what the input and the parameters promote to.
      param_dtype: What parameters are made as.
      precision: As for ``jax.lax.conv_general_dilated``.
      kernel_init: Draws the kernel, ``(*kernel_size, in_features / feature_group_count, out_features)``.
      bias_init: Draws the bias, ``(out_features,)``.
      rngs: The source of randomness for them.
      kernel_metadata: Metadata of the kernel's ``nnx.Param``.
      bias_metadata: Metadata of the bias's ``nnx.Param``.

    Raises:
      UsageError: Arguments that do not fit; at a call, as :func:`cnn_jax.ops.conv`.

    >>> layer = Conv(3, 16, kernel_size=(3, 3), boundary="mirror", rngs=nnx.Rngs(0))
    >>> layer(jnp.ones((8, 32, 32, 3))).shape
    (8, 32, 32, 16)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] | None = 1,
        *,
        padding: Padding = "SAME",
        input_dilation: int | Sequence[int] | None = 1,
        kernel_dilation: int | Sequence[int] | None = 1,
        feature_group_count: int = 1,
        use_bias: bool = True,
        mask: Shaped[AnyArray, "..."] | None = None,
        boundary: str = "zero",
        boundary_value: float = 0.0,
        flip_kernel: bool = False,
        rounding: str = "floor",
        method: str = "auto",
        derivatives: str = "custom",
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = default_kernel_init,
        bias_init: Initializer = default_bias_init,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        if in_features % feature_group_count or out_features % feature_group_count:
            raise UsageError(
                f"Conv: feature_group_count={feature_group_count} must divide in_features={in_features} "
                f"and out_features={out_features}"
            )
        window = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
        rank = len(window)
        kernel_shape = (*window, in_features // feature_group_count, out_features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), kernel_shape, param_dtype), **kernel_metadata)
        self.bias = (
            nnx.Param(bias_init(rngs.params(), (out_features,), param_dtype), **bias_metadata)
            if use_bias
            else nnx.data(None)
        )
        self.in_features = in_features
        self.out_features = out_features
        self.kernel_size = window
        self.kernel_shape = kernel_shape
        self.strides = per_axis("Conv", "strides", strides or 1, rank)
        self.padding = frozen(padding)
        self.input_dilation = per_axis("Conv", "input_dilation", input_dilation or 1, rank)
        self.kernel_dilation = per_axis("Conv", "kernel_dilation", kernel_dilation or 1, rank)
        self.feature_group_count = feature_group_count
        self.use_bias = use_bias
        self.mask = nnx.data(mask)
        # Known also where nnx.eval_shape leaves only the shape of the mask.
        self.mask_entries = _entries(mask, kernel_shape)
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.boundary = boundary
        self.boundary_value = boundary_value
        self.flip_kernel = flip_kernel
        self.rounding = rounding
        self.method = method
        self.derivatives = derivatives

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space in_features"]
    ) -> Shaped[Array, "*batch_and_output out_features"]:
        """Convolves ``(*batch, *space, in_features)`` to ``(*batch, *output, out_features)``."""
        bias = None if self.bias is None else self.bias[...]
        inputs, kernel, bias = promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype)
        padding, boundary = self._padding()
        y = ops.conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=padding,
            input_dilation=self.input_dilation,
            kernel_dilation=self.kernel_dilation,
            feature_group_count=self.feature_group_count,
            mask=None if self.mask is None else self.mask != 0,
            boundary=boundary,
            boundary_value=self.boundary_value,
            flip_kernel=self.flip_kernel,
            rounding=self.rounding,
            method=self.method,
            derivatives=self.derivatives,
            precision=self.precision,
        )
        return y if bias is None else y + bias

    def _padding(self) -> tuple[Padding, str]:
        """Padding and boundary, with Flax's two names that mean both written out."""
        if not isinstance(self.padding, str) or self.padding not in _FLAX_BOUNDARIES:
            return self.padding, self.boundary
        if self.boundary != "zero":
            raise UsageError(f"Conv: padding={self.padding!r} says the boundary; leave out boundary={self.boundary!r}")
        reaches = dilated(self.kernel_size, self.kernel_dilation)
        return tuple(((reach - 1) // 2, reach // 2) for reach in reaches), _FLAX_BOUNDARIES[self.padding]


def _entries(mask: Shaped[AnyArray, "..."] | None, kernel_shape: tuple[int, ...]) -> int | None:
    """How many entries of a kernel a mask lets through; None without a mask, or for one that is being traced."""
    if mask is None or isinstance(mask, jax.core.Tracer):
        return None
    return int(np.count_nonzero(np.broadcast_to(np.asarray(mask), kernel_shape)))


class ConvTranspose(nnx.Module):
    """A transposed convolution that stands in for ``nnx.ConvTranspose``: the same parameters, defaults and outputs.

    Mind that Flax means two things by ``padding``: the names are those of the convolution that this one transposes, and
    numbers are what is added to the input once it has been spread out by the strides. For the exact adjoint of a
    convolution, with its own options, use :func:`cnn_jax.ops.conv_transpose`.

    Args:
      in_features: Number of input channels.
      out_features: Number of output channels.
      kernel_size: Sizes of the window; one int for one spatial axis.
      strides: The factors by which the input is spread out; one int, or one per axis.
      padding: ``'SAME'`` (the output is ``strides`` times as large), ``'VALID'``, an int, or one int or (low, high)
        pair per axis.
      kernel_dilation: One int, or one per axis.
      use_bias: Whether to add a bias to each output channel.
      mask: Zeros and ones, or booleans, that broadcast to the kernel; where 0, the kernel has no effect.
      method: ``'auto'`` or one of ``cnn_jax.ops.METHODS``.
      derivatives: ``'custom'``, fast; or ``'jax'``, which supports forward mode too.
      dtype: What to compute in; by default what the input and the parameters promote to.
      param_dtype: What parameters are made as.
      precision: As for ``jax.lax.conv_general_dilated``.
      kernel_init: Draws the kernel, ``(*kernel_size, in_features, out_features)``.
      bias_init: Draws the bias, ``(out_features,)``.
      transpose_kernel: Whether the kernel is that of the convolution, ``(*kernel_size, out_features, in_features)``.
      rngs: The source of randomness for the parameters.
      kernel_metadata: Metadata of the kernel's ``nnx.Param``.
      bias_metadata: Metadata of the bias's ``nnx.Param``.

    Raises:
      UsageError: An unknown padding; at a call, as :func:`cnn_jax.ops.conv`.

    >>> ConvTranspose(16, 3, kernel_size=(4, 4), strides=2, rngs=nnx.Rngs(0))(jnp.ones((8, 7, 7, 16))).shape
    (8, 14, 14, 3)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] | None = None,
        *,
        padding: Padding = "SAME",
        kernel_dilation: int | Sequence[int] | None = None,
        use_bias: bool = True,
        mask: Shaped[AnyArray, "..."] | None = None,
        method: str = "auto",
        derivatives: str = "custom",
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        precision: lax.PrecisionLike = None,
        kernel_init: Initializer = default_kernel_init,
        bias_init: Initializer = default_bias_init,
        transpose_kernel: bool = False,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        if isinstance(padding, str) and padding not in ("SAME", "VALID"):
            raise UsageError(
                f"ConvTranspose: unknown padding={padding!r}; use 'SAME', 'VALID', numbers, or ops.conv_transpose"
            )
        window = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
        features = (out_features, in_features) if transpose_kernel else (in_features, out_features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), (*window, *features), param_dtype), **kernel_metadata)
        self.bias = (
            nnx.Param(bias_init(rngs.params(), (out_features,), param_dtype), **bias_metadata)
            if use_bias
            else nnx.data(None)
        )
        self.in_features = in_features
        self.out_features = out_features
        self.kernel_size = window
        self.strides = per_axis("ConvTranspose", "strides", strides or 1, len(window))
        self.padding = frozen(padding)
        self.kernel_dilation = per_axis("ConvTranspose", "kernel_dilation", kernel_dilation or 1, len(window))
        self.use_bias = use_bias
        self.mask = nnx.data(mask)
        self.mask_entries = _entries(mask, self.kernel.shape)
        self.method = method
        self.derivatives = derivatives
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.transpose_kernel = transpose_kernel

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space in_features"]
    ) -> Shaped[Array, "*batch_and_output out_features"]:
        """Convolves ``(*batch, *space, in_features)``, spread out, to ``(*batch, *output, out_features)``."""
        bias = None if self.bias is None else self.bias[...]
        inputs, kernel, bias = promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype)
        if self.mask is not None:
            kernel = jnp.where(self.mask != 0, kernel, jnp.zeros((), kernel.dtype))
        y = ops.conv(
            inputs,
            jnp.swapaxes(kernel, -1, -2) if self.transpose_kernel else kernel,
            padding=self._padding(),
            input_dilation=self.strides,
            kernel_dilation=self.kernel_dilation,
            flip_kernel=self.transpose_kernel,
            method=self.method,
            derivatives=self.derivatives,
            precision=self.precision,
        )
        return y if bias is None else y + bias

    @property
    def window(self) -> Window:
        """How this layer looks at its input: the strides spread that out."""
        return Window(self.kernel_size, 1, self._padding(), self.kernel_dilation, self.strides)

    def _padding(self) -> Padding:
        """What Flax means by the names, in numbers."""
        if not isinstance(self.padding, str):
            return self.padding
        pairs = []
        for reach, stride in zip(dilated(self.kernel_size, self.kernel_dilation), self.strides, strict=True):
            low = reach - 1
            if self.padding == "SAME" and stride < reach:
                low = -(-(reach + stride - 2) // 2)
            total = reach + stride - 2 + (max(reach - stride, 0) if self.padding == "VALID" else 0)
            pairs.append((low, total - low))
        return tuple(pairs)
