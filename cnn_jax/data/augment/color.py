"""Augmentations of brightness and colour, for images on the scale 0 to 1.

Of the fields of a batch they change images, volumes and video, and leave masks, boxes and all others as they are.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped

from cnn_jax.data.augment.arguments import check_images, check_range, example_keys
from cnn_jax.data.augment.by_kind import photometric
from cnn_jax.errors import UsageError
from cnn_jax.typed import typed

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode "L"


@photometric
@typed
def color_pca(
    key: Key[Array, "..."],
    images: Shaped[Array, "..."],
    *,
    covariance: Sequence[Sequence[float]],
    std: int | float = 0.1,
) -> Float[Array, "batch height width channels"]:
    """Shifts an image's colour along the principal components of the training set's colours.

    Adds ``sum_i p_i * lambda_i * alpha_i`` to every pixel, with the eigenvectors ``p`` and eigenvalues ``lambda`` of
    the covariance of the channels, and one ``alpha_i ~ N(0, std)`` per image and component (Krizhevsky et al. 2012,
    section 4.1). Not clipped to 0..1, as there.

    Args:
      key: One key, or one for each example.
      images: Floating point, shape ``(batch, height, width, channels)``, or fields.
      covariance: ``channels`` rows and columns, from :func:`color_covariance`; in a config the run measures it.
      std: Of the ``alpha``.

    Returns:
      The images, or the fields.

    Raises:
      UsageError: Images or options do not fit.

    Example:
      >>> grey_light = [[0.1, 0.1, 0.1]] * 3
      >>> shifted = color_pca(jax.random.key(0), jnp.zeros((1, 2, 2, 3)), covariance=grey_light)
      >>> bool(jnp.allclose(shifted, shifted[0, 0, 0, 0]))
      True
    """
    check_images("color_pca", images)
    check_range("color_pca", "std", std, 0)
    matrix, channels = np.asarray(covariance, np.float64), images.shape[-1]
    if matrix.shape != (channels, channels) or not np.allclose(matrix, matrix.T):
        raise UsageError(
            f"color_pca: covariance has shape {matrix.shape}; give a symmetric one of {channels}x{channels}, "
            "from color_covariance(images)"
        )
    eigenvalues, eigenvectors = np.linalg.eigh(matrix)
    components = jnp.asarray(eigenvectors * eigenvalues, images.dtype)
    alphas = jax.vmap(lambda key: jax.random.normal(key, (channels,)))(example_keys(key, len(images)))
    # Not a matrix product, which a GPU would round to 10 bits.
    shifts = (components * (std * alphas)[:, None, :].astype(images.dtype)).sum(axis=-1)
    return images + shifts[:, None, None, :]


@typed
def color_covariance(images: Shaped[np.ndarray, "n height width channels"]) -> tuple[tuple[float, ...], ...]:
    """The covariance of the channels over all pixels of a training set, on the scale 0 to 1.

    Args:
      images: uint8 (0..255) or floating point (0..1).

    Returns:
      ``channels`` rows of ``channels`` numbers, for :func:`color_pca`.

    Example:
      >>> color_covariance(np.array([[[[0, 0]], [[255, 0]]]], np.uint8))
      ((0.25, 0.0), (0.0, 0.0))
    """
    channels = images.shape[-1]
    count, total, products = 0, np.zeros(channels), np.zeros((channels, channels))
    for start in range(0, len(images), 256):  # float64 copies of a whole set would not fit
        part = images[start : start + 256]
        pixels = part.reshape(-1, channels) / np.float64(255 if part.dtype == np.uint8 else 1)
        count, total, products = count + len(pixels), total + pixels.sum(axis=0), products + pixels.T @ pixels
    mean = total / count
    covariance = products / count - np.outer(mean, mean)
    return tuple(tuple(float(value) for value in row) for row in covariance)


@photometric
@typed
def brightness(
    key: Key[Array, "..."], images: Shaped[Array, "..."], *, strength: int | float = 0.4
) -> Float[Array, "batch height width channels"]:
    """Multiplies each image by a factor drawn from ``1 - strength`` to ``1 + strength``, and clips to 0..1.

    Args:
      key: One key, or one for each example.
      images: Floating point from 0 to 1, shape ``(batch, height, width, channels)``, or fields.
      strength: From 0 to 1.

    Returns:
      The images, or the fields.

    Raises:
      UsageError: Images or options do not fit.

    Example:
      >>> image = brightness(jax.random.key(0), jnp.full((1, 2, 2, 3), 0.5), strength=0.2)
      >>> bool((image == image[0, 0, 0, 0]).all()), 0.4 <= float(image[0, 0, 0, 0]) <= 0.6
      (True, True)
    """
    check_images("brightness", images)
    return _blended(key, images, jnp.zeros_like(images), strength, "brightness")


@photometric
@typed
def contrast(
    key: Key[Array, "..."], images: Shaped[Array, "..."], *, strength: int | float = 0.4
) -> Float[Array, "batch height width channels"]:
    """Multiplies each image's distance from its mean grey by a factor from ``1 - strength`` to ``1 + strength``.

    Args:
      key: One key, or one for each example.
      images: Floating point from 0 to 1, shape ``(batch, height, width, channels)``, grey or colour; or fields.
      strength: From 0 to 1.

    Returns:
      The images, clipped to 0..1.

    Raises:
      UsageError: Images or options do not fit.

    Example:
      >>> image = contrast(jax.random.key(0), jnp.full((1, 2, 2, 3), 0.5))
      >>> bool(jnp.allclose(image, 0.5))
      True
    """
    check_images("contrast", images)
    mean = _grey(images, "contrast").mean(axis=(1, 2), keepdims=True)
    return _blended(key, images, mean, strength, "contrast")


@photometric
@typed
def saturation(
    key: Key[Array, "..."], images: Shaped[Array, "..."], *, strength: int | float = 0.4
) -> Float[Array, "batch height width channels"]:
    """Multiplies each pixel's distance from its own grey by a factor from ``1 - strength`` to ``1 + strength``.

    Args:
      key: One key, or one for each example.
      images: Floating point from 0 to 1, shape ``(batch, height, width, channels)``, grey or colour; or fields.
      strength: From 0 to 1.

    Returns:
      The images, clipped to 0..1.

    Raises:
      UsageError: Images or options do not fit.

    Example:
      >>> grey = jnp.full((1, 2, 2, 3), 0.25)
      >>> bool(jnp.allclose(saturation(jax.random.key(0), grey), grey))
      True
    """
    check_images("saturation", images)
    return _blended(key, images, _grey(images, "saturation"), strength, "saturation")


def _grey(images: Array, augmentation: str) -> Array:
    """The luma of each pixel, with one channel."""
    if images.shape[-1] == 1:
        return images
    if images.shape[-1] != 3:
        raise UsageError(f"{augmentation}: images have {images.shape[-1]} channels; give 1 (grey) or 3 (colour)")
    return (images * jnp.asarray(LUMA, images.dtype)).sum(axis=-1, keepdims=True)


def _blended(key: Array, images: Array, background: Array, strength: int | float, augmentation: str) -> Array:
    check_range(augmentation, "strength", strength, 0, 1)

    def draw(key: Array) -> Array:
        return jax.random.uniform(key, (1, 1, 1), images.dtype, 1 - strength, 1 + strength)

    factors = jax.vmap(draw)(example_keys(key, len(images)))
    return (background + factors * (images - background)).clip(0, 1)
