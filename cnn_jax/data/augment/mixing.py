"""Augmentations that hide a part of a picture, or mix two pictures and their labels."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, Shaped
from scipy.special import betaincinv

from cnn_jax.data.augment.arguments import check_images, check_range, draw_positions, example_keys
from cnn_jax.errors import UsageError

BETA_TABLE = 4097


def cutout(
    key: Key[Array, "..."],
    images: Shaped[Array, "..."],
    *,
    size: int = 16,
    fill: int | float | Sequence[float] = 0.0,
) -> Float[Array, "batch height width channels"]:
    """Hides a square whose centre is any pixel; what of it lies beyond the border is lost.

    DeVries and Taylor 2017, "Improved regularization of convolutional neural networks with cutout".

    Args:
        key: one key, or one for each example.
        images: floating point, shape ``(batch, height, width, channels)``.
        size: the square's side, in pixels.
        fill: the square's value, or one value for each channel.

    Returns:
        The pictures.

    Raises:
        UsageError: when images or options do not fit.

    Example:
        >>> hidden = cutout(jax.random.key(0), jnp.ones((1, 8, 8, 1)), size=2) == 0
        >>> 1 <= int(hidden.sum()) <= 4
        True
    """
    check_images("cutout", images)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise UsageError(f"cutout: size={size!r} must be a whole number of pixels, at least 1")
    colour = jnp.asarray(fill, images.dtype)
    if colour.shape not in ((), images.shape[-1:]):
        raise UsageError(f"cutout: fill={fill!r} must be one number, or one for each of {images.shape[-1]} channels")
    sides = images.shape[1:3]

    def hidden(key: Array) -> Array:
        centre = draw_positions(key, sides)
        return _box(sides, centre - size // 2, centre - size // 2 + size)

    boxes = jax.vmap(hidden)(example_keys(key, len(images)))
    return jnp.where(boxes[..., None], colour, images)


def mixup(
    key: Key[Array, "..."], images: Shaped[Array, "..."], labels: Shaped[Array, "..."], *, alpha: int | float = 0.2
) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch classes"]]:
    """Averages each picture, and its label, with the next one of the batch.

    ``weight * own + (1 - weight) * next``, with one ``weight ~ Beta(alpha, alpha)`` per example (Zhang et al. 2018,
    "mixup: beyond empirical risk minimization"). A batch is in random order, so its next picture is a random one.

    Args:
        key: one key, or one for each example.
        images: floating point, shape ``(batch, height, width, channels)``.
        labels: distributions over the classes, shape ``(batch, classes)``.
        alpha: small leaves most pictures nearly as they are; 1 makes every weight equally likely.

    Returns:
        The pictures and their labels.

    Raises:
        UsageError: when images, labels or options do not fit.

    Example:
        >>> images, labels = jax.jit(mixup)(jax.random.key(0), jnp.zeros((2, 4, 4, 1)), jnp.eye(2))
        >>> labels.sum(axis=-1).tolist()
        [1.0, 1.0]
    """
    weights = _own_weights("mixup", key, images, labels, alpha)
    return _mixed(weights[:, None, None, None], images), _mixed(weights[:, None], labels)


def cutmix(
    key: Key[Array, "..."], images: Shaped[Array, "..."], labels: Shaped[Array, "..."], *, alpha: int | float = 1.0
) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch classes"]]:
    """Replaces a box of each picture by that of the next one of the batch, and its label by the same part.

    The box takes ``1 - weight`` of the area, with one ``weight ~ Beta(alpha, alpha)`` per example, about a centre
    anywhere in the picture; the label counts the pixels that are really replaced (Yun et al. 2019, "CutMix").

    Args:
        key: one key, or one for each example.
        images: floating point, shape ``(batch, height, width, channels)``.
        labels: distributions over the classes, shape ``(batch, classes)``.
        alpha: 1 makes every size of box equally likely.

    Returns:
        The pictures and their labels.

    Raises:
        UsageError: when images, labels or options do not fit.

    Example:
        >>> zero_and_one = jnp.stack([jnp.zeros((4, 4, 1)), jnp.ones((4, 4, 1))])
        >>> images, labels = jax.jit(cutmix)(jax.random.key(1), zero_and_one, jnp.eye(2))
        >>> bool(jnp.allclose(images.mean(axis=(1, 2, 3)), labels[:, 1]))
        True
    """
    weights = _own_weights("cutmix", key, images, labels, alpha)
    sides = images.shape[1:3]

    def replaced(key: Array, weight: Array) -> Array:
        sizes = jnp.sqrt(1 - weight) * jnp.array(sides)
        centre = jax.random.uniform(jax.random.fold_in(key, 1), (2,)) * jnp.array(sides)
        return _box(sides, jnp.round(centre - sizes / 2), jnp.round(centre + sizes / 2))

    boxes = jax.vmap(replaced)(example_keys(key, len(images)), weights)
    kept = 1 - boxes.mean(axis=(1, 2), dtype=labels.dtype)
    return jnp.where(boxes[..., None], _next(images), images), _mixed(kept[:, None], labels)


def _own_weights(
    augmentation: str, key: Array, images: Array, labels: Array, alpha: int | float
) -> Float[Array, " batch"]:
    """How much of each example stays its own."""
    check_images(augmentation, images)
    check_range(augmentation, "alpha", alpha, 1e-3)
    if labels.ndim != 2 or len(labels) != len(images) or not jnp.issubdtype(labels.dtype, jnp.floating):
        raise UsageError(
            f"{augmentation}: labels are {labels.dtype} of shape {labels.shape}; give distributions of shape "
            f"({len(images)}, classes), such as jax.nn.one_hot(labels, classes)"
        )
    chances = jax.vmap(jax.random.uniform)(example_keys(key, len(images)))
    # The inverse of the distribution function as a table: jax.random.beta's loop takes seconds to compile.
    grid = np.linspace(0, 1, BETA_TABLE)
    return jnp.interp(chances, jnp.asarray(grid), jnp.asarray(betaincinv(alpha, alpha, grid)))


def _mixed(weights: Array, values: Array) -> Array:
    weights = weights.astype(values.dtype)
    return weights * values + (1 - weights) * _next(values)


def _next(values: Array) -> Array:
    return jnp.roll(values, -1, axis=0)


def _box(sides: tuple[int, ...], start: Array, stop: Array) -> Bool[Array, "height width"]:
    rows, columns = (
        (jnp.arange(side) >= start[axis]) & (jnp.arange(side) < stop[axis]) for axis, side in enumerate(sides)
    )
    return rows[:, None] & columns[None, :]
