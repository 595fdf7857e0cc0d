"""Several views of an image at test time, whose predictions are averaged."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from cnn_jax.data.augment.arguments import check_images, check_size, from_zero_to_one
from cnn_jax.errors import UsageError, nearest
from cnn_jax.typed import typed

TEST_TIME = ("mirror", "ten_crop")


@typed
def mirror(images: Shaped[Array, "..."]) -> Float[Array, "2 batch height width channels"]:
    """Each image and its mirror image.

    Args:
      images: Floating point, shape ``(batch, height, width, channels)``.

    Returns:
      The two views, before the batch.

    Raises:
      UsageError: The images do not fit.

    Example:
      >>> mirror(jnp.arange(2.0).reshape(1, 1, 2, 1))[:, 0, 0, :, 0].tolist()
      [[0.0, 1.0], [1.0, 0.0]]
    """
    check_images("mirror", images)
    return jnp.stack([images, images[:, :, ::-1]])


@typed
def ten_crop(images: Shaped[Array, "..."], *, size: tuple[int, int]) -> Float[Array, "10 batch height width channels"]:
    """The four corners and the centre of each image, and their mirror images (Krizhevsky et al. 2012, section 4.1).

    Args:
      images: Floating point, shape ``(batch, height, width, channels)``, larger than ``size``.
      size: ``(height, width)`` of the crops.

    Returns:
      The ten views, before the batch: top left, top right, bottom left, bottom right, centre; then mirrored.

    Raises:
      UsageError: The images do not fit, or are no larger than the crops.

    Example:
      >>> ten_crop(jnp.zeros((2, 256, 256, 3)), size=(224, 224)).shape
      (10, 2, 224, 224, 3)
    """
    check_images("ten_crop", images)
    check_size("ten_crop", size)
    rows, columns = images.shape[1] - size[0], images.shape[2] - size[1]
    if min(rows, columns) < 0 or max(rows, columns) == 0:
        raise UsageError(
            f"ten_crop: crops of {size[0]}x{size[1]} need larger images than {images.shape[1]}x{images.shape[2]}; "
            "read them larger (config.data.size) or use 'mirror'"
        )
    places = [(0, 0), (0, columns), (rows, 0), (rows, columns), (rows // 2, columns // 2)]
    crops = [images[:, top : top + size[0], left : left + size[1]] for top, left in places]
    return jnp.concatenate([mirror(crop)[:, None] for crop in crops], axis=1).reshape(10, -1, *crops[0].shape[1:])


@typed
def check_test_time(name: str) -> None:
    """Rejects an unknown ``config.data.test_time``."""
    if name and name not in TEST_TIME:
        raise UsageError(f"config.data.test_time={name!r} is unknown (empty means none); {nearest(name, TEST_TIME)}")


@typed
def test_time_views(
    name: str, images: Shaped[Array, "..."], *, size: tuple[int, int]
) -> Float[Array, "views batch height width channels"]:
    """The views that a config names, of images as they are stored.

    Args:
      name: ``"mirror"`` or ``"ten_crop"``.
      images: uint8 (0..255) or floating point (0..1), shape ``(batch, height, width, channels)``.
      size: Of the ten crops.

    Returns:
      The views, on the scale 0 to 1.

    Raises:
      UsageError: The name is unknown, or the images do not fit.

    Example:
      >>> test_time_views("mirror", jnp.zeros((2, 8, 8, 1), jnp.uint8), size=(8, 8)).shape
      (2, 2, 8, 8, 1)
    """
    check_test_time(name)
    images = from_zero_to_one(images)
    return mirror(images) if name == "mirror" else ten_crop(images, size=size)


@typed
def average_logits(logits: Float[Array, "views *batch classes"]) -> Float[Array, "*batch classes"]:
    """Logits of the mean of the views' class probabilities: its logarithm.

    Example:
      >>> views = jnp.log(jnp.array([[0.2, 0.8], [0.6, 0.4]]))
      >>> jnp.exp(average_logits(views)).round(3)
      Array([0.4, 0.6], dtype=float32)
    """
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - jnp.log(len(logits))
