"""Augmentations that move pixels: flips, crops, affine and elastic distortions."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key, Shaped

from cnn_jax.data.augment.arguments import (
    MODES,
    check_images,
    check_interval,
    check_mode,
    check_range,
    check_size,
    draw_positions,
    example_keys,
)
from cnn_jax.errors import UsageError

CROP_ATTEMPTS = 10  # for a crop that lies inside the picture, as Inception's and torchvision's
KERNEL_REACH = 4.0  # standard deviations at which a Gaussian is cut off, as in scipy.ndimage


def flip(
    key: Key[Array, "..."], images: Shaped[Array, "..."], *, probability: int | float = 0.5
) -> Float[Array, "batch height width channels"]:
    """Mirrors pictures left to right.

    Args:
        key: one key, or one for each example.
        images: floating point, shape ``(batch, height, width, channels)``.
        probability: of each picture to be mirrored.

    Returns:
        The pictures.

    Raises:
        UsageError: when images or options do not fit.

    Example:
        >>> images = jnp.arange(3.0).reshape(1, 1, 3, 1)
        >>> flip(jax.random.key(0), images, probability=1)[0, 0, :, 0].tolist()
        [2.0, 1.0, 0.0]
    """
    check_images("flip", images)
    check_range("flip", "probability", probability, 0, 1)
    chosen = jax.vmap(lambda key: jax.random.bernoulli(key, float(probability)))(example_keys(key, len(images)))
    return _flipped_where(chosen, images)


def alternating_flip(
    key: Key[Array, ""],
    images: Shaped[Array, "..."],
    *,
    indices: Integer[Array, " batch"],
    epoch: int | Integer[Array, ""],
) -> Float[Array, "batch height width channels"]:
    """Mirrors each picture in every second epoch, so that two successive epochs show both its views.

    Half of the pictures, chosen at random by their number, begin mirrored (Jordan 2024, "94% on CIFAR-10 in 3.29
    seconds on a single GPU").

    Args:
        key: one key, the same in all epochs.
        images: floating point, shape ``(batch, height, width, channels)``.
        indices: the number of each picture in its data set.
        epoch: counted from 0.

    Returns:
        The pictures.

    Raises:
        UsageError: when the images do not fit.

    Example:
        >>> images = jnp.arange(3.0).reshape(1, 1, 3, 1)
        >>> even, odd = (alternating_flip(jax.random.key(0), images, indices=jnp.array([7]), epoch=e) for e in (0, 1))
        >>> bool((even == odd[:, :, ::-1]).all())
        True
    """
    check_images("alternating_flip", images)
    coins = jax.vmap(lambda index: jax.random.bernoulli(jax.random.fold_in(key, index)))(indices)
    return _flipped_where(coins ^ (jnp.asarray(epoch) % 2 == 1), images)


def pad_and_crop(
    key: Key[Array, "..."], images: Shaped[Array, "..."], *, padding: int = 4, mode: str = "zero"
) -> Float[Array, "batch height width channels"]:
    """Shifts pictures by whole pixels: pads all sides and cuts a window of the old size out at a random place.

    He et al. 2015, "Deep residual learning", section 4.2, after Lee et al. 2015, "Deeply-supervised nets".

    Args:
        key: one key, or one for each example.
        images: floating point, shape ``(batch, height, width, channels)``.
        padding: the largest shift, in pixels; all shifts from ``-padding`` to ``padding`` are equally likely.
        mode: what lies beyond the border: ``"zero"``, or ``"mirror"``, which does not repeat the border's pixels.

    Returns:
        The pictures, of the same size.

    Raises:
        UsageError: when images or options do not fit.

    Example:
        >>> pad_and_crop(jax.random.key(0), jnp.ones((2, 8, 8, 3)), padding=2).shape
        (2, 8, 8, 3)
    """
    check_images("pad_and_crop", images)
    check_mode("pad_and_crop", mode)
    most = min(images.shape[1:3]) - 1
    if isinstance(padding, bool) or not isinstance(padding, int) or not 0 <= padding <= most:
        raise UsageError(f"pad_and_crop: padding={padding!r} must be a whole number from 0 to {most} for these images")
    _, height, width, channels = images.shape
    around = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, around, mode=MODES[mode])

    def crop(key: Array, image: Array) -> Array:
        top, left = draw_positions(key, (2 * padding + 1,) * 2)
        return jax.lax.dynamic_slice(image, (top, left, 0), (height, width, channels))

    return _computed_once(jax.vmap(crop)(example_keys(key, len(images)), padded))


def random_crop(
    key: Key[Array, "..."],
    images: Shaped[Array, "..."],
    *,
    size: tuple[int, int],
    sides: tuple[int | float, int | float] | None = None,
) -> Float[Array, "batch height width channels"]:
    """Cuts a window of a fixed size out of a random place, perhaps after scaling the picture to a random size.

    AlexNet's 224 of 256 pixels; with ``sides=(256, 512)`` VGG's scale jittering (Simonyan and Zisserman 2015, section
    3.1), with ``sides=(256, 480)`` the ResNets'.

    Args:
        key: one key, or one for each example.
        images: floating point, shape ``(batch, height, width, channels)``.
        size: ``(height, width)`` of the window.
        sides: least and most length, in pixels, that the picture's shorter side is scaled to, uniformly; by default
            the picture stays as it is and the window's corner is on a pixel.

    Returns:
        The windows, shape ``(batch, *size, channels)``.

    Raises:
        UsageError: when images or options do not fit, or the window is larger than the picture.

    Example:
        >>> random_crop(jax.random.key(0), jnp.ones((2, 36, 48, 3)), size=(32, 32)).shape
        (2, 32, 32, 3)
    """
    check_images("random_crop", images)
    check_size("random_crop", size)
    _, height, width, channels = images.shape
    if sides is not None:
        check_interval("random_crop", "sides", sides, 0, float("inf"))
    least = 1.0 if sides is None else sides[0] / min(height, width)
    if size[0] > least * height or size[1] > least * width:
        raise UsageError(
            f"random_crop: a window of {size[0]}x{size[1]} does not fit a picture of {least * height:g}x"
            f"{least * width:g}; read pictures larger (config.data.size)" + ("" if sides is None else " or raise sides")
        )

    def corner_on_a_pixel(key: Array, image: Array) -> Array:
        top, left = draw_positions(key, (height - size[0] + 1, width - size[1] + 1))
        return jax.lax.dynamic_slice(image, (top, left, 0), (*size, channels))

    def scaled(key: Array, image: Array) -> Array:
        assert sides is not None
        draws = jax.random.uniform(key, (3,))
        scale = (sides[0] + draws[2] * (sides[1] - sides[0])) / min(height, width)
        window = jnp.array(size) / scale
        return _window(image, draws[:2] * (jnp.array((height, width)) - window), window, size)

    crop = corner_on_a_pixel if sides is None else scaled
    return _computed_once(jax.vmap(crop)(example_keys(key, len(images)), images))


def random_resized_crop(
    key: Key[Array, "..."],
    images: Shaped[Array, "..."],
    *,
    size: tuple[int, int] | None = None,
    scale: tuple[int | float, int | float] = (0.08, 1.0),
    ratio: tuple[int | float, int | float] = (3 / 4, 4 / 3),
) -> Float[Array, "batch height width channels"]:
    """Cuts a window of random place, area and aspect out and resizes it, with antialiased linear interpolation.

    Szegedy et al. 2015, "Going deeper with convolutions", section 6. Of ten windows drawn the first that lies inside
    the picture is taken; if none does, the whole picture is.

    Args:
        key: one key, or one for each example.
        images: floating point, shape ``(batch, height, width, channels)``.
        size: ``(height, width)`` of the result; by default that of the images.
        scale: least and most of the picture's area.
        ratio: least and most width / height; its logarithm is uniform.

    Returns:
        The pictures, shape ``(batch, *size, channels)``.

    Raises:
        UsageError: when images or options do not fit.

    Example:
        >>> from functools import partial
        >>> crop = partial(random_resized_crop, size=(24, 24))
        >>> jax.eval_shape(crop, jax.random.key(0), jnp.ones((2, 32, 48, 3))).shape
        (2, 24, 24, 3)
    """
    check_images("random_resized_crop", images)
    check_interval("random_resized_crop", "scale", scale, 0, 1)
    check_interval("random_resized_crop", "ratio", ratio, 0, float("inf"))
    height, width = sides = images.shape[1:3]
    size = (height, width) if size is None else size
    check_size("random_resized_crop", size)

    def crop(key: Array, image: Array) -> Array:
        draws = jax.random.uniform(key, (2 * CROP_ATTEMPTS + 2,))
        area = height * width * (scale[0] + draws[:CROP_ATTEMPTS] * (scale[1] - scale[0]))
        low, high = np.log(ratio)
        aspect = jnp.exp(low + draws[CROP_ATTEMPTS:-2] * (high - low))
        windows = jnp.stack([jnp.sqrt(area / aspect), jnp.sqrt(area * aspect)], axis=-1)
        inside = (windows <= jnp.array(sides)).all(axis=-1)
        window = jnp.where(inside.any(), windows[jnp.argmax(inside)], jnp.array(sides, jnp.float32))
        start = draws[-2:] * (jnp.array(sides) - window)
        return _window(image, start, window, size)

    return _computed_once(jax.vmap(crop)(example_keys(key, len(images)), images))


def _window(
    image: Array, start: Float[Array, "2"], window: Float[Array, "2"], size: tuple[int, int]
) -> Float[Array, "rows columns channels"]:
    """A window resized, with antialiased linear interpolation.

    Along each axis a sum over the few pixels that the kernel can reach. ``jax.image.scale_and_translate`` gives the
    same by a product with a dense matrix, which takes a CPU three times as long.
    """
    for axis, (side, wanted) in enumerate(zip(image.shape, size, strict=False)):
        zoom = window[axis] / wanted
        reach = jnp.maximum(zoom, 1)  # of the kernel, in pixels
        centres = start[axis] + (jnp.arange(wanted) + 0.5) * zoom - 0.5
        taps = math.ceil(2 * max(1, side / wanted))
        pixels = jnp.floor(centres - reach)[:, None] + 1 + jnp.arange(taps)
        weights = jnp.maximum(0, 1 - jnp.abs(pixels - centres[:, None]) / reach)
        weights = jnp.where((pixels >= 0) & (pixels < side), weights, 0)
        weights = (weights / weights.sum(axis=1, keepdims=True)).astype(image.dtype)
        places = pixels.clip(0, side - 1).astype(jnp.int32)
        along = (slice(None), None, None) if axis == 0 else (None, slice(None), None)
        parts = (weights[:, tap][along] * jnp.take(image, places[:, tap], axis, mode="clip") for tap in range(taps))
        image = functools.reduce(jnp.add, parts)
    return image


def affine(
    key: Key[Array, "..."],
    images: Shaped[Array, "..."],
    *,
    rotation: int | float = 0.0,
    scale: tuple[int | float, int | float] = (1.0, 1.0),
    squeeze: int | float = 0.0,
    shear: int | float = 0.0,
    translation: int | float = 0.0,
    mode: str = "zero",
) -> Float[Array, "batch height width channels"]:
    """Rotates, scales, squeezes, shears and shifts pictures about their centre, with bilinear interpolation.

    The distortions of LeNet-5's training digits, section III.B of LeCun et al. 1998: shifts, scaling, squeezing
    (narrower and taller, or the reverse) and horizontal shearing. Every number is drawn uniformly.

    Args:
        key: one key, or one for each example.
        images: floating point, shape ``(batch, height, width, channels)``.
        rotation: the largest angle, in degrees, either way.
        scale: least and most enlargement of both sides.
        squeeze: the largest part by which one side grows while the other shrinks by the same factor.
        shear: the largest horizontal shear, either way: columns by which a row moves for each row from the centre.
        translation: the largest shift, either way, as a part of the side.
        mode: what lies beyond the border: ``"zero"`` or ``"mirror"``.

    Returns:
        The pictures, of the same size.

    Raises:
        UsageError: when images or options do not fit.

    Example:
        >>> from functools import partial
        >>> jax.eval_shape(partial(affine, rotation=10), jax.random.key(0), jnp.ones((2, 8, 8, 1))).shape
        (2, 8, 8, 1)
    """
    check_images("affine", images)
    check_mode("affine", mode)
    check_interval("affine", "scale", scale, 0, float("inf"))
    for name, value, high in (
        ("rotation", rotation, 180),
        ("squeeze", squeeze, 1),
        ("shear", shear, 2),
        ("translation", translation, 1),
    ):
        check_range("affine", name, value, 0, high)
    height, width = images.shape[1:3]
    rows, columns = jnp.mgrid[:height, :width] - jnp.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]

    def coordinates(key: Array) -> Array:
        """Where each pixel of the result comes from: the inverse of scale, squeeze, shear, rotation, shift in turn."""
        draws = jax.random.uniform(key, (6,), minval=-1, maxval=1)
        angle, log_squeeze, slant = draws[0] * np.deg2rad(rotation), draws[1] * np.log1p(squeeze), draws[2] * shear
        zoom = scale[0] + (draws[3] + 1) / 2 * (scale[1] - scale[0])
        shifted_rows, shifted_columns = rows - draws[4] * translation * height, columns - draws[5] * translation * width
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        upright_rows = cosine * shifted_rows - sine * shifted_columns
        upright_columns = sine * shifted_rows + cosine * shifted_columns - slant * upright_rows
        tall = zoom * jnp.exp(log_squeeze)
        wide = zoom * jnp.exp(-log_squeeze)
        return jnp.stack([upright_rows / tall + (height - 1) / 2, upright_columns / wide + (width - 1) / 2])

    return _resampled(images, jax.vmap(coordinates)(example_keys(key, len(images))), mode)


def elastic(
    key: Key[Array, "..."],
    images: Shaped[Array, "..."],
    *,
    alpha: int | float = 34.0,
    sigma: int | float = 4.0,
    mode: str = "zero",
) -> Float[Array, "batch height width channels"]:
    """Moves every pixel by a smooth random field, with bilinear interpolation: the hand's tremble, for MNIST.

    Uniform displacements from -1 to 1, smoothed by a Gaussian and multiplied by ``alpha`` (Simard et al. 2003, "Best
    practices for convolutional neural networks applied to visual document analysis").

    Args:
        key: one key, or one for each example.
        images: floating point, shape ``(batch, height, width, channels)``.
        alpha: strength; the typical shift is ``0.16 * alpha / sigma`` pixels.
        sigma: standard deviation of the Gaussian, in pixels.
        mode: what lies beyond the border: ``"zero"`` or ``"mirror"``.

    Returns:
        The pictures, of the same size.

    Raises:
        UsageError: when images or options do not fit.

    Example:
        >>> jax.eval_shape(elastic, jax.random.key(0), jnp.ones((2, 8, 8, 1))).shape
        (2, 8, 8, 1)
    """
    check_images("elastic", images)
    check_mode("elastic", mode)
    check_range("elastic", "alpha", alpha, 0)
    check_range("elastic", "sigma", sigma, 0.1)
    height, width = images.shape[1:3]
    down, across = (jnp.asarray(_gaussian_matrix(side, sigma)) for side in (height, width))
    grid = jnp.stack(jnp.mgrid[:height, :width]).astype(jnp.float32)

    def coordinates(key: Array) -> Array:
        noise = jax.random.uniform(key, (2, height, width), minval=-1, maxval=1)
        return grid + alpha * (down @ noise @ across.T)

    return _resampled(images, jax.vmap(coordinates)(example_keys(key, len(images))), mode)


def _gaussian_matrix(side: int, sigma: int | float) -> np.ndarray:
    """Smoothing along one axis as a matrix; beyond the border the field is 0."""
    distance = np.arange(side)[:, None] - np.arange(side)
    reach = int(KERNEL_REACH * sigma + 0.5)
    total = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2)).sum()
    return np.where(abs(distance) <= reach, np.exp(-(distance**2) / (2 * sigma**2)) / total, 0).astype(np.float32)


def _flipped_where(chosen: Array, images: Array) -> Array:
    """By gathering columns: for a selection of two views XLA on a CPU would compute twice what made the picture."""
    columns = jnp.arange(images.shape[2])
    columns = jnp.where(chosen[:, None], columns[::-1], columns)
    return jax.vmap(lambda image, columns: jnp.take(image, columns, axis=1, mode="clip"))(images, columns)


def _resampled(images: Array, coordinates: Float[Array, "batch 2 height width"], mode: str) -> Array:
    """Bilinear interpolation at fractional rows and columns, one field of them for each picture."""
    sides = images.shape[1:3]
    coordinates = _computed_once(coordinates)
    below = jnp.floor(coordinates)
    part = (coordinates - below).astype(images.dtype)
    corner = below.astype(jnp.int32)

    def weighted(row: int, column: int) -> Array:
        weight = (part[:, 0] if row else 1 - part[:, 0]) * (part[:, 1] if column else 1 - part[:, 1])
        rows, columns = corner[:, 0] + row, corner[:, 1] + column
        if mode == "zero":
            inside = (rows >= 0) & (rows < sides[0]) & (columns >= 0) & (columns < sides[1])
            weight = jnp.where(inside, weight, 0)
        place: Callable[[Array, int], Array] = _mirrored if mode == "mirror" else lambda at, side: at.clip(0, side - 1)
        return weight[..., None] * _gathered(images, place(rows, sides[0]), place(columns, sides[1]))

    return _computed_once(weighted(0, 0) + weighted(0, 1) + weighted(1, 0) + weighted(1, 1))


def _computed_once(array: Array) -> Array:
    """Keeps XLA from fusing, and so computing anew, what is costly into each of its uses.

    The barrier does it on accelerators. On a CPU it is gone before operations are fused, but there a gather, which may
    use an element many times, is not fused with what is costly.
    """
    return jnp.take(jax.lax.optimization_barrier(array), jnp.arange(array.shape[1]), axis=1, mode="clip")


def _mirrored(positions: Array, side: int) -> Array:
    """Positions beyond the border brought inside as by a mirror standing on the border's pixels."""
    period = max(1, 2 * (side - 1))
    positions = positions % period
    return jnp.minimum(positions, period - positions)


def _gathered(images: Array, rows: Array, columns: Array) -> Array:
    return jax.vmap(lambda image, row, column: image[row, column])(images, rows, columns)
