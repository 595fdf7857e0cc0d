"""Pools, unpooling and upsampling as layers. They have no parameters. Global pools are functions in ``ops``."""

from collections.abc import Sequence
from typing import Any

from flax import nnx
from jaxtyping import Array, Shaped

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.geometry import Window
from cnn_jax.nn.options import static_padding
from cnn_jax.ops.arguments import AnyArray, one_or_several, per_axis
from cnn_jax.ops.padding import Padding


class _Pool(nnx.Module):
    """The options that all pools share."""

    def __init__(
        self,
        window_shape: int | Sequence[int],
        strides: int | Sequence[int] | None,
        padding: Padding,
        dilation: int | Sequence[int],
        rounding: str,
        derivatives: str,
    ) -> None:
        name = type(self).__name__
        self.window_shape = one_or_several(name, "window_shape", window_shape)
        self.strides = self.window_shape if strides is None else self._per_window_axis("strides", strides)
        self.padding = static_padding(padding)
        self.dilation = self._per_window_axis("dilation", dilation)
        self.rounding = rounding
        self.derivatives = derivatives

    def _per_window_axis(self, what: str, value: int | Sequence[int]) -> int | tuple[int, ...]:
        """Checks an option that has one int per axis of the window, or one int for all axes."""
        name = type(self).__name__
        if isinstance(self.window_shape, int):
            return one_or_several(name, what, value)
        return per_axis(name, what, value, len(self.window_shape))

    def _options(self) -> dict[str, Any]:
        names = ("strides", "padding", "dilation", "rounding", "derivatives")
        return {name: getattr(self, name) for name in names}


class MaxPool(_Pool):
    """:func:`cnn_jax.ops.max_pool` as a layer.

    Args:
      window_shape: The sizes of the window, one per spatial axis; one int applies to every axis except the first and
        the last.
      strides: One int, or one per axis; equal to the window by default.
      padding: The same as in :func:`cnn_jax.ops.max_pool`, as are the remaining options.
      dilation: One int, or one per axis.
      rounding: What to do if the stride does not divide the axis: ``'strict'``, ``'floor'`` or ``'ceil'``; see
        :func:`cnn_jax.ops.conv`.
      ties: Where the gradient goes: ``'first'``, ``'split'`` or ``'all'``.
      return_indices: Whether to return the maxima and their positions as a pair, for :class:`MaxUnpool`.
      derivatives: Has no effect; still accepted for one release.

    >>> import jax.numpy as jnp
    >>> MaxPool((3, 3), strides=2)(jnp.ones((8, 55, 55, 96))).shape
    (8, 27, 27, 96)
    """

    def __init__(
        self,
        window_shape: int | Sequence[int],
        strides: int | Sequence[int] | None = None,
        padding: Padding = "VALID",
        *,
        dilation: int | Sequence[int] = 1,
        rounding: str = "floor",
        ties: str = "first",
        return_indices: bool = False,
        derivatives: str = "custom",
    ) -> None:
        super().__init__(window_shape, strides, padding, dilation, rounding, derivatives)
        self.ties = ties
        self.return_indices = return_indices

    def __call__(self, inputs: Shaped[AnyArray, "*batch_and_space channels"]) -> Any:
        """Pools ``(*batch, *space, C)`` to ``(*batch, *output, C)``."""
        return ops.max_pool(
            inputs,
            self.window_shape,
            **self._options(),
            ties=self.ties,
            return_indices=self.return_indices,
        )


class AvgPool(_Pool):
    """:func:`cnn_jax.ops.avg_pool` as a layer.

    Args:
      window_shape: The sizes of the window, one per spatial axis; one int applies to every axis except the first and
        the last.
      strides: One int, or one per axis; equal to the window by default.
      padding: The same as in :func:`cnn_jax.ops.avg_pool`, as are the remaining options.
      count_include_pad: Whether the number that a sum is divided by includes padding.
      dilation: One int, or one per axis.
      rounding: What to do if the stride does not divide the axis: ``'strict'``, ``'floor'`` or ``'ceil'``; see
        :func:`cnn_jax.ops.conv`.
      derivatives: Has no effect; still accepted for one release.

    >>> import jax.numpy as jnp
    >>> AvgPool((2, 2))(jnp.ones((8, 28, 28, 6))).shape
    (8, 14, 14, 6)
    """

    def __init__(
        self,
        window_shape: int | Sequence[int],
        strides: int | Sequence[int] | None = None,
        padding: Padding = "VALID",
        *,
        count_include_pad: bool = True,
        dilation: int | Sequence[int] = 1,
        rounding: str = "floor",
        derivatives: str = "custom",
    ) -> None:
        super().__init__(window_shape, strides, padding, dilation, rounding, derivatives)
        self.count_include_pad = count_include_pad

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space channels"]
    ) -> Shaped[Array, "*batch_and_output channels"]:
        """Pools ``(*batch, *space, C)`` to ``(*batch, *output, C)``."""
        return ops.avg_pool(
            inputs,
            self.window_shape,
            **self._options(),
            count_include_pad=self.count_include_pad,
        )


