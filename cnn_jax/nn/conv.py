"""Convolution layers with the parameters and arguments of Flax, computed by ``cnn_jax.ops``."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

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
from cnn_jax.geometry.windows import numbered_padding, transposed_window
from cnn_jax.nn.options import static_padding
from cnn_jax.ops.arguments import AnyArray, concrete, integer, per_axis, wider
from cnn_jax.ops.canonical import effective_kernel, looks_channels_first, operands, windows
from cnn_jax.ops.padding import Padding, dilated, extend, spread
from cnn_jax.ops.wide import affine

# Some of Flax's padding names set the boundary rule.
_FLAX_BOUNDARIES = {"CIRCULAR": "periodic", "REFLECT": "mirror"}


class Conv(nnx.Module):
    """A drop-in replacement for ``nnx.Conv`` with the same parameters, defaults and outputs, and fast gradients.

    Args:
      in_features: The number of input channels.
      out_features: The number of output channels.
      kernel_size: The sizes of the window; one int for a convolution over one spatial axis.
      strides: One int, or one per axis.
      padding: The same as in :func:`cnn_jax.ops.conv`, or Flax's ``'CIRCULAR'`` or ``'REFLECT'``. These two are as wide
        as ``'SAME'`` at stride 1 and use the periodic or mirror boundary.
      input_dilation: One int, or one per axis.
      kernel_dilation: One int, or one per axis.
      feature_group_count: The number of groups; each output channel depends only on the input channels of its group.
      use_bias: Whether to add a bias to each output channel.
      mask: Zeros and ones, or booleans, that broadcast to the kernel and multiply it. Kernel entries where the mask is
        0 have no effect. A mask of shape ``(in_features, out_features)`` gives partial connections.
      boundary: The values of the padding; see :func:`cnn_jax.ops.pad`.
      boundary_value: The value of ``boundary='constant'``.
      flip_kernel: Whether to flip the window first, which gives the convolution of mathematics.
      rounding: What to do if the stride does not divide the axis: ``'strict'``, ``'floor'`` or ``'ceil'``; see
        :func:`cnn_jax.ops.conv`.
      method: ``'auto'`` or one of ``cnn_jax.ops.METHODS``.
      derivatives: Has no effect; still accepted for one release.
      dtype: The dtype of the computation; by default the dtype that the input and the parameters promote to.
      param_dtype: The dtype of the parameters.
      precision: The same as in ``jax.lax.conv_general_dilated``.
      kernel_init: Initialises the kernel, ``(*kernel_size, in_features / feature_group_count, out_features)``.
      bias_init: Initialises the bias, ``(out_features,)``.
      conv_general_dilated: A function that computes the convolution instead, with the signature of
        ``jax.lax.conv_general_dilated``. If it is that function itself, ``method`` selects the computation.
      promote_dtype: The function of Flax that selects the dtype of the computation.
      preferred_element_type: The dtype of the output, and of the sums if it is wider than the dtype of the inputs.
      rngs: The random number generators for the parameters.
      kernel_metadata: The metadata of the kernel's ``nnx.Param``.
      bias_metadata: The metadata of the bias's ``nnx.Param``.

    Raises:
      UsageError: Arguments do not fit; calls raise the errors of :func:`cnn_jax.ops.conv`.

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
        conv_general_dilated: Callable[..., Array] = lax.conv_general_dilated,
        promote_dtype: Callable[..., Any] = promote_dtype,
        preferred_element_type: DTypeLike | None = None,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        window = check_sizes("Conv", in_features, out_features, kernel_size, feature_group_count)
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
        self.padding = static_padding(padding)
        self.input_dilation = per_axis("Conv", "input_dilation", input_dilation or 1, rank)
        self.kernel_dilation = per_axis("Conv", "kernel_dilation", kernel_dilation or 1, rank)
        self.feature_group_count = feature_group_count
        self.use_bias = use_bias
        self.mask = nnx.data(mask)
        # Computed here, because under nnx.eval_shape only the shape of the mask remains.
        self.mask_entries = _entries("Conv", mask, kernel_shape)
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.boundary = boundary
        self.boundary_value = boundary_value
        self.flip_kernel = flip_kernel
        self.rounding = rounding
        self.method = method
        self.derivatives = derivatives
        self.conv_general_dilated = conv_general_dilated
        self.promote_dtype = promote_dtype
        self.preferred_element_type = preferred_element_type

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space in_features"], out_sharding: Any = None
    ) -> Shaped[Array, "*batch_and_output out_features"]:
        """Convolves ``(*batch, *space, in_features)`` to ``(*batch, *output, out_features)``.

        On a mesh with explicit axes the output is sharded like the inputs along the batch axis, or as in
        ``out_sharding``.
        """
        in_features = self.kernel.shape[-2] * self.feature_group_count
        check_channels("Conv", inputs, in_features, len(self.kernel_size))
        bias = None if self.bias is None else self.bias[...]
        kernel = _masked(self.kernel[...], self.mask)
        x, kernel, bias = self.promote_dtype((inputs, kernel, bias), dtype=self.dtype)
        if self.conv_general_dilated is not lax.conv_general_dilated:
            y = self._other_convolution(x, kernel)
        else:
            y = self._convolution(*_widened(self.preferred_element_type, x, kernel))
        y = y if self.preferred_element_type is None else y.astype(self.preferred_element_type)
        y = affine(y, bias=bias)
        return y if out_sharding is None else jax.sharding.reshard(y, out_sharding)

    def _convolution(self, inputs: Array, kernel: Array) -> Array:
        padding, boundary = self._padding()
        return ops.conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=padding,
            input_dilation=self.input_dilation,
            kernel_dilation=self.kernel_dilation,
            feature_group_count=self.feature_group_count,
            boundary=boundary,
            boundary_value=self.boundary_value,
            flip_kernel=self.flip_kernel,
            rounding=self.rounding,
            method=self.method,
            derivatives=self.derivatives,
            precision=self.precision,
        )

    def _other_convolution(self, inputs: Array, kernel: Array) -> Array:
        """Calls the user's ``conv_general_dilated`` with checked arguments, after the boundary rule was applied."""
        padding, boundary = self._padding()
        x, kernel, batch = operands("Conv", inputs, kernel, self.feature_group_count)
        geometry = windows(
            "Conv",
            x.shape[1:-1],
            self.kernel_size,
            strides=self.strides,
            padding=padding,
            input_dilation=self.input_dilation,
            kernel_dilation=self.kernel_dilation,
            rounding=self.rounding,
        )
        pairs, rates = geometry.sliding.reach, self.input_dilation
        if boundary != "zero":
            x = extend(spread(x, rates), pairs, boundary=boundary, boundary_value=self.boundary_value)
            pairs, rates = ((0, 0),) * len(rates), (1,) * len(rates)
        space = "".join(chr(ord("a") + axis) for axis in range(len(rates)))
        preferred = {"preferred_element_type": self.preferred_element_type} if self.preferred_element_type else {}
        y = self.conv_general_dilated(
            x,
            effective_kernel("Conv", kernel, None, self.flip_kernel),
            self.strides,
            pairs,
            lhs_dilation=rates,
            rhs_dilation=self.kernel_dilation,
            dimension_numbers=lax.conv_dimension_numbers(
                x.shape, kernel.shape, (f"N{space}C", f"{space}IO", f"N{space}C")
            ),
            feature_group_count=self.feature_group_count,
            precision=self.precision,
            **preferred,
        )
        return y.reshape(*batch, *y.shape[1:])

    def _padding(self) -> tuple[Padding, str]:
        """The padding and the boundary; replaces Flax's two names that set both."""
        if not isinstance(self.padding, str) or self.padding not in _FLAX_BOUNDARIES:
            return self.padding, self.boundary
        if self.boundary != "zero":
            raise UsageError(
                f"Conv: padding={self.padding!r} already sets the boundary; leave out boundary={self.boundary!r}"
            )
        reaches = dilated(self.kernel_size, self.kernel_dilation)
        return numbered_padding(self.padding, reaches), _FLAX_BOUNDARIES[self.padding]


