"""Garments from edges and edges from garments, without pairs: CycleGAN, Zhu et al. 2017, on Fashion-MNIST.

The first domain is the edges that Canny's detector finds in 6,000 images, the second is 6,000 other images. The test
images are there in both domains, so that the error of a translation is known: its counterpart with pairs is
configs/pix2pix_fashion_mnist.py.

Departures from the paper: a quarter of the width, 3 residual blocks instead of 9, patches of 34x34, batches of 4.

Needs Fashion-MNIST prepared for tensorflow_datasets: python -m cnn_jax.data.prepare fashion_mnist

Command:  python launch.py --config=configs/cyclegan_fashion_mnist.py
Time:     TODO
Expected: TODO
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
    """Canny's edges, white on black, and images: of the same garments in evaluation, of different ones in training."""
    garments = data.load("fashion_mnist", split, data_dir=data_dir).images
    find = jax.jit(filters.canny)
    parts = [garments[first : first + AT_ONCE] for first in range(0, len(garments), AT_ONCE)]
    edges = np.concatenate([np.asarray(find(part.astype(np.float32) / 255)) for part in parts])
    edges = edges.astype(np.uint8) * 255
    if split.startswith("train"):
        edges, garments = edges[: len(edges) // 2], garments[len(edges) // 2 :]
    return data.unpaired("edges and garments of fashion_mnist", split, {"image": edges, "garment": garments})


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: a few steps of a small network."""
    check_variant(variant, ("smoke",))
    config = default_config("cyclegan")
    config.data.name, config.input_shape = f"{__file__}:edges_and_garments", (28, 28, 1)
    config.data.train, config.data.validation, config.data.test = "train[:12000]", "", "test[:2000]"
    config.model.name, config.model.width = "resnet_generator", 0.25
    config.model.options = {"blocks": 3}
    config.discriminator.width, config.discriminator.layers = 0.25, 2
    config.batch_size, config.epochs = 4, 1
    config.optimizer.name, config.optimizer.learning_rate, config.optimizer.momentum = "adam", 0.0005, 0.5
    config.optimizer.schedule = "cosine"
    if variant == "smoke":
        config.data.train, config.data.test = "train[:100]", "test[:50]"
        config.duration, config.evaluate_every, config.pool = "4 steps", "4 steps", 8
        config.model.width, config.model.options, config.discriminator.width = 1 / 16, {"blocks": 1}, 1 / 16
    return config
