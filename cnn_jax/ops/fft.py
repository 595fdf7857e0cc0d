"""Convolution as a product of spectra: the correlation theorem.

References:
  Mathieu, Henaff and LeCun, Fast training of convolutional networks through FFTs, 2014.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Shaped

from cnn_jax.ops.padding import Pairs, spread

FEW = 256  # products per frequency: up to this number, products and sums are faster than matrix products


def fast_length(size: int) -> int:
    """The smallest length at least ``size`` whose only prime factors are 2, 3 and 5.

    >>> fast_length(7), fast_length(97)
    (8, 100)
    """
    while True:
        rest = size
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return size
        size += 1


def operations(sizes: Sequence[int], channels: int, features: int, groups: int) -> float:
    """Estimates the cost of :func:`conv_fft` for one image of ``sizes`` (including padding), in products.

    >>> round(operations((512, 512), 1, 1, groups=1) / 512**2)
    58
    """
    points = math.prod(map(fast_length, sizes))
    pairs = channels // groups * features
    return points * (math.log2(points + 1) * (channels + features + pairs) + 4 * pairs)


def conv_fft(
    x: Shaped[Array, "batch *space channels"],
    kernel: Shaped[Array, "*window channels_per_group features"],
    *,
    strides: tuple[int, ...],
    padding: Pairs,
    input_dilation: tuple[int, ...],
    kernel_dilation: tuple[int, ...],
    feature_group_count: int,
    precision: lax.PrecisionLike = None,
) -> Shaped[Array, "batch *output features"]:
    """Convolution of canonical arguments by FFT.

    All positions are computed and those between the strides are discarded, so it is fastest for large kernels at stride
    1. The transform is only as long as the padded input, because the circular wrap only affects positions that are
    cropped.
    """
    *window, per_group, features = kernel.shape
    rank, groups = len(window), feature_group_count
    x = spread(x, input_dilation)
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((low, high, 0) for low, high in padding), (0, 0, 0)])
    kernel = spread(kernel.reshape(*window, -1), kernel_dilation)
    reach, extent = kernel.shape[:-1], x.shape[1:-1]
    lengths = [fast_length(size) for size in extent]

    is_complex = jnp.issubdtype(x.dtype, jnp.complexfloating)
    transform, inverse = (jnp.fft.fftn, jnp.fft.ifftn) if is_complex else (jnp.fft.rfftn, jnp.fft.irfftn)
    spectrum = transform(x, lengths, axes=range(1, rank + 1))
    transfer = jnp.conj(transform(jnp.conj(kernel), lengths, axes=range(rank)))
    spectrum = spectrum.reshape(*spectrum.shape[:-1], groups, per_group)
    transfer = transfer.reshape(*transfer.shape[:-1], per_group, groups, features // groups)
    if per_group * features // groups <= FEW:
        product = jnp.sum(spectrum[..., None] * jnp.moveaxis(transfer, -3, -2)[None], axis=-2)
    else:
        product = jnp.einsum("n...gc,...cgo->n...go", spectrum, transfer, precision=precision)
    y = inverse(product.reshape(*product.shape[:-2], features), lengths, axes=range(1, rank + 1))
    stops = [size - last + 1 for size, last in zip(extent, reach, strict=True)]
    return lax.slice(y, (0,) * y.ndim, (y.shape[0], *stops, features), (1, *strides, 1))
