"""Pools as layers: they hold options and no parameters."""

from collections.abc import Sequence

from flax import nnx
from jaxtyping import Array, Shaped

from cnn_jax import ops
from cnn_jax.ops.arguments import per_axis
from cnn_jax.ops.padding import Padding
from cnn_jax.ops.pool import check_window


class MaxPool(nnx.Module):
    """:func:`cnn_jax.ops.max_pool` as a layer.

    Args:
      window_shape: Sizes of the window, one per spatial axis.
      strides: One int, or one per axis; those of the window by default.
      padding: As for :func:`cnn_jax.ops.max_pool`, as are the further options.
      dilation: One int, or one per axis.
      rounding: Where the stride does not divide: ``'strict'``, ``'floor'`` or ``'ceil'``.
      ties: Where the gradient goes: ``'first'``, ``'split'`` or ``'all'``.

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
    ) -> None:
        rank = check_window("MaxPool", window_shape)
        self.window_shape = per_axis("MaxPool", "window_shape", window_shape, rank)
        self.strides = self.window_shape if strides is None else per_axis("MaxPool", "strides", strides, rank)
        self.padding = padding
        self.dilation = per_axis("MaxPool", "dilation", dilation, rank)
        self.rounding = rounding
        self.ties = ties

    def __call__(
        self, inputs: Shaped[Array, "*batch_and_space channels"]
    ) -> Shaped[Array, "*batch_and_output channels"]:
        """Pools ``(*batch, *space, C)`` to ``(*batch, *output, C)``."""
        return ops.max_pool(
            inputs,
            self.window_shape,
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation,
            rounding=self.rounding,
            ties=self.ties,
        )


class AvgPool(nnx.Module):
    """:func:`cnn_jax.ops.avg_pool` as a layer.

    Args:
      window_shape: Sizes of the window, one per spatial axis.
      strides: One int, or one per axis; those of the window by default.
      padding: As for :func:`cnn_jax.ops.avg_pool`, as are the further options.
      count_include_pad: Whether padding counts in the number that a sum is divided by.
      dilation: One int, or one per axis.
      rounding: Where the stride does not divide: ``'strict'``, ``'floor'`` or ``'ceil'``.

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
    ) -> None:
        rank = check_window("AvgPool", window_shape)
        self.window_shape = per_axis("AvgPool", "window_shape", window_shape, rank)
        self.strides = self.window_shape if strides is None else per_axis("AvgPool", "strides", strides, rank)
        self.padding = padding
        self.count_include_pad = count_include_pad
        self.dilation = per_axis("AvgPool", "dilation", dilation, rank)
        self.rounding = rounding

    def __call__(
        self, inputs: Shaped[Array, "*batch_and_space channels"]
    ) -> Shaped[Array, "*batch_and_output channels"]:
        """Pools ``(*batch, *space, C)`` to ``(*batch, *output, C)``."""
        return ops.avg_pool(
            inputs,
            self.window_shape,
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation,
            rounding=self.rounding,
            count_include_pad=self.count_include_pad,
        )
