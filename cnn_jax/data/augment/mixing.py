"""Augmentations that hide a part of an image, or mix two examples."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, Shaped

from cnn_jax.data.augment.arguments import check_images, check_range, draw_positions, example_keys
from cnn_jax.data.augment.by_kind import Fields, Images, batch_frame, by_kind
from cnn_jax.data.augment.movement import PLANE
from cnn_jax.data.fields import INPUT_KINDS, PIXEL_KINDS, Field, Spec
from cnn_jax.errors import UsageError
from cnn_jax.typed import typed

BETA_TABLE = 4097
TARGET_KINDS = ("labels", "target")
MIXED_KINDS = {
    "mixup": (*INPUT_KINDS, *TARGET_KINDS),
    "cutmix": ("image", "video", "mask", *TARGET_KINDS),
}
"""Name of a mixing augmentation -> the kinds of fields that it can mix; labels as distributions, of kind ``labels``."""


@by_kind
@typed
def cutout(
    key: Key[Array, "..."],
    images: Images,
    *,
    size: int | None = None,
    fill: int | float | Sequence[float] = 0.0,
) -> Images:
    """Hides a square whose centre is any pixel; what of it lies beyond the border is lost.

    DeVries and Taylor 2017, "Improved regularization of convolutional neural networks with cutout". The same square is
    hidden in all frames of a video and slices of a volume; masks, boxes and all other fields stay as they are.

    Args:
      key: One key, or one for each example.
      images: Floating point, shape ``(batch, height, width, channels)``, or fields.
      size: The square's side, in pixels; by default half of the image's shorter side, as the paper's 16 of CIFAR-10's
        32. It must be less than the longer side, so that something is left of every image.
      fill: The square's value, or one value for each channel.

    Returns:
      The images, or the fields.

    Raises:
      UsageError: Images or options do not fit.

    Example:
      >>> hidden = cutout(jax.random.key(0), jnp.ones((1, 8, 8, 1)), size=2) == 0
      >>> 1 <= int(hidden.sum()) <= 4
      True
    """
    if isinstance(images, Fields):
        names = images.of_kinds(*PIXEL_KINDS)
        if not names:
            raise UsageError("cutout: there is no image, volume or video to hide a part of")
        batch_frame("cutout", images)
        hidden = {name: _hidden(key, jnp.asarray(images.arrays[name]), size, fill) for name in names}
        return images.replaced(hidden)  # type: ignore[return-value]
    check_images("cutout", images)
    return _hidden(key, images, size, fill)


def _hidden(key: Array, images: Array, size: int | None, fill: int | float | Sequence[float]) -> Array:
    height, width = images.shape[-3:-1]
    if size is None:
        size = max(1, min(height, width) // 2)
    most = max(height, width) - 1
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= most:
        raise UsageError(
            f"cutout: size={size!r} must be a whole number from 1 to {most} for images of {height}x{width}; a larger "
            "square hides all of some of them"
        )
    numbers = all(isinstance(value, int | float) for value in (fill if isinstance(fill, Sequence) else (fill,)))
    colour = jnp.asarray(fill if numbers else (), images.dtype)
    if colour.shape not in ((), images.shape[-1:]):
        raise UsageError(f"cutout: fill={fill!r} must be one number, or one for each of {images.shape[-1]} channels")

    def hidden(key: Array) -> Array:
        centre = draw_positions(key, (height, width))
        return _box((height, width), centre - size // 2, centre - size // 2 + size)

    boxes = jax.vmap(hidden)(example_keys(key, len(images)))
    axes = ("slices", *PLANE) if images.ndim == 5 else PLANE
    return jnp.where(_spread(boxes, images, axes), colour, images)


@by_kind
@typed
def mixup(
    key: Key[Array, "..."],
    images: Shaped[Array, "..."] | Fields,
    labels: Shaped[Array, "..."] | None = None,
    *,
    alpha: int | float = 0.2,
) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch classes"]] | Fields:
    """Averages each example with the next one of the batch: image, label and all.

    ``weight * own + (1 - weight) * next``, with one ``weight ~ Beta(alpha, alpha)`` per example (Zhang et al. 2018,
    "mixup: beyond empirical risk minimization"). A batch is in random order, so its next example is a random one.
    Volumes, video, signals, labels and targets are averaged alike. There is no average of masks, boxes and text.

    Args:
      key: One key, or one for each example.
      images: Floating point, shape ``(batch, height, width, channels)``, or fields, whose labels are distributions, of
        kind ``labels``.
      labels: Distributions over the classes, shape ``(batch, classes)``; None where ``images`` are fields.
      alpha: Small leaves most examples nearly as they are; 1 makes every weight equally likely.

    Returns:
      The images and their labels, or the fields.

    Raises:
      UsageError: Images, labels or options do not fit, or a field cannot be averaged.

    Example:
      >>> images, labels = jax.jit(mixup)(jax.random.key(0), jnp.zeros((2, 4, 4, 1)), jnp.eye(2))
      >>> labels.sum(axis=-1).tolist()
      [1.0, 1.0]
    """
    fields = _as_fields("mixup", images, labels)
    weights = _own_weights("mixup", key, len(fields), alpha)
    mixed = {name: _mixed(weights, jnp.asarray(fields.arrays[name])) for name in fields.of_kinds(*MIXED_KINDS["mixup"])}
    return _as_given(fields.replaced(mixed), labels)


@by_kind
@typed
def cutmix(
    key: Key[Array, "..."],
    images: Shaped[Array, "..."] | Fields,
    labels: Shaped[Array, "..."] | None = None,
    *,
    alpha: int | float = 1.0,
) -> tuple[Float[Array, "batch height width channels"], Float[Array, "batch classes"]] | Fields:
    """Replaces a box of each image by that of the next one of the batch, and its label by the same part.

    The box takes ``1 - weight`` of the area, with one ``weight ~ Beta(alpha, alpha)`` per example, about a centre
    anywhere in the image; the label counts the pixels that are really replaced (Yun et al. 2019, "CutMix"). Masks and
    the frames of a video are cut by the same box; targets are averaged as labels are. Boxes, text, volumes and signals
    cannot be cut.

    Args:
      key: One key, or one for each example.
      images: Floating point, shape ``(batch, height, width, channels)``, or fields, whose labels are distributions, of
        kind ``labels``.
      labels: Distributions over the classes, shape ``(batch, classes)``; None where ``images`` are fields.
      alpha: 1 makes every size of box equally likely.

    Returns:
      The images and their labels, or the fields.

    Raises:
      UsageError: Images, labels or options do not fit, or a field cannot be cut.

    Example:
      >>> zero_and_one = jnp.stack([jnp.zeros((4, 4, 1)), jnp.ones((4, 4, 1))])
      >>> images, labels = jax.jit(cutmix)(jax.random.key(1), zero_and_one, jnp.eye(2))
      >>> bool(jnp.allclose(images.mean(axis=(1, 2, 3)), labels[:, 1]))
      True
    """
    fields = _as_fields("cutmix", images, labels)
    frame = batch_frame("cutmix", fields)
    if "height" not in frame:
        raise UsageError("cutmix: there is no image, mask or video to cut")
    weights = _own_weights("cutmix", key, len(fields), alpha)
    sides = (frame["height"], frame["width"])

    def replaced(key: Array, weight: Array) -> Array:
        sizes = jnp.sqrt(1 - weight) * jnp.array(sides)
        centre = jax.random.uniform(jax.random.fold_in(key, 1), (2,)) * jnp.array(sides)
        return _box(sides, jnp.round(centre - sizes / 2), jnp.round(centre + sizes / 2))

    boxes = jax.vmap(replaced)(example_keys(key, len(fields)), weights)
    kept = 1 - boxes.mean(axis=(1, 2), dtype=jnp.float32)
    new = {}
    for name in fields.of_kinds("image", "video", "mask"):
        array = jnp.asarray(fields.arrays[name])
        new[name] = jnp.where(_spread(boxes, array, fields.axes(name)), _next(array), array)
    new |= {name: _mixed(kept, jnp.asarray(fields.arrays[name])) for name in fields.of_kinds(*TARGET_KINDS)}
    return _as_given(fields.replaced(new), labels)


def check_mixed(augmentation: str, spec: Spec, *, where: str = "") -> None:
    """Rejects fields that cannot be mixed.

    Args:
      augmentation: ``mixup`` or ``cutmix``.
      spec: Of the fields; labels are mixed as distributions.
      where: Begins the message, before the augmentation.
    """
    for name, field in spec.items():
        if field.kind not in (*MIXED_KINDS[augmentation], "label") or field.count:
            other = "; cutmix cuts masks" if (augmentation, field.kind) == ("mixup", "mask") else ""
            raise UsageError(f"{where}{augmentation}: cannot mix {name}, of kind {field.kind!r}{other}")
        if field.kind == "labels" and field.ignored is not None:
            raise UsageError(f"{where}{augmentation}: cannot mix {name}, where {field.ignored} means not labelled")


def _as_fields(augmentation: str, images: Array | Fields, labels: Array | None) -> Fields:
    """Fields, of which all can be mixed."""
    if isinstance(images, Fields):
        if labels is not None:
            raise UsageError(f"{augmentation}: labels are given twice; fields hold them")
        check_mixed(augmentation, images.spec)
        if whole := images.of_kinds("label"):
            raise UsageError(f"{augmentation}: {whole[0]} holds class numbers; give distributions, of kind 'labels'")
        return images
    check_images(augmentation, images)
    if (
        labels is None
        or labels.ndim != 2
        or len(labels) != len(images)
        or not jnp.issubdtype(labels.dtype, jnp.floating)
    ):
        given = "missing" if labels is None else f"{labels.dtype} of shape {labels.shape}"
        raise UsageError(
            f"{augmentation}: labels are {given}; give distributions of shape "
            f"({len(images)}, classes), such as jax.nn.one_hot(labels, classes)"
        )
    return Fields({"image": images, "label": labels}, {"image": Field("image"), "label": Field("labels")})


def _as_given(fields: Fields, labels: Array | None) -> tuple[Array, Array] | Fields:
    return fields if labels is None else (fields.arrays["image"], fields.arrays["label"])


def _own_weights(augmentation: str, key: Array, count: int, alpha: int | float) -> Float[Array, " batch"]:
    """How much of each example stays its own."""
    from scipy.special import betaincinv  # which takes a tenth of a second to import

    check_range(augmentation, "alpha", alpha, 1e-3)
    chances = jax.vmap(jax.random.uniform)(example_keys(key, count))
    # The inverse of the distribution function as a table: jax.random.beta's loop takes seconds to compile.
    grid = np.linspace(0, 1, BETA_TABLE)
    return jnp.interp(chances, jnp.asarray(grid), jnp.asarray(betaincinv(alpha, alpha, grid)))


def _mixed(weights: Float[Array, " batch"], values: Array) -> Array:
    weights = weights.astype(values.dtype).reshape(-1, *[1] * (values.ndim - 1))
    return weights * values + (1 - weights) * _next(values)


def _next(values: Array) -> Array:
    return jnp.roll(values, -1, axis=0)


def _box(sides: tuple[int, ...], start: Array, stop: Array) -> Bool[Array, "height width"]:
    rows, columns = (
        (jnp.arange(side) >= start[axis]) & (jnp.arange(side) < stop[axis]) for axis, side in enumerate(sides)
    )
    return rows[:, None] & columns[None, :]


def _spread(boxes: Bool[Array, "batch height width"], array: Array, axes: tuple[str, ...]) -> Bool[Array, "..."]:
    """Boxes in the form of an array: alike in all frames, slices and channels."""
    shape = (len(boxes), *[1] * (len(axes) - 2), *boxes.shape[1:], *[1] * (array.ndim - 1 - len(axes)))
    return boxes.reshape(shape)
