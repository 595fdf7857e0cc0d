"""Augmentation as pure JAX functions of whole batches, on the device; test-time views; a list of them by name.

Each function takes a ``key`` first, and images of floating point, ``(batch, height, width, channels)``, or the
:class:`Fields` of a batch, such as images with masks and boxes. Example ``i`` is changed by the numbers of its own key,
``fold_in(key, i)``: neither the size of the batch nor its division over devices changes the result. ``mixup`` and
``cutmix`` also need their neighbour, the next example of the whole batch.
"""

from cnn_jax.data.augment.arguments import example_keys
from cnn_jax.data.augment.by_kind import Fields, by_kind, photometric
from cnn_jax.data.augment.color import brightness, color_covariance, color_pca, contrast, saturation
from cnn_jax.data.augment.geometric import (
    affine,
    alternating_flip,
    elastic,
    flip,
    pad_and_crop,
    random_crop,
    random_resized_crop,
)
from cnn_jax.data.augment.mixing import cutmix, cutout, mixup
from cnn_jax.data.augment.pipeline import AUGMENTATIONS, Augmentation
from cnn_jax.data.augment.views import average_logits, check_test_time, mirror, ten_crop, test_time_views

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "Fields",
    "affine",
    "alternating_flip",
    "average_logits",
    "brightness",
    "by_kind",
    "check_test_time",
    "color_covariance",
    "color_pca",
    "contrast",
    "cutmix",
    "cutout",
    "elastic",
    "example_keys",
    "flip",
    "mirror",
    "mixup",
    "pad_and_crop",
    "photometric",
    "random_crop",
    "random_resized_crop",
    "saturation",
    "ten_crop",
    "test_time_views",
]
