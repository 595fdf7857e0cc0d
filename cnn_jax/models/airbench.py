"""The network of airbench94, designed to reach 94 % accuracy on CIFAR-10 within seconds of training on a GPU.

Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024 (KellerJordan/cifar10-airbench). It builds on earlier
speed records by Page and by Balsam.

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

_PATCH = 2  # height and width of the whitening layer's window


def airbench(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
) -> nn.Sequence:
    """A whitening layer, three blocks of two convolutions, and a linear output scaled by 1/9.

    In each block convolution the first filters are initialised to pass on one input channel each (:func:`dirac`).
    Batch normalisation has no scale. The activation is the exact GELU. The whitening kernel is an ``nnx.Variable``
    and not an ``nnx.Param``, so it is not trained.

    Args:
      num_classes: The number of outputs.
      input_shape: The shape of one input, (height, width, channels).
      width: Multiplies the number of channels in the three blocks. The whitening layer always has two output channels
        for each number in a patch.
      dtype: The type to compute in.
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
    """Draws a kernel whose first filters pass on one input channel each; the remaining filters are random.

    The number of such filters is the smaller of ``in_features`` and ``out_features``.

    Args:
      key: A JAX key.
      shape: The kernel's shape, ``(*kernel_size, in_features, out_features)``.
      dtype: The kernel's type.

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
    """A kernel that whitens 2x2 patches: its outputs are uncorrelated and have variance 1.

    The filters are the eigenvectors of the patches' second moments, largest eigenvalue first, divided by the square
    root of the eigenvalue. The negative of each filter follows after them.

    Args:
      images: Images of shape (images, height, width, channels), normalised like the network's inputs. 5,000 images are
        enough.
      epsilon: Added to the eigenvalues, so that filters with small eigenvalues do not amplify noise.

    Returns:
      The kernel, of shape (2, 2, channels, features), where features is 8 times the number of channels.

    Raises:
      UsageError: The shape of ``images`` is wrong.

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
