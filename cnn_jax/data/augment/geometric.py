"""Augmentations that move pixels: flips, crops, affine and elastic distortions.

Each draws its numbers once for an example. Called with images it moves these; called with the
:class:`~cnn_jax.data.augment.Fields` of a batch it moves every field of an example by the same numbers and by its kind,
see :meth:`~cnn_jax.data.augment.Fields.moved`. What is said of rows and columns holds for all slices of a volume and
all frames of a video.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Integer, Key

from cnn_jax.data.augment.arguments import (
    check_interval,
    check_mode,
    check_range,
    check_size,
    draw_positions,
    example_keys,
)
from cnn_jax.data.augment.by_kind import Images, batch_frame, by_kind, moved
from cnn_jax.data.augment.movement import PLANE, Cropped, Frame, Mirrored, Warped, Windowed
from cnn_jax.errors import UsageError
from cnn_jax.typed import typed

CROP_ATTEMPTS = 10  # for a crop that lies inside the image, as Inception's and torchvision's
KERNEL_REACH = 4.0  # standard deviations at which a Gaussian is cut off, as in scipy.ndimage
OWN_DRAWS = {"depth": 1, "length": 2}  # axes beside the plane: the key that their numbers are drawn from
AXES = ("depth", *PLANE, "length")


@by_kind
@typed
def flip(key: Key[Array, "..."], images: Images, *, probability: int | float = 0.5) -> Images:
    """Mirrors left to right; a signal is reversed.

    Args:
      key: One key, or one for each example.
      images: Floating point, shape ``(batch, height, width, channels)``, or fields.
      probability: Of each example to be mirrored.

    Returns:
      The images, or the fields.

    Raises:
      UsageError: Images or options do not fit.

    Example:
      >>> images = jnp.arange(3.0).reshape(1, 1, 3, 1)
      >>> flip(jax.random.key(0), images, probability=1)[0, 0, :, 0].tolist()
      [2.0, 1.0, 0.0]
    """
    frame = batch_frame("flip", images)
    check_range("flip", "probability", probability, 0, 1)
    chosen = jax.vmap(lambda key: jax.random.bernoulli(key, float(probability)))(example_keys(key, len(images)))
    return moved(images, Mirrored(chosen), frame)


@by_kind
@typed
def alternating_flip(
    key: Key[Array, ""],
    images: Images,
    *,
    indices: Integer[Array, " batch"],
    epoch: int | Integer[Array, ""],
) -> Images:
    """Mirrors each example in every second epoch, so that two successive epochs show both its views.

    Half of the examples, chosen at random by their number, begin mirrored (Jordan 2024, "94% on CIFAR-10 in 3.29
    seconds on a single GPU").

    Args:
      key: One key, the same in all epochs.
      images: Floating point, shape ``(batch, height, width, channels)``, or fields.
      indices: The number of each example in its data set.
      epoch: Counted from 0.

    Returns:
      The images, or the fields.

    Raises:
      UsageError: The images do not fit.

    Example:
      >>> images = jnp.arange(3.0).reshape(1, 1, 3, 1)
      >>> even, odd = (alternating_flip(jax.random.key(0), images, indices=jnp.array([7]), epoch=e) for e in (0, 1))
      >>> bool((even == odd[:, :, ::-1]).all())
      True
    """
    frame = batch_frame("alternating_flip", images)
    coins = jax.vmap(lambda index: jax.random.bernoulli(jax.random.fold_in(key, index)))(indices)
    return moved(images, Mirrored(coins ^ (jnp.asarray(epoch) % 2 == 1)), frame)


@by_kind
@typed
def pad_and_crop(key: Key[Array, "..."], images: Images, *, padding: int | None = None, mode: str = "zero") -> Images:
    """Shifts by whole pixels along every axis: pads both ends and cuts a window of the old size at a random place.

    He et al. 2015, "Deep residual learning", section 4.2, after Lee et al. 2015, "Deeply-supervised nets".

    Args:
      key: One key, or one for each example.
      images: Floating point, shape ``(batch, height, width, channels)``, or fields.
      padding: The largest shift, in pixels; all shifts from ``-padding`` to ``padding`` are equally likely. By default
        an eighth of the shortest side, as the 4 of CIFAR-10's 32.
      mode: What lies beyond the border: ``"zero"``, or ``"mirror"``, which does not repeat the border's pixels.

    Returns:
      The images, or the fields, of the same size.

    Raises:
      UsageError: Images or options do not fit.

    Example:
      >>> pad_and_crop(jax.random.key(0), jnp.ones((2, 8, 8, 3)), padding=2).shape
      (2, 8, 8, 3)
    """
    frame = batch_frame("pad_and_crop", images)
    check_mode("pad_and_crop", mode)
    lengths = {axis: frame[axis] for axis in AXES if axis in frame}
    most = min(lengths.values()) - 1
    if padding is None:
        padding = round(min(lengths.values()) / 8)
    if isinstance(padding, bool) or not isinstance(padding, int) or not 0 <= padding <= most:
        raise UsageError(f"pad_and_crop: padding={padding!r} must be a whole number from 0 to {most} for these images")
    starts = _draw_starts(key, len(images), dict.fromkeys(lengths, 2 * padding + 1))
    return moved(images, Cropped(starts, lengths, padding, mode), frame)


@by_kind
@typed
def random_crop(
    key: Key[Array, "..."],
    images: Images,
    *,
    size: tuple[int, ...],
    sides: tuple[int | float, int | float] | None = None,
) -> Images:
    """Cuts a window of a fixed size out of a random place, perhaps after scaling the image to a random size.

    AlexNet's 224 of 256 pixels; with ``sides=(256, 512)`` VGG's scale jittering (Simonyan and Zisserman 2015, section
    3.1), with ``sides=(256, 480)`` the ResNets'.

    Args:
      key: One key, or one for each example.
      images: Floating point, shape ``(batch, height, width, channels)``, or fields.
      size: ``(height, width)`` of the window; ``(depth, height, width)`` cuts volumes along their depth, too, and
        ``(length,)`` cuts signals. What has no number here keeps its size.
      sides: Least and most length, in pixels, that the image's shorter side is scaled to, uniformly; by default the
        image stays as it is and the window's corner is on a pixel.

    Returns:
      The windows, shape ``(batch, *size, channels)``, or the fields.

    Raises:
      UsageError: Images or options do not fit, or the window is larger than the image.

    Example:
      >>> random_crop(jax.random.key(0), jnp.ones((2, 36, 48, 3)), size=(32, 32)).shape
      (2, 32, 32, 3)
    """
    frame = batch_frame("random_crop", images)
    axes_of = {1: ("length",), 2: PLANE, 3: ("depth", *PLANE)}
    check_size("random_crop", size, ranks=tuple(axes_of))
    axes = axes_of[len(size)]
    _check_axes("random_crop", f"size={size}", frame, axes)
    if sides is not None:
        check_interval("random_crop", "sides", sides, 0, float("inf"))
        if axes != PLANE:
            raise UsageError(f"random_crop: sides scales rows and columns; give size=(height, width), not {size}")
    least = 1.0 if sides is None else sides[0] / min(frame["height"], frame["width"])
    lengths = dict(zip(axes, size, strict=True))
    if any(length > least * frame[axis] for axis, length in lengths.items()):
        whole = "x".join(f"{least * frame[axis]:g}" for axis in axes)
        raise UsageError(
            f"random_crop: a window of {'x'.join(map(str, size))} does not fit an image of {whole}; read images larger "
            "(config.data.size)" + ("" if sides is None else " or raise sides")
        )
    if sides is None:
        starts = _draw_starts(key, len(images), {axis: frame[axis] - length + 1 for axis, length in lengths.items()})
        return moved(images, Cropped(starts, lengths), frame)
    height, width = frame["height"], frame["width"]
    low, high = sides

    def window(key: Array) -> tuple[Array, Array]:
        draws = jax.random.uniform(key, (3,))
        scale = (low + draws[2] * (high - low)) / min(height, width)
        window = jnp.array(size) / scale
        return draws[:2] * (jnp.array((height, width)) - window), window

    return _windowed(images, jax.vmap(window)(example_keys(key, len(images))), lengths, frame)


@by_kind
@typed
def random_resized_crop(
    key: Key[Array, "..."],
    images: Images,
    *,
    size: tuple[int, int] | None = None,
    scale: tuple[int | float, int | float] = (0.08, 1.0),
    ratio: tuple[int | float, int | float] = (3 / 4, 4 / 3),
) -> Images:
    """Cuts a window of random place, area and aspect out and resizes it, with antialiased linear interpolation.

    Szegedy et al. 2015, "Going deeper with convolutions", section 6. Of ten windows drawn the first that lies inside
    the image is taken; if none does, the whole image is. Signals stay as they are.

    Args:
      key: One key, or one for each example.
      images: Floating point, shape ``(batch, height, width, channels)``, or fields.
      size: ``(height, width)`` of the result; by default that of the images.
      scale: Least and most of the image's area.
      ratio: Least and most width / height; its logarithm is uniform.

    Returns:
      The images, shape ``(batch, *size, channels)``, or the fields.

    Raises:
      UsageError: Images or options do not fit.

    Example:
      >>> from functools import partial
      >>> crop = partial(random_resized_crop, size=(24, 24))
      >>> jax.eval_shape(crop, jax.random.key(0), jnp.ones((2, 32, 48, 3))).shape
      (2, 24, 24, 3)
    """
    frame = batch_frame("random_resized_crop", images)
    check_interval("random_resized_crop", "scale", scale, 0, 1)
    check_interval("random_resized_crop", "ratio", ratio, 0, float("inf"))
    _check_axes("random_resized_crop", "a window", frame, PLANE)
    height, width = sides = frame["height"], frame["width"]
    size = (height, width) if size is None else size
    check_size("random_resized_crop", size)

    def window(key: Array) -> tuple[Array, Array]:
        draws = jax.random.uniform(key, (2 * CROP_ATTEMPTS + 2,))
        area = height * width * (scale[0] + draws[:CROP_ATTEMPTS] * (scale[1] - scale[0]))
        low, high = np.log(ratio)
        aspect = jnp.exp(low + draws[CROP_ATTEMPTS:-2] * (high - low))
        windows = jnp.stack([jnp.sqrt(area / aspect), jnp.sqrt(area * aspect)], axis=-1)
        inside = (windows <= jnp.array(sides)).all(axis=-1)
        window = jnp.where(inside.any(), windows[jnp.argmax(inside)], jnp.array(sides, jnp.float32))
        return draws[-2:] * (jnp.array(sides) - window), window

    windows = jax.vmap(window)(example_keys(key, len(images)))
    return _windowed(images, windows, dict(zip(PLANE, size, strict=True)), frame)


@by_kind
@typed
def affine(
    key: Key[Array, "..."],
    images: Images,
    *,
    rotation: int | float = 0.0,
    scale: tuple[int | float, int | float] = (1.0, 1.0),
    squeeze: int | float = 0.0,
    shear: int | float = 0.0,
    translation: int | float = 0.0,
    mode: str = "zero",
) -> Images:
    """Rotates, scales, squeezes, shears and shifts images about their centre, with bilinear interpolation.

    The distortions of LeNet-5's training digits, section III.B of LeCun et al. 1998: shifts, scaling, squeezing
    (narrower and taller, or the reverse) and horizontal shearing. Every number is drawn uniformly. Scale and
    translation also change the depth of volumes and the length of signals; the others change rows and columns only.

    Args:
      key: One key, or one for each example.
      images: Floating point, shape ``(batch, height, width, channels)``, or fields.
      rotation: The largest angle, in degrees, either way.
      scale: Least and most enlargement of all sides.
      squeeze: The largest part by which one side grows while the other shrinks by the same factor.
      shear: The largest horizontal shear, either way: columns by which a row moves for each row from the centre.
      translation: The largest shift, either way, as a part of the side.
      mode: What lies beyond the border: ``"zero"`` or ``"mirror"``.

    Returns:
      The images, or the fields, of the same size.

    Raises:
      UsageError: Images or options do not fit.

    Example:
      >>> from functools import partial
      >>> jax.eval_shape(partial(affine, rotation=10), jax.random.key(0), jnp.ones((2, 8, 8, 1))).shape
      (2, 8, 8, 1)
    """
    frame = batch_frame("affine", images)
    check_mode("affine", mode)
    check_interval("affine", "scale", scale, 0, float("inf"))
    for name, value, high in (
        ("rotation", rotation, 180),
        ("squeeze", squeeze, 1),
        ("shear", shear, 2),
        ("translation", translation, 1),
    ):
        check_range("affine", name, value, 0, high)
    if rotation or squeeze or shear:
        _check_axes("affine", "rotation, squeeze and shear", frame, PLANE)
    keys = example_keys(key, len(images))

    def drawn(key: Array) -> tuple[Array, ...]:
        draws = jax.random.uniform(key, (6,), minval=-1, maxval=1)
        angle, log_squeeze, slant = draws[0] * np.deg2rad(rotation), draws[1] * np.log1p(squeeze), draws[2] * shear
        zoom = scale[0] + (draws[3] + 1) / 2 * (scale[1] - scale[0])
        return angle, log_squeeze, slant, zoom, draws[4] * translation, draws[5] * translation

    def places(key: Array, axis: str) -> Array:
        """Where the values along another axis come from."""
        shift = jax.random.uniform(jax.random.fold_in(key, OWN_DRAWS[axis]), minval=-1, maxval=1) * translation
        centre = (frame[axis] - 1) / 2
        return (jnp.arange(frame[axis]) - centre - shift * frame[axis]) / drawn(key)[3] + centre

    along = {axis: jax.vmap(functools.partial(places, axis=axis))(keys) for axis in OWN_DRAWS if axis in frame}
    if "height" not in frame:
        return moved(images, Warped(None, along, mode), frame)
    height, width = frame["height"], frame["width"]
    rows, columns = jnp.mgrid[:height, :width] - jnp.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]

    def coordinates(key: Array) -> Array:
        """Where each pixel of the result comes from: the inverse of scale, squeeze, shear, rotation, shift in turn."""
        angle, log_squeeze, slant, zoom, down, right = drawn(key)
        shifted_rows, shifted_columns = rows - down * height, columns - right * width
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        upright_rows = cosine * shifted_rows - sine * shifted_columns
        upright_columns = sine * shifted_rows + cosine * shifted_columns - slant * upright_rows
        tall = zoom * jnp.exp(log_squeeze)
        wide = zoom * jnp.exp(-log_squeeze)
        return jnp.stack([upright_rows / tall + (height - 1) / 2, upright_columns / wide + (width - 1) / 2])

    def forward(key: Array, points: Float[Array, "points 2"]) -> Float[Array, "points 2"]:
        """Where points of the image go: scale, squeeze, shear, rotation, shift in turn."""
        angle, log_squeeze, slant, zoom, down, right = drawn(key)
        centre = jnp.array([height / 2, width / 2])
        tall, wide = (points - centre).T * zoom * jnp.exp(jnp.stack([log_squeeze, -log_squeeze]))[:, None]
        wide = wide + slant * tall
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        turned = jnp.stack([cosine * tall + sine * wide, cosine * wide - sine * tall], axis=-1)
        return turned + centre + jnp.stack([down * height, right * width])

    plane = jax.vmap(coordinates)(keys)
    return moved(images, Warped(plane, along, mode, lambda points: jax.vmap(forward)(keys, points)), frame)


@by_kind
@typed
def elastic(
    key: Key[Array, "..."],
    images: Images,
    *,
    alpha: int | float | None = None,
    sigma: int | float | None = None,
    mode: str = "zero",
) -> Images:
    """Moves every pixel by a smooth random field, with bilinear interpolation: the hand's tremble, for MNIST.

    Uniform displacements from -1 to 1, smoothed by a Gaussian and multiplied by ``alpha`` (Simard et al. 2003, "Best
    practices for convolutional neural networks applied to visual document analysis"). The slices of a volume move
    alike, within themselves; a signal is stretched and compressed along its length. A box becomes that of the pixels
    that come from inside it.

    Args:
      key: One key, or one for each example.
      images: Floating point, shape ``(batch, height, width, channels)``, or fields.
      alpha: Strength; the typical shift is ``0.16 * alpha / sigma`` pixels. The default is 34 for sides of 28 pixels,
        as in the paper, and grows with the square of the shorter side, so that the shift is 5 % of it.
      sigma: Standard deviation of the Gaussian, in pixels; by default a seventh of the shorter side, 4 of 28.
      mode: What lies beyond the border: ``"zero"`` or ``"mirror"``.

    Returns:
      The images, or the fields, of the same size.

    Raises:
      UsageError: Images or options do not fit.

    Example:
      >>> jax.eval_shape(elastic, jax.random.key(0), jnp.ones((2, 8, 8, 1))).shape
      (2, 8, 8, 1)
    """
    frame = batch_frame("elastic", images)
    check_mode("elastic", mode)
    if alpha is not None:
        check_range("elastic", "alpha", alpha, 0)
    if sigma is not None:
        check_range("elastic", "sigma", sigma, 0.1, 1000.0)

    def strength_and_reach(side: int) -> tuple[float, float]:
        return float(34 * (side / 28) ** 2 if alpha is None else alpha), float(side / 7 if sigma is None else sigma)

    keys = example_keys(key, len(images))
    along, plane = {}, None
    if "length" in frame:
        length = frame["length"]
        strength, reach = strength_and_reach(length)
        smoothing = jnp.asarray(_gaussian_matrix(length, reach))

        def places(key: Array) -> Array:
            own_key = jax.random.fold_in(key, OWN_DRAWS["length"])
            return jnp.arange(length) + strength * (
                smoothing @ jax.random.uniform(own_key, (length,), minval=-1, maxval=1)
            )

        along["length"] = jax.vmap(places)(keys)
    if "height" in frame:
        height, width = frame["height"], frame["width"]
        strength, reach = strength_and_reach(min(height, width))
        down, across = (jnp.asarray(_gaussian_matrix(side, reach)) for side in (height, width))
        grid = jnp.stack(jnp.mgrid[:height, :width]).astype(jnp.float32)

        def coordinates(key: Array) -> Array:
            noise = jax.random.uniform(key, (2, height, width), minval=-1, maxval=1)
            return grid + strength * (down @ noise @ across.T)

        plane = jax.vmap(coordinates)(keys)
    return moved(images, Warped(plane, along, mode), frame)


def _draw_starts(key: Key[Array, "..."], count: int, room: Frame) -> dict[str, Int32[Array, " batch"]]:
    """For each axis a whole number from 0 to its room - 1, of each example."""
    keys = example_keys(key, count)
    starts: dict[str, Array] = {}
    if "height" in room:
        drawn = jax.vmap(lambda key: draw_positions(key, (room["height"], room["width"])))(keys)
        starts = {"height": drawn[:, 0], "width": drawn[:, 1]}
    for axis, number in OWN_DRAWS.items():
        if axis in room:
            own_keys = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys)
            starts[axis] = jax.vmap(lambda key, axis=axis: draw_positions(key, (room[axis],))[0])(own_keys)
    return starts


def _windowed(images: Images, windows: tuple[Array, Array], sizes: Frame, frame: Frame) -> Images:
    """Windows of the plane, brought to a size."""
    starts, lengths = (dict(zip(PLANE, numbers.T, strict=True)) for numbers in windows)
    return moved(images, Windowed(starts, lengths, sizes), frame)


def _check_axes(augmentation: str, what: str, frame: Frame, axes: tuple[str, ...]) -> None:
    """Rejects an option that needs axes which nothing has."""
    missing = [axis for axis in axes if axis not in frame]
    if missing:
        raise UsageError(f"{augmentation}: {what} needs {' and '.join(axes)}; these fields have {', '.join(frame)}")


def _gaussian_matrix(side: int, sigma: int | float) -> np.ndarray:
    """Smoothing along one axis as a matrix; beyond the border the field is 0."""
    distance = np.arange(side)[:, None] - np.arange(side)
    reach = int(KERNEL_REACH * sigma + 0.5)
    total = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2)).sum()
    return np.where(abs(distance) <= reach, np.exp(-(distance**2) / (2 * sigma**2)) / total, 0).astype(np.float32)
