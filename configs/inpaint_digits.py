"""What does a hole hide? A small U-Net fills holes in handwritten digits. Nothing to download.

Each image has one of scikit-learn's 8x8 digits, enlarged to 32x32, with a grey square of 10 to 16 pixels somewhere on
it. The network predicts the whole digit. The mask tells which pixels are in the hole, so that their error is a score of
its own. Training, validation and test images are of other digits.

Command:  python launch.py --config=configs/inpaint_digits.py
Time:     90 s of CPU time on one core (Intel Xeon), compiling included
Expected: test error 1.95 % of white, of the pixels in the hole 7.58 %; PSNR 28.0 dB, SSIM 0.942 (1 seed)
"""

from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from cnn_jax import data
from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config

SIDE = 32
HOLE = 10, 17  # the smallest side in pixels, and 1 more than the largest
GREY = 128
TIMES = {"train": 2, "validation": 1, "test": 1}  # how often each digit is there, with other holes


def digits_with_holes(split: str, **_: Any) -> data.Dataset:
    """Digits with a grey square, the whole digits, and which pixels the square hides."""
    digits = data.load("digits", split).images[..., 0]
    large = [np.asarray(Image.fromarray(digit).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for digit in digits]
    whole = np.stack(large * TIMES[split])[..., None]
    images, masks = whole.copy(), np.zeros(whole.shape[:-1], np.uint8)
    generator = np.random.default_rng(len(digits))
    for image, mask in zip(images, masks, strict=True):
        side = int(generator.integers(*HOLE))
        row, column = generator.integers(2, SIDE - 2 - side, 2)
        place = np.s_[row : row + side, column : column + side]
        image[place], mask[place] = GREY, 1
    spec = {"image": "image", "whole": "image", "hole": data.Field("mask", class_names=("known", "hole"))}
    return data.Dataset("digits_with_holes", split, {"image": images, "whole": whole, "hole": masks}, spec)


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch of a smaller network."""
    check_variant(variant, ("smoke",))
    config = default_config("image_to_image")
    config.data.name, config.input_shape = f"{__file__}:digits_with_holes", (SIDE, SIDE, 1)
    config.model.name, config.model.width = "u_net_padded", 0.125
    config.model.options = {"depth": 3, "batch_norm": True}
    config.batch_size, config.epochs = 32, 10
    config.evaluate_every = "2 epochs"
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.005
    if variant == "smoke":
        config.epochs, config.evaluate_every, config.model.width = 1, "1 epoch", 0.0625
    return config
