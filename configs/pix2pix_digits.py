"""Digits from their edges: pix2pix, Isola et al. 2017, with a U-Net, dropout and a PatchGAN. Nothing to download.

scikit-learn's digits are enlarged to 32x32. The input is the edges that Canny's detector finds, the truth is the digit.
With --config.adversarial_weight=0.0 the same network has no use for the discriminator and learns by L1 alone; with
--config.test_mode=training it has dropout and the statistics of the batch at test time, as in the paper.

Departures from the paper: a U-Net with pools instead of strides, of an eighth of the width and depth 3.

Command:  python launch.py --config=configs/pix2pix_digits.py
Time:     66 s of CPU time on one core (Intel Xeon), compiling included
Expected: test error 3.57 % ± 0.03 of white, PSNR 25.1 dB, SSIM 0.932 (mean ± std over 2 seeds)
"""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from cnn_jax import data, filters
from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config

SIDE = 32


def edges_and_digits(split: str, **_: Any) -> data.Dataset:
    """Canny's edges of digits, white on black, and the digits."""
    digits = data.load("digits", split).images[..., 0]
    large = [np.asarray(Image.fromarray(digit).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for digit in digits]
    whole = np.stack(large)[..., None]
    edges = np.asarray(jax.jit(filters.canny)(whole.astype(np.float32) / 255))
    fields = {"image": edges.astype(np.uint8) * 255, "digit": whole}
    return data.Dataset("edges of digits", split, fields, {"image": "image", "digit": "image"})


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch of small networks on 160 images."""
    check_variant(variant, ("smoke",))
    config = default_config("pix2pix")
    config.data.name, config.input_shape = f"{__file__}:edges_and_digits", (SIDE, SIDE, 1)
    config.model.name, config.model.width = "u_net_padded", 0.125
    config.model.options = {"depth": 3, "batch_norm": True, "dropout_rate": 0.5}
    config.discriminator.width = 0.25
    config.batch_size, config.epochs, config.evaluate_every = 16, 10, "2 epochs"
    config.optimizer.name, config.optimizer.learning_rate, config.optimizer.momentum = "adam", 0.002, 0.5
    config.optimizer.schedule = "cosine"
    if variant == "smoke":
        config.data.train, config.data.validation, config.data.test = "train[:160]", "", "test[:50]"
        config.epochs, config.model.width, config.discriminator.width = 1, 0.0625, 0.0625
    return config
