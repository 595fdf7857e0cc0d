"""Colours for grey images: a U-Net predicts a and b of CIE L*a*b* from the lightness, on CIFAR-10.

Input and output have exactly the same lightness: the grey value of a pixel is the one whose L is that of its colour.

Needs CIFAR-10 prepared for tensorflow_datasets: python -m cnn_jax.data.prepare cifar10

Command:  python launch.py --config=configs/colorize_cifar10.py
Time:     3 min of CPU time on one core (Intel Xeon), compiling included
Expected: test error 4.71 % of white, which is 12.0 of 255; PSNR 24.7 dB, SSIM 0.935 (1 seed)
"""

from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from cnn_jax import data, ops
from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config

AT_ONCE = 5000


@jax.jit
def grey(colours: Array) -> Array:
    """The grey image of the same lightness, uint8."""
    lightness = ops.rgb_to_lab(colours.astype(jnp.float32) / 255)[..., :1]
    neutral = jnp.concatenate([lightness, jnp.zeros((*lightness.shape[:-1], 2))], axis=-1)
    return jnp.rint(255 * ops.lab_to_rgb(neutral)[..., :1]).astype(jnp.uint8)


def grey_and_colour(split: str, *, data_dir: str | PathLike[str] | None = None, **_: Any) -> data.Dataset:
    """Images of CIFAR-10 in grey, and in colour."""
    colours = data.load("cifar10", split, data_dir=data_dir).images
    parts = [np.asarray(grey(colours[first : first + AT_ONCE])) for first in range(0, len(colours), AT_ONCE)]
    fields = {"image": np.concatenate(parts), "colour": colours}
    return data.Dataset("cifar10 in grey", split, fields, {"image": "image", "colour": "image"})


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch of a smaller network on 400 images."""
    check_variant(variant, ("smoke",))
    config = default_config("image_to_image")
    config.data.name, config.input_shape = f"{__file__}:grey_and_colour", (32, 32, 1)
    config.data.train, config.data.validation = "train[:45000]", "train[45000:]"
    config.data.augment = ("flip",)
    config.predicts = "lab"
    config.model.name, config.model.width = "u_net_padded", 0.125
    config.model.options = {"depth": 3, "batch_norm": True}
    config.batch_size, config.epochs = 64, 2
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.005
    config.optimizer.schedule = "cosine"
    if variant == "smoke":
        config.data.train, config.data.validation, config.data.test = "train[:400]", "train[45000:45100]", "test[:100]"
        config.epochs, config.model.width = 1, 0.0625
    return config