class LpPool(_Pool):
    """:func:`cnn_jax.ops.lp_pool` as a layer.

    Args:
      window_shape: The sizes of the window, one per spatial axis; one int applies to every axis except the first and
        the last.
      strides: One int, or one per axis; equal to the window by default.
      padding: The same as in :func:`cnn_jax.ops.avg_pool`, as are the remaining options.
      p: The exponent of the norm, at least 1.
      dilation: One int, or one per axis.
      rounding: What to do if the stride does not divide the axis: ``'strict'``, ``'floor'`` or ``'ceil'``; see
        :func:`cnn_jax.ops.conv`.
      derivatives: Has no effect; still accepted for one release.

    >>> import jax.numpy as jnp
    >>> LpPool((2, 2), p=4)(jnp.ones((8, 28, 28, 6))).shape
    (8, 14, 14, 6)
    """

    def __init__(
        self,
        window_shape: int | Sequence[int],
        strides: int | Sequence[int] | None = None,
        padding: Padding = "VALID",
        *,
        p: int | float = 2,
        dilation: int | Sequence[int] = 1,
        rounding: str = "floor",
        derivatives: str = "custom",
    ) -> None:
        super().__init__(window_shape, strides, padding, dilation, rounding, derivatives)
        self.p = p

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space channels"]
    ) -> Shaped[Array, "*batch_and_output channels"]:
        """Pools ``(*batch, *space, C)`` to ``(*batch, *output, C)``."""
        return ops.lp_pool(
            inputs,
            self.window_shape,
            p=self.p,
            **self._options(),
        )


class AdaptiveAvgPool(nnx.Module):
    """:func:`cnn_jax.ops.adaptive_avg_pool` as a layer.

    Args:
      output_size: The number of windows, one int per spatial axis; one int applies to every axis except the first and
        the last.

    >>> import jax.numpy as jnp
    >>> AdaptiveAvgPool((6, 6))(jnp.ones((8, 13, 13, 256))).shape
    (8, 6, 6, 256)
    """

    def __init__(self, output_size: int | Sequence[int]) -> None:
        self.output_size = one_or_several("AdaptiveAvgPool", "output_size", output_size)

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space channels"]
    ) -> Shaped[Array, "*batch_and_output channels"]:
        """Pools ``(*batch, *space, C)`` to ``(*batch, *output_size, C)``."""
        return ops.adaptive_avg_pool(inputs, self.output_size)


class AdaptiveMaxPool(nnx.Module):
    """:func:`cnn_jax.ops.adaptive_max_pool` as a layer.

    Args:
      output_size: The number of windows, one int per spatial axis; one int applies to every axis except the first and
        the last.
      return_indices: Whether to return the maxima and their positions as a pair.

    >>> import jax.numpy as jnp
    >>> AdaptiveMaxPool((6, 6))(jnp.ones((8, 13, 13, 256))).shape
    (8, 6, 6, 256)
    """

    def __init__(self, output_size: int | Sequence[int], *, return_indices: bool = False) -> None:
        self.output_size = one_or_several("AdaptiveMaxPool", "output_size", output_size)
        self.return_indices = return_indices

    def __call__(self, inputs: Shaped[AnyArray, "*batch_and_space channels"]) -> Any:
        """Pools ``(*batch, *space, C)`` to ``(*batch, *output_size, C)``."""
        return ops.adaptive_max_pool(inputs, self.output_size, return_indices=self.return_indices)


