"""Which digits are where? A detector of handwritten digits on photographs, on embedded data.

Each image of 64x64 has up to four digits of scikit-learn's 8x8 ones, enlarged to 14 to 26 pixels, in light grey on a
random piece of one of its two photographs, at half of its brightness. Training, validation and test images have other
digits; those of the test set are on the other photograph. A box is around the ink of a digit. Nothing to download.

Command:  python launch.py --config=configs/detect_digits.py
Time:     81 s on 2 cores (Intel Xeon), from the command to the report, compiling included
Expected: test AP at IoU 0.5 97.03 % ± 0.09, AP of COCO 77.26 % ± 1.17 (mean ± std over 2 seeds)
"""

from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from cnn_jax import data
from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config

SIDE, MOST = 64, 4
COUNTS = {"train": 2400, "validation": 100, "test": 300}


def digits_on_photographs(split: str, *, most: int = MOST, **_: Any) -> data.Dataset:
    """Images with digits on a photograph, the box of each digit, and its class.

    Args:
      split: ``"train"``, ``"validation"`` or ``"test"``.
      most: The largest number of digits in an image.
    """
    from sklearn.datasets import load_sample_images

    digits = data.load("digits", split)
    photograph = np.asarray(Image.fromarray(load_sample_images().images[int(split == "test")]).convert("L"), np.float32)
    generator = np.random.default_rng(len(digits))
    count = COUNTS[split]
    images = np.zeros((count, SIDE, SIDE, 1), np.uint8)
    boxes, labels = np.zeros((count, most, 4), np.float32), np.zeros((count, most), np.int32)
    counts = np.zeros(count, np.int32)
    for number in range(count):
        top, left = (generator.integers(0, size - SIDE) for size in photograph.shape)
        image = photograph[top : top + SIDE, left : left + SIDE] / 2
        taken = np.zeros((SIDE, SIDE), bool)
        for _digit in range(generator.integers(1, most + 1)):
            chosen, side = generator.integers(len(digits)), int(generator.integers(14, 27))
            small = Image.fromarray(digits.images[chosen, ..., 0])
            ink = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
            row, column = generator.integers(0, SIDE - side, 2)
            place = np.s_[row : row + side, column : column + side]
            if taken[place].any():  # digits do not lie on each other
                continue
            image[place] = (1 - ink) * image[place] + ink * generator.uniform(180, 255)
            taken[place] = True
            dark = np.argwhere(ink > 0.5)
            corners = [*dark.min(axis=0), *(dark.max(axis=0) + 1)]
            boxes[number, counts[number]] = np.add(corners, (row, column, row, column))
            labels[number, counts[number]] = digits.labels[chosen]
            counts[number] += 1
        images[number, ..., 0] = np.rint(image).clip(0, 255)
    fields = {"image": images, "boxes": boxes, "label": labels, "boxes_count": counts}
    spec = {
        "image": "image",
        "boxes": data.Field("boxes", count="boxes_count"),
        "label": data.Field("label", class_names=digits.class_names, count="boxes_count"),
        "boxes_count": "count",
    }
    return data.Dataset("digits_on_photographs", split, fields, spec)


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch of a smaller network."""
    check_variant(variant, ("smoke",))
    config = default_config("detection")
    config.data.name, config.input_shape = f"{__file__}:digits_on_photographs", (SIDE, SIDE, 1)
    config.model.name, config.model.width = "detector", 0.5
    config.model.options = {"backbone": "resnet_20", "coarsest": 4, "features": 32}
    config.batch_size, config.epochs = 16, 10
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.004
    if variant == "smoke":
        config.epochs, config.model.width = 1, 0.25
    return config
