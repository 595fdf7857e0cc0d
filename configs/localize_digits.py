"""Which digit is it, and where? A class head and a box head on one network, on embedded data.

Each image of 40x40 has one of scikit-learn's 8x8 digits, enlarged to 12 to 24 pixels, somewhere on a noisy canvas.
Training, validation and test images have other digits. The two heads share the convolutions. In the variant
``separate`` the box head does not train them: the network learns to classify, and the box head to locate with the
features of that. Nothing to download.

Command:  python launch.py --config=configs/localize_digits.py, and localize_digits.py:separate
Time:     65 s on 2 cores (Intel Xeon) beside another run, from the command to the report, compiling included
Expected: test class and box both right 85.25 % ± 2.19, IoU 66.82 % ± 2.25 (mean ± std over 2 seeds)
          separate: 28.80 % and 36.80 % (1 seed); the constant box has an IoU of 22.04 %
"""

from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from cnn_jax import data
from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config

SIDE = 40
COUNTS = {"train": 8000, "validation": 500, "test": 1000}


def digits_on_a_canvas(split: str, **_: Any) -> data.Dataset:
    """Images with one digit, its class, and the box around its ink.

    Args:
      split: ``"train"``, ``"validation"`` or ``"test"``.
    """
    digits = data.load("digits", split)
    generator = np.random.default_rng(len(digits))
    count = COUNTS[split]
    images = generator.normal(40, 15, (count, SIDE, SIDE))
    boxes, labels = np.zeros((count, 1, 4), np.float32), np.zeros((count, 1), np.int32)
    for number, image in enumerate(images):
        chosen, side = generator.integers(len(digits)), int(generator.integers(12, 25))
        small = Image.fromarray(digits.images[chosen, ..., 0])
        ink = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
        row, column = generator.integers(0, SIDE - side + 1, 2)
        image[row : row + side, column : column + side] += ink * generator.uniform(100, 200)
        dark = np.argwhere(ink > 0.5)
        boxes[number, 0] = np.add([*dark.min(axis=0), *(dark.max(axis=0) + 1)], (row, column, row, column))
        labels[number] = digits.labels[chosen]
    fields = {
        "image": np.rint(images).clip(0, 255).astype(np.uint8)[..., None],
        "boxes": boxes,
        "label": labels,
        "boxes_count": np.ones(count, np.int32),
    }
    spec = {
        "image": "image",
        "boxes": data.Field("boxes", count="boxes_count"),
        "label": data.Field("label", class_names=digits.class_names, count="boxes_count"),
        "boxes_count": "count",
    }
    return data.Dataset("digits_on_a_canvas", split, fields, spec)


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, its variant ``separate``, or ``smoke``: one epoch of a smaller network."""
    check_variant(variant, ("separate", "smoke"))
    config = default_config("localization")
    config.data.name, config.input_shape = f"{__file__}:digits_on_a_canvas", (SIDE, SIDE, 1)
    config.model.name = "localizer"
    config.model.options = {"separate": variant == "separate", "backbone_options": {"dropout_rate": 0.1}}
    config.batch_size, config.epochs = 64, 10
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.001
    if variant == "smoke":
        config.epochs, config.model.width = 1, 0.25
    return config
