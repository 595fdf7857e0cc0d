"""Which digits are where? A detector of handwritten digits on photographs, on embedded data.

Each image of 64x64 has up to four digits of scikit-learn's 8x8 ones, enlarged to 14 to 26 pixels, in light grey on a
random piece of one of its two photographs, at half of its brightness. Training, validation and test images have other
digits; those of the test set are on the other photograph. A box is around the ink of a digit. In the variant ``masks``
the network also says which pixels are ink of each digit (instance segmentation). Nothing to download.

Command:  python launch.py --config=configs/detect_digits.py, and detect_digits.py:masks
Time:     81 s on 2 cores (Intel Xeon), from the command to the report, compiling included
Expected: test AP at IoU 0.5 97.01 % ± 0.07, AP of COCO 76.95 % ± 0.99 (mean ± std over 3 seeds)
          masks: AP of masks 64.83 %, at IoU 0.5 95.99 % (1 seed)
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


def digits_on_photographs(split: str, *, most: int = MOST, masks: bool = False, **_: Any) -> data.Dataset:
    """Images with digits on a photograph, the box of each digit, and its class.

    Args:
      split: ``"train"``, ``"validation"`` or ``"test"``.
      most: The largest number of digits in an image.
      masks: Whether the examples also say which pixels are ink of which digit, see
        :class:`cnn_jax.tasks.InstanceSegmentation`.
    """
    from sklearn.datasets import load_sample_images

    digits = data.load("digits", split)
    photograph = np.asarray(Image.fromarray(load_sample_images().images[int(split == "test")]).convert("L"), np.float32)
    generator = np.random.default_rng(len(digits))
    images = np.zeros((COUNTS[split], SIDE, SIDE, 1), np.uint8)
    ink = np.zeros((len(images), SIDE, SIDE), np.uint8)  # the number of the digit of each pixel, from 1
    boxes: list[list[Any]] = []
    labels: list[list[int]] = []
    for number in range(len(images)):
        top, left = (generator.integers(0, size - SIDE) for size in photograph.shape)
        image = photograph[top : top + SIDE, left : left + SIDE] / 2
        taken = np.zeros((SIDE, SIDE), bool)
        boxes.append([])
        labels.append([])
        for _digit in range(generator.integers(1, most + 1)):
            digit = data.paste_digit(generator, digits, sides=(14, 26), canvas=(SIDE, SIDE))
            if taken[digit.place].any():  # digits do not lie on each other
                continue
            image[digit.place] = (1 - digit.ink) * image[digit.place] + digit.ink * generator.uniform(180, 255)
            taken[digit.place] = True
            boxes[-1].append(digit.box)
            labels[-1].append(digit.label)
            ink[number][digit.place][digit.pixels] = len(boxes[-1])
        images[number, ..., 0] = np.rint(image).clip(0, 255)
    options: dict[str, Any] = {"class_names": digits.class_names, "most": most, "objects": ink if masks else None}
    return data.from_boxes("digits_on_photographs", split, images, boxes, labels, **options)


def digits_with_masks(split: str, **_: Any) -> data.Dataset:
    """The same images with the pixels of each digit."""
    return digits_on_photographs(split, masks=True)


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, its variant ``masks``, or ``smoke``: one epoch of a smaller network."""
    check_variant(variant, ("masks", "smoke"))
    config = default_config("instance_segmentation" if variant == "masks" else "detection")
    examples = "digits_with_masks" if variant == "masks" else "digits_on_photographs"
    config.data.name, config.input_shape = f"{__file__}:{examples}", (SIDE, SIDE, 1)
    config.model.name, config.model.width = "detector", 0.5
    config.model.options = {"backbone": "resnet_20", "coarsest": 4, "features": 32}
    config.batch_size, config.epochs = 16, 10
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.004
    if variant == "masks":
        config.model.options.prototypes, config.max_detections = 8, 20
    if variant == "smoke":
        config.epochs, config.model.width = 1, 0.25
    return config
