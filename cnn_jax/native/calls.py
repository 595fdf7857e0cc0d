"""The kernels as functions of arrays. They can only be called where :func:`cnn_jax.native.is_enabled` is true."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from cnn_jax.native.library import TARGETS

_PRODUCTS = ("output", "input_gradient", "kernel_gradient")


def convolution(
    product: str,
    a: Float32[Array, "..."],
    b: Float32[Array, "..."],
    shape: Sequence[int],
    *,
    groups: int,
    strides: Sequence[int],
    low: Sequence[int],
    kernel_dilation: Sequence[int],
) -> Float32[Array, "..."]:
    """One of the three products of a convolution of rank 1 to 3.

    Args:
      product: ``'output'`` of ``x`` and the kernel, ``'input_gradient'`` of ``dy`` and the kernel, or
        ``'kernel_gradient'`` of ``x`` and ``dy``.
      a: The first operand.
      b: The second operand.
      shape: The shape of the result. With those of the operands it determines the padding after each axis.
      groups: The number of groups.
      strides: The distance between neighbouring windows along each axis.
      low: The padding before each axis; may be negative.
      kernel_dilation: The distance between the inputs that neighbouring kernel entries read.
    """
    call = jax.ffi.ffi_call(TARGETS["convolution"], jax.ShapeDtypeStruct(tuple(shape), jnp.float32))
    axes = {"strides": strides, "low": low, "dilation": kernel_dilation}
    return call(
        a,
        b,
        product=np.int64(_PRODUCTS.index(product)),
        groups=np.int64(groups),
        **{name: np.array(values, np.int64) for name, values in axes.items()},
    )
