"""The network of airbench94, made to reach 94 % on CIFAR-10 in seconds.

Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024 (KellerJordan/cifar10-airbench), after Page's and
Balsam's speed records.

Layers: ``whiten``, ``whiten_gelu``; ``block1`` to ``block3`` with ``conv1``, ``pool``, ``norm1``, ``gelu1``, ``conv2``,
``norm2``, ``gelu2`` inside; ``maxpool``, ``flatten``, ``fc``, ``scale``.

The first layer is not trained: it whitens patches of the training images. Its kernel is computed from them before
training, which runs do by themselves; in your own program write
``model.whiten.kernel[...] = airbench.whitening_kernel(images)``. Until then it holds random numbers.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import zeros
from jaxtyping import Array, DTypeLike, Float, Shaped

from cnn_jax import geometry, nn
from cnn_jax.errors import UsageError
from cnn_jax.models.initializers import torch_kernel
from cnn_jax.models.variant import Variant, scaled
from cnn_jax.ops.arguments import AnyArray

_PATCH = 2  # the window of the whitening layer


def airbench(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
) -> nn.Sequence:
    """A whitening layer, three blocks of two convolutions, and a linear output scaled by 1/9.

    The first convolutions' filters pass on one input channel each (:func:`dirac`), batch normalisations have no scale,
    the activation is the exact GELU. The whitening kernel is an ``nnx.Variable`` and no ``nnx.Param``: not trained.

    Args:
      num_classes: Outputs.
      input_shape: (height, width, channels).
      width: Multiplies the channels of the three blocks; the whitening layer has two a number in a patch.
      dtype: What to compute in.
      rngs: Draws the parameters.
    """
    channels = 2 * input_shape[-1] * _PATCH**2
    conv = partial(nn.Conv, kernel_init=torch_kernel, dtype=dtype, rngs=rngs)
    whiten = conv(input_shape[-1], channels, (_PATCH, _PATCH), padding="VALID", bias_init=zeros)
    whiten.kernel = nnx.Variable(whiten.kernel[...])  # type: ignore[assignment]
    layers: dict[str, Callable[..., Any]] = {"whiten": whiten, "whiten_gelu": gelu}
    for place, features in enumerate((64, 256, 256), start=1):
        features = scaled(features, width)
        block = partial(conv, out_features=features, kernel_size=(3, 3), use_bias=False, kernel_init=dirac)
        norm = partial(nn.BatchNorm, features, momentum=0.6, epsilon=1e-12, use_scale=False, dtype=dtype, rngs=rngs)
        layers[f"block{place}"] = nn.Sequence(
            {
                "conv1": block(channels),
                "pool": nn.MaxPool((2, 2)),
                "norm1": norm(),
                "gelu1": gelu,
                "conv2": block(features),
                "norm2": norm(),
                "gelu2": gelu,
            }
        )
        channels = features
    layers["maxpool"] = nn.MaxPool((3, 3))
    shape = geometry.output_shape(layers, input_shape)
    return nn.Sequence(
        {
            **layers,
            "flatten": nn.Flatten(shape),
            "fc": nn.Linear(
                math.prod(shape), num_classes, use_bias=False, kernel_init=torch_kernel, dtype=dtype, rngs=rngs
            ),
            "scale": nn.Scale(1 / 9),
        }
    )


def gelu(x: Shaped[AnyArray, "..."]) -> Shaped[Array, "..."]:
    """The exact Gaussian error linear unit; JAX's own default is an approximation.

    >>> [round(float(y), 4) for y in gelu(jnp.array([-1.0, 0.0, 1.0]))]
    [-0.1587, 0.0, 0.8413]
    """
    return jax.nn.gelu(x, approximate=False)


def dirac(key: Shaped[Array, "..."], shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Shaped[Array, "..."]:
    """Draws a kernel whose first filters pass on one channel each, as many as there are; the others are random.

    Args:
      key: A JAX key.
      shape: ``(*kernel_size, in_features, out_features)``.
      dtype: Of the kernel.

    >>> dirac(jax.random.key(0), (3, 3, 2, 4))[1, 1, :, :2]
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    *window, in_features, out_features = shape
    passing = min(in_features, out_features)
    identity = jnp.zeros((*window, in_features, passing), dtype)
    middle = tuple(size // 2 for size in window)
    identity = identity.at[middle].set(jnp.eye(in_features, passing, dtype=dtype))
    return torch_kernel(key, tuple(shape), dtype).at[..., :passing].set(identity)


def whitening_kernel(
    images: Shaped[AnyArray, "..."], *, epsilon: float = 5e-4
) -> Float[Array, "height width channels features"]:
    """The kernel that makes the numbers of a 2x2 patch uncorrelated, each with variance 1; and its negative.

    Filters are the eigenvectors of the patches' second moments, largest eigenvalue first, divided by the root of the
    eigenvalue.

    Args:
      images: (images, height, width, channels), normalised as the network gets them; 5,000 are plenty.
      epsilon: Added to the eigenvalues, so that the smallest, which are noise, are not blown up.

    Raises:
      UsageError: images is not of that shape.

    >>> whitening_kernel(jax.random.normal(jax.random.key(0), (100, 32, 32, 3))).shape
    (2, 2, 3, 24)
    """
    if images.ndim != 4 or min(images.shape[1:3]) < _PATCH:
        raise UsageError(
            f"whitening_kernel: images of shape {images.shape} must be (images, height, width, channels), "
            f"height and width at least {_PATCH}"
        )
    x = jnp.asarray(images, jnp.float32)
    last = _PATCH - 1
    corners = [
        x[:, row : x.shape[1] - last + row, column : x.shape[2] - last + column]
        for row in range(_PATCH)
        for column in range(_PATCH)
    ]
    patches = jnp.stack(corners, axis=-2).reshape(-1, _PATCH**2 * x.shape[-1])
    moments = jnp.matmul(patches.T, patches, precision="highest") / len(patches)
    values, vectors = jnp.linalg.eigh(moments)
    filters = (vectors / jnp.sqrt(values + epsilon))[:, ::-1]
    return jnp.concatenate([filters, -filters], axis=-1).reshape(_PATCH, _PATCH, x.shape[-1], -1)


def whitened(images: Shaped[AnyArray, "..."]) -> dict[str, Array]:
    """The initialisation that depends on the data: the kernel of the first layer, see :func:`whitening_kernel`.

    >>> list(whitened(jax.random.normal(jax.random.key(0), (100, 32, 32, 3))))
    ['whiten/kernel']
    """
    return {"whiten/kernel": whitening_kernel(images)}


VARIANTS = {"airbench": Variant(airbench, (32, 32, 3), 10, data_init=whitened)}
