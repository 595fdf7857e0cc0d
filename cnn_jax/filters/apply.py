"""Filtering every channel of an image with one kernel."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Shaped

from cnn_jax import ops
from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray
from cnn_jax.ops.padding import Padding
from cnn_jax.ops.wide import in_float32


def apply(
    x: Shaped[AnyArray, "*batch_and_space channels"],
    kernel: Shaped[AnyArray, "..."],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    boundary: str = "mirror",
    flip_kernel: bool = False,
) -> Shaped[Array, "*batch_and_output channels"]:
    """Filters each channel of an input with the same kernel; by default the spatial sizes stay the same.

    Args:
      x: ``(*batch, *space, C)``.
      kernel: ``(*window,)``, without channel axes; its rank is the number of spatial axes.
      strides: This and all remaining options have the same meaning as in :func:`cnn_jax.ops.conv`. The default boundary
        mirrors the image, which adds no edges. On a CPU, large kernels may be applied by FFT (see ``method``); a NaN or
        infinity then affects the whole channel.

    Returns:
      ``(*batch, *output, C)``.

    Raises:
      UsageError: The kernel has no axes; see also :func:`cnn_jax.ops.conv`.

    >>> from cnn_jax import filters
    >>> photograph = jnp.ones((48, 64, 3))
    >>> edges = apply(photograph, filters.sobel(axis=1))
    >>> edges.shape, float(abs(edges).max())
    ((48, 64, 3), 0.0)
    """
    kernel = jnp.asarray(kernel)
    if kernel.ndim == 0:
        raise UsageError("filters.apply: kernel is a number; it must have one axis per spatial axis of x")
    if flip_kernel:
        kernel = jnp.flip(kernel)
    channels = jnp.shape(x)[-1]
    return ops.depthwise_conv(
        x,
        in_float32(lambda kernel: jnp.broadcast_to(kernel[..., None, None], (*kernel.shape, channels, 1)), kernel),
        strides=strides,
        padding=padding,
        boundary=boundary,
    )
