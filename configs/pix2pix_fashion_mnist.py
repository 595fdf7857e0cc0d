"""Garments from their edges: pix2pix on Fashion-MNIST, Isola et al. 2017, with a U-Net, dropout and a PatchGAN.

The pairs are made from real images: the input is the edges that Canny's detector finds, the truth is the image. With
--config.adversarial_weight=0.0 the same network has no use for the discriminator and learns by L1 alone.

Departures from the paper: a U-Net with pools instead of strides, of a quarter of the width and depth 2, for 28x28
pixels; in evaluation dropout is off and batch normalisation has its running averages.

Needs Fashion-MNIST prepared for tensorflow_datasets: python -m cnn_jax.data.prepare fashion_mnist

Command:  python launch.py --config=configs/pix2pix_fashion_mnist.py
Time:     2 min of CPU time on one core (Intel Xeon), compiling included
Expected: test error 12.34 % of white, PSNR 14.5 dB, SSIM 0.499 (1 seed)
"""

from os import PathLike
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cnn_jax import data, filters
from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config

AT_ONCE = 1000


def edges_and_garments(split: str, *, data_dir: str | PathLike[str] | None = None, **_: Any) -> data.Dataset:
    """Canny's edges of Fashion-MNIST, white on black, and the images."""
    garments = data.load("fashion_mnist", split, data_dir=data_dir).images
    find = jax.jit(filters.canny)
    parts = [garments[first : first + AT_ONCE] for first in range(0, len(garments), AT_ONCE)]
    edges = np.concatenate([np.asarray(find(part.astype(np.float32) / 255)) for part in parts])
    fields = {"image": edges.astype(np.uint8) * 255, "garment": garments}
    return data.Dataset("edges of fashion_mnist", split, fields, {"image": "image", "garment": "image"})


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch on 400 images."""
    check_variant(variant, ("smoke",))
    config = default_config("pix2pix")
    config.data.name, config.input_shape = f"{__file__}:edges_and_garments", (28, 28, 1)
    config.data.train, config.data.validation, config.data.test = "train[:10000]", "train[59000:]", "test[:2000]"
    config.model.name, config.model.width = "u_net_padded", 0.25
    config.model.options = {"depth": 2, "batch_norm": True, "dropout_rate": 0.5}
    config.discriminator.width = 0.25
    config.batch_size, config.epochs = 32, 2
    config.optimizer.name, config.optimizer.learning_rate, config.optimizer.momentum = "adam", 0.001, 0.5
    if variant == "smoke":
        config.data.train, config.data.validation, config.data.test = "train[:400]", "", "test[:100]"
        config.epochs, config.model.width, config.discriminator.width = 1, 0.0625, 0.0625
    return config
