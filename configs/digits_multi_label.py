"""Which digits are in an image? Multi-label classification of two or three of scikit-learn's real 8x8 digits at once.

They lie in random quarters of an image of 16x16. Nothing to download.

Command:  python launch.py --config=configs/digits_multi_label.py
Time:     60 s of CPU time, of 2 cores (AMD EPYC) together, from the command to the report, compiling included
Expected: test macro F1 95.82 % (1 seed)
"""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cnn_jax import data
from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config

SIDE = 8  # of a digit, and of a quarter of an image
IMAGES_PER_DIGIT = 3


def digits_together(split: str, **_: Any) -> data.Dataset:
    """Images with two or three digits of a split of the data set ``digits``, and which classes are there."""
    digits = data.load("digits", split)
    generator = np.random.default_rng(len(digits))
    count = IMAGES_PER_DIGIT * len(digits)
    images, labels = np.zeros((count, 2 * SIDE, 2 * SIDE, 1), np.uint8), np.zeros((count, digits.num_classes), np.uint8)
    for image, label in zip(images, labels, strict=True):
        for quarter in generator.permutation(4)[: generator.integers(2, 4)]:
            digit, top, left = generator.integers(len(digits)), SIDE * (quarter // 2), SIDE * (quarter % 2)
            image[top : top + SIDE, left : left + SIDE] = digits.images[digit]
            label[digits.labels[digit]] = 1
    spec = {"image": "image", "digits": data.Field("labels", class_names=digits.class_names)}
    return data.Dataset("digits_together", split, {"image": images, "digits": labels}, spec)


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch of a smaller network."""
    check_variant(variant, ("smoke",))
    config = default_config("multi_label")
    config.data.name, config.input_shape = f"{__file__}:digits_together", (2 * SIDE, 2 * SIDE, 1)
    config.model.name = "small_cnn"
    config.batch_size, config.epochs = 64, 8
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.002
    if variant == "smoke":
        config.epochs, config.model.width = 1, 0.25
    return config