def check_sizes(
    name: str, in_features: int, out_features: int, kernel_size: int | Sequence[int], feature_group_count: int = 1
) -> tuple[int, ...]:
    """Checks the arguments that determine the shape of the kernel; returns the sizes of the window."""
    window = tuple(kernel_size) if isinstance(kernel_size, Sequence) else (kernel_size,)
    window = per_axis(name, "kernel_size", window, len(window))
    numbers = {"in_features": in_features, "out_features": out_features, "feature_group_count": feature_group_count}
    for what, number in numbers.items():
        integer(name, what, number, least=1)
    if in_features % feature_group_count or out_features % feature_group_count:
        raise UsageError(
            f"{name}: feature_group_count={feature_group_count} must divide in_features={in_features} "
            f"and out_features={out_features}"
        )
    return window


def check_channels(name: str, inputs: Shaped[AnyArray, "..."], in_features: int, rank: int) -> None:
    """Raises a ``UsageError`` if the inputs have another number of channels than the layer."""
    if inputs.ndim > rank and inputs.shape[-1] != in_features:
        hint = "channels come last"
        if looks_channels_first(inputs, in_features, rank):
            hint = f"they look channels-first, use jnp.moveaxis(inputs, {-1 - rank}, -1)"
        raise UsageError(
            f"{name}: inputs of shape {inputs.shape} have {inputs.shape[-1]} channels, but in_features={in_features}; "
            + hint
        )