class MaxUnpool(nnx.Module):
    """:func:`cnn_jax.ops.max_unpool` as a layer, for the outputs of ``ops.max_pool(..., return_indices=True)``.

    Args:
      output_shape: The spatial sizes of the array that was pooled; one int applies to every axis except the first and
        the last. By default a call gives them.
      overlap: What to do if windows share a maximum: ``'set'`` or ``'add'``.
      strides: Those of the pool, one int per spatial axis or one for all; only :mod:`cnn_jax.geometry` uses them, to
        compute receptive fields.

    >>> import jax.numpy as jnp
    >>> pooled, indices = ops.max_pool(jnp.ones((8, 28, 28, 6)), (2, 2), return_indices=True)
    >>> MaxUnpool((28, 28))(pooled, indices).shape
    (8, 28, 28, 6)
    """

    def __init__(
        self,
        output_shape: int | Sequence[int] | None = None,
        *,
        overlap: str = "set",
        strides: int | Sequence[int] | None = None,
    ) -> None:
        name = "MaxUnpool"
        self.output_shape = None if output_shape is None else one_or_several(name, "output_shape", output_shape)
        self.overlap = overlap
        self.scale = None if strides is None else one_or_several(name, "strides", strides)

    @property
    def window(self) -> Window | None:
        """The entries that may be written to a place; None if the strides of the pool are not known."""
        if self.scale is None:
            return None
        scales = (self.scale,) if isinstance(self.scale, int) else self.scale
        padding = tuple((scale - 1, scale - 1) for scale in scales)
        return Window(scales, padding=padding, input_dilation=scales)

    def __call__(
        self,
        inputs: Shaped[AnyArray, "*batch_and_output channels"],
        indices: Shaped[AnyArray, "..."],
        output_shape: int | Sequence[int] | None = None,
    ) -> Shaped[Array, "*batch_and_space channels"]:
        """Unpools ``(*batch, *output, C)`` to ``(*batch, *output_shape, C)``."""
        sizes = self.output_shape if output_shape is None else output_shape
        if sizes is None:
            raise UsageError("MaxUnpool: output_shape, the spatial sizes of the array that was pooled, must be given")
        return ops.max_unpool(inputs, indices, sizes, overlap=self.overlap)


class Upsample(nnx.Module):
    """:func:`cnn_jax.ops.upsample` as a layer.

    Args:
      scale: The factors, one int per spatial axis; one int applies to every axis except the first and the last.
      method: ``'nearest'``, ``'bilinear'`` or ``'bed_of_nails'``.
      align_corners: Only for ``'bilinear'``: whether the outermost entries stay at the outermost positions.

    >>> import jax.numpy as jnp
    >>> Upsample((2, 2))(jnp.ones((8, 7, 7, 64))).shape
    (8, 14, 14, 64)
    """

    def __init__(self, scale: int | Sequence[int], *, method: str = "nearest", align_corners: bool = False) -> None:
        self.scale = one_or_several("Upsample", "scale", scale)
        self.method = method
        self.align_corners = align_corners

    @property
    def window(self) -> Window | None:
        """The window of the equivalent transposed convolution; None with ``align_corners``, which has no equivalent."""
        if self.align_corners:
            return None
        scales = (self.scale,) if isinstance(self.scale, int) else self.scale
        reaches = {"nearest": scales, "bed_of_nails": (1,) * len(scales)}
        kernel = reaches.get(self.method, tuple(2 * scale - scale % 2 for scale in scales))
        gaps = tuple(scale - 2 + span for scale, span in zip(scales, kernel, strict=True))
        if self.method == "bed_of_nails":  # the first position of each block
            padding = tuple((0, gap) for gap in gaps)
        else:
            padding = tuple((-(-gap // 2), gap // 2) for gap in gaps)
        if not isinstance(self.scale, int):
            return Window(kernel, padding=padding, input_dilation=scales)
        # The number of axes is open. A Window supports this for one int on both sides, but not for a pair.
        (low, high), *_ = padding
        return Window(kernel[0], padding=low, input_dilation=self.scale) if low == high else None

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space channels"]
    ) -> Shaped[Array, "*batch_and_output channels"]:
        """Enlarges ``(*batch, *space, C)`` to ``(*batch, *space * scale, C)``."""
        return ops.upsample(inputs, self.scale, method=self.method, align_corners=self.align_corners)
