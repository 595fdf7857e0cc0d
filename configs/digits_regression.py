"""By which angle is a digit turned, and how much ink does it have? Regression on scikit-learn's real 8x8 digits.

Each digit is turned by several random angles of at most 45 degrees. Nothing to download.

Command:  python launch.py --config=configs/digits_regression.py
Time:     69 s of CPU time, of 2 cores (AMD EPYC) together, from the command to the report, compiling included
Expected: test R2 98.67 %, mean absolute errors 2.1 degrees and 0.18 % of ink (1 seed)
"""

from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from cnn_jax import data
from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config

SIDE = 16
TURNS_PER_DIGIT = 4


def turned_digits(split: str, **_: Any) -> data.Dataset:
    """Each digit of a split of the data set ``digits`` at random angles, in degrees; and its ink in percent."""
    digits = data.load("digits", split)
    generator = np.random.default_rng(len(digits))
    images, angles = [], generator.uniform(-45, 45, TURNS_PER_DIGIT * len(digits)).astype(np.float32)
    for number, angle in enumerate(angles):
        pixels = digits.images[number // TURNS_PER_DIGIT, ..., 0]
        upright = Image.fromarray(pixels).resize((12, 12), Image.Resampling.BILINEAR)
        framed = Image.new("L", (SIDE, SIDE))
        framed.paste(upright, (2, 2))
        images.append(np.asarray(framed.rotate(float(angle), Image.Resampling.BILINEAR))[..., None])
    pixels = np.stack(images)
    fields = {"image": pixels, "angle": angles, "ink": pixels.mean(axis=(1, 2, 3)).astype(np.float32) / 2.55}
    return data.Dataset("turned_digits", split, fields, {"image": "image", "angle": "target", "ink": "target"})


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch of a smaller network."""
    check_variant(variant, ("smoke",))
    config = default_config("regression")
    config.data.name, config.input_shape = f"{__file__}:turned_digits", (SIDE, SIDE, 1)
    config.model.name = "small_cnn"
    config.model.options = {"dropout_rate": 0.0}
    config.batch_size, config.epochs = 64, 15
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.002
    if variant == "smoke":
        config.epochs, config.model.width = 1, 0.25
    return config