def _entries(name: str, mask: Shaped[AnyArray, "..."] | None, kernel_shape: tuple[int, ...]) -> int | None:
    """The number of kernel entries where the mask is not 0; None without a mask or if its values are unknown."""
    entries = None if mask is None else concrete(mask)
    if entries is None:
        return None
    try:
        return int(np.count_nonzero(np.broadcast_to(entries, kernel_shape)))
    except ValueError:
        raise UsageError(
            f"{name}: mask of shape {entries.shape} does not broadcast to kernel {kernel_shape}; "
            f"use (in_features, out_features)"
        ) from None


def _masked(kernel: Array, mask: Shaped[AnyArray, "..."] | None) -> Array:
    """The kernel times the mask; 0 where the mask is 0, even if the kernel is not finite there."""
    if mask is None:
        return kernel
    mask = lax.broadcast_to_rank(jnp.asarray(mask), kernel.ndim)
    dtype = wider(kernel.dtype, mask.dtype)
    return jnp.where(mask.astype(bool), kernel.astype(dtype) * mask.astype(dtype), jnp.zeros((), dtype))


def _widened(preferred: DTypeLike | None, inputs: Array, kernel: Array) -> tuple[Array, Array]:
    """Both arrays in a dtype at least as wide as the preferred dtype of the output. Their products are the same."""
    if preferred is None:
        return inputs, kernel
    dtype = wider(inputs.dtype, kernel.dtype, preferred)
    return inputs.astype(dtype), kernel.astype(dtype)


