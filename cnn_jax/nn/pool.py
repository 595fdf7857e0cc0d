"""Pools and their inverses as layers: they hold options and no parameters. Global pools are functions in ``ops``."""

from collections.abc import Sequence
from typing import Any

from flax import nnx
from jaxtyping import Array, Shaped

from cnn_jax import ops
from cnn_jax.geometry import Window
from cnn_jax.nn.options import frozen
from cnn_jax.ops.arguments import AnyArray, per_axis
from cnn_jax.ops.padding import Padding
from cnn_jax.ops.pool import check_window


class _Pool(nnx.Module):
    """What all pools hold: how a window slides, and how it is differentiated."""

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
        rank = check_window(name, window_shape, "window_shape")
        self.window_shape = per_axis(name, "window_shape", window_shape, rank)
        self.strides = self.window_shape if strides is None else per_axis(name, "strides", strides, rank)
        self.padding = frozen(padding)
        self.dilation = per_axis(name, "dilation", dilation, rank)
        self.rounding = rounding
        self.derivatives = derivatives

    def _options(self) -> dict[str, Any]:
        names = ("strides", "padding", "dilation", "rounding", "derivatives")
        return {name: getattr(self, name) for name in names}


class MaxPool(_Pool):
    """:func:`cnn_jax.ops.max_pool` as a layer.

    Args:
      window_shape: Sizes of the window, one per spatial axis.
      strides: One int, or one per axis; those of the window by default.
      padding: As for :func:`cnn_jax.ops.max_pool`, as are the further options.
      dilation: One int, or one per axis.
      rounding: Where the stride does not divide: ``'strict'``, ``'floor'`` or ``'ceil'``.
      ties: Where the gradient goes: ``'first'``, ``'split'`` or ``'all'``.
      return_indices: Return a pair, the maxima and where they are, as :class:`MaxUnpool` takes them.
      derivatives: ``'custom'``, fast; or ``'jax'``, which supports forward mode too.

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
      window_shape: Sizes of the window, one per spatial axis.
      strides: One int, or one per axis; those of the window by default.
      padding: As for :func:`cnn_jax.ops.avg_pool`, as are the further options.
      count_include_pad: Whether padding counts in the number that a sum is divided by.
      dilation: One int, or one per axis.
      rounding: Where the stride does not divide: ``'strict'``, ``'floor'`` or ``'ceil'``.
      derivatives: ``'custom'``, fast; or ``'jax'``, which supports forward mode too.

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
      window_shape: Sizes of the window, one per spatial axis.
      strides: One int, or one per axis; those of the window by default.
      padding: As for :func:`cnn_jax.ops.avg_pool`, as are the further options.
      p: Which norm, at least 1.
      dilation: One int, or one per axis.
      rounding: Where the stride does not divide: ``'strict'``, ``'floor'`` or ``'ceil'``.
      derivatives: ``'custom'``, fast; or ``'jax'``, which supports forward mode too.

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
      output_size: The number of windows, one int per spatial axis.

    >>> import jax.numpy as jnp
    >>> AdaptiveAvgPool((6, 6))(jnp.ones((8, 13, 13, 256))).shape
    (8, 6, 6, 256)
    """

    def __init__(self, output_size: int | Sequence[int]) -> None:
        rank = check_window("AdaptiveAvgPool", output_size, "output_size")
        self.output_size = per_axis("AdaptiveAvgPool", "output_size", output_size, rank)

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space channels"]
    ) -> Shaped[Array, "*batch_and_output channels"]:
        """Pools ``(*batch, *space, C)`` to ``(*batch, *output_size, C)``."""
        return ops.adaptive_avg_pool(inputs, self.output_size)