class ConvTranspose(nnx.Module):
    """A transposed convolution with the parameters, defaults and outputs of ``nnx.ConvTranspose``.

    Flax gives ``padding`` two meanings. A name is the padding of the convolution that this layer transposes. A number
    is added to the input after the input is dilated by the strides. For the exact adjoint of a convolution, with the
    same options, use :func:`cnn_jax.ops.conv_transpose`.

    Args:
      in_features: The number of input channels.
      out_features: The number of output channels.
      kernel_size: The sizes of the window; one int for one spatial axis.
      strides: The factors by which the input is dilated; one int, or one per axis.
      padding: ``'SAME'`` (the output is ``strides`` times as large), ``'VALID'``, ``'CIRCULAR'`` (as large as
        ``'SAME'``; entries beyond one end are added at the other end), an int, or one int or (low, high) pair per axis.
      kernel_dilation: One int, or one per axis.
      use_bias: Whether to add a bias to each output channel.
      mask: Zeros and ones, or booleans, that broadcast to the kernel and multiply it. Kernel entries where the mask is
        0 have no effect.
      method: ``'auto'`` or one of ``cnn_jax.ops.METHODS``.
      derivatives: Has no effect; still accepted for one release.
      dtype: The dtype of the computation; by default the dtype that the input and the parameters promote to.
      param_dtype: The dtype of the parameters.
      precision: The same as in ``jax.lax.conv_general_dilated``.
      kernel_init: Initialises the kernel, ``(*kernel_size, in_features, out_features)``.
      bias_init: Initialises the bias, ``(out_features,)``.
      transpose_kernel: Whether the kernel has the shape of the kernel of the convolution,
        ``(*kernel_size, out_features, in_features)``.
      promote_dtype: The function of Flax that selects the dtype of the computation.
      preferred_element_type: The dtype of the output, and of the sums if it is wider than the dtype of the inputs.
      rngs: The random number generators for the parameters.
      kernel_metadata: The metadata of the kernel's ``nnx.Param``.
      bias_metadata: The metadata of the bias's ``nnx.Param``.

    Raises:
      UsageError: The padding is unknown; calls raise the errors of :func:`cnn_jax.ops.conv`.

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
        promote_dtype: Callable[..., Any] = promote_dtype,
        preferred_element_type: DTypeLike | None = None,
        rngs: nnx.Rngs,
        kernel_metadata: Mapping[str, Any] = MappingProxyType({}),
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        if isinstance(padding, str) and padding not in ("SAME", "VALID", "CIRCULAR"):
            raise UsageError(
                f"ConvTranspose: unknown padding={padding!r}; use 'SAME', 'VALID', 'CIRCULAR', numbers, or "
                f"ops.conv_transpose"
            )
        window = check_sizes("ConvTranspose", in_features, out_features, kernel_size)
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
        self.padding = static_padding(padding)
        self.kernel_dilation = per_axis("ConvTranspose", "kernel_dilation", kernel_dilation or 1, len(window))
        self.use_bias = use_bias
        self.mask = nnx.data(mask)
        self.mask_entries = _entries("ConvTranspose", mask, self.kernel.shape)
        self.method = method
        self.derivatives = derivatives
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.precision = precision
        self.transpose_kernel = transpose_kernel
        self.promote_dtype = promote_dtype
        self.preferred_element_type = preferred_element_type

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space in_features"]
    ) -> Shaped[Array, "*batch_and_output out_features"]:
        """Maps ``(*batch, *space, in_features)`` to ``(*batch, *output, out_features)``."""
        in_features = self.kernel.shape[-1 if self.transpose_kernel else -2]
        check_channels("ConvTranspose", inputs, in_features, len(self.kernel_size))
        bias = None if self.bias is None else self.bias[...]
        kernel = _masked(self.kernel[...], self.mask)
        x, kernel, bias = self.promote_dtype((inputs, kernel, bias), dtype=self.dtype)
        x, kernel = _widened(self.preferred_element_type, x, kernel)
        padding = self.window.padding
        if self.padding == "CIRCULAR":
            # Whole strides of circular padding are added before the dilation. The remainder is zeros between inputs.
            pairs = cast(Sequence[tuple[int, int]], padding)
            whole = [
                [divmod(width, stride) for width in pair] for pair, stride in zip(pairs, self.strides, strict=True)
            ]
            x = ops.pad(x, [(low, high) for (low, _), (high, _) in whole], boundary="periodic")
            padding = tuple((low, high) for (_, low), (_, high) in whole)
        y = ops.conv(
            x,
            jnp.swapaxes(kernel, -1, -2) if self.transpose_kernel else kernel,
            padding=padding,
            input_dilation=self.strides,
            kernel_dilation=self.kernel_dilation,
            flip_kernel=self.transpose_kernel,
            method=self.method,
            derivatives=self.derivatives,
            precision=self.precision,
        )
        y = y if self.preferred_element_type is None else y.astype(self.preferred_element_type)
        return affine(y, bias=bias)

    @property
    def window(self) -> Window:
        """The window of this layer over its input, which is dilated by the strides."""
        return transposed_window(
            self.kernel_size, self.strides, self.padding, self.kernel_dilation, self.transpose_kernel
        )