class AdaptiveMaxPool(nnx.Module):
    """:func:`cnn_jax.ops.adaptive_max_pool` as a layer.

    Args:
      output_size: The number of windows, one int per spatial axis.
      return_indices: Return a pair: what :func:`cnn_jax.ops.adaptive_max_pool` does.

    >>> import jax.numpy as jnp
    >>> AdaptiveMaxPool((6, 6))(jnp.ones((8, 13, 13, 256))).shape
    (8, 6, 6, 256)
    """

    def __init__(self, output_size: int | Sequence[int], *, return_indices: bool = False) -> None:
        rank = check_window("AdaptiveMaxPool", output_size, "output_size")
        self.output_size = per_axis("AdaptiveMaxPool", "output_size", output_size, rank)
        self.return_indices = return_indices

    def __call__(self, inputs: Shaped[AnyArray, "*batch_and_space channels"]) -> Any:
        """Pools ``(*batch, *space, C)`` to ``(*batch, *output_size, C)``."""
        return ops.adaptive_max_pool(inputs, self.output_size, return_indices=self.return_indices)


class MaxUnpool(nnx.Module):
    """:func:`cnn_jax.ops.max_unpool` as a layer; it takes what ``ops.max_pool(..., return_indices=True)`` gives.

    Args:
      output_shape: The spatial sizes of what was pooled.
      overlap: Where windows share a maximum: ``'set'`` or ``'add'``.

    >>> import jax.numpy as jnp
    >>> pooled, indices = ops.max_pool(jnp.ones((8, 28, 28, 6)), (2, 2), return_indices=True)
    >>> MaxUnpool((28, 28))(pooled, indices).shape
    (8, 28, 28, 6)
    """

    def __init__(self, output_shape: int | Sequence[int], *, overlap: str = "set") -> None:
        rank = check_window("MaxUnpool", output_shape, "output_shape")
        self.output_shape = per_axis("MaxUnpool", "output_shape", output_shape, rank)
        self.overlap = overlap

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_output channels"], indices: Shaped[AnyArray, "..."]
    ) -> Shaped[Array, "*batch_and_space channels"]:
        """Unpools ``(*batch, *output, C)`` to ``(*batch, *output_shape, C)``."""
        return ops.max_unpool(inputs, indices, self.output_shape, overlap=self.overlap)


class Upsample(nnx.Module):
    """:func:`cnn_jax.ops.upsample` as a layer.

    Args:
      scale: The factors, one int per spatial axis.
      method: ``'nearest'``, ``'bilinear'`` or ``'bed_of_nails'``.
      align_corners: For ``'bilinear'``: whether the outermost entries stay at the outermost positions.

    >>> import jax.numpy as jnp
    >>> Upsample((2, 2))(jnp.ones((8, 7, 7, 64))).shape
    (8, 14, 14, 64)
    """

    def __init__(self, scale: int | Sequence[int], *, method: str = "nearest", align_corners: bool = False) -> None:
        self.scale = per_axis("Upsample", "scale", scale, check_window("Upsample", scale, "scale"))
        self.method = method
        self.align_corners = align_corners

    @property
    def window(self) -> Window | None:
        """That of the transposed convolution which does the same; none does where corners are aligned."""
        if self.align_corners:
            return None
        reaches = {"nearest": self.scale, "bed_of_nails": (1,) * len(self.scale)}
        kernel = reaches.get(self.method, tuple(2 * scale - scale % 2 for scale in self.scale))
        gaps = tuple(scale - 2 + span for scale, span in zip(self.scale, kernel, strict=True))
        if self.method == "bed_of_nails":  # the first position of each block
            padding = tuple((0, gap) for gap in gaps)
        else:
            padding = tuple((-(-gap // 2), gap // 2) for gap in gaps)
        return Window(kernel, padding=padding, input_dilation=self.scale)

    def __call__(
        self, inputs: Shaped[AnyArray, "*batch_and_space channels"]
    ) -> Shaped[Array, "*batch_and_output channels"]:
        """Enlarges ``(*batch, *space, C)`` to ``(*batch, *space * scale, C)``."""
        return ops.upsample(inputs, self.scale, method=self.method, align_corners=self.align_corners)
