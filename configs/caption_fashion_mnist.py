"""What is on the canvas? Captions such as "a shirt left of two bags", on Fashion-MNIST.

Each canvas of 64x64 has one or two groups of one to three garments of 16 to 20 pixels. The grammar of the captions is
in cnn_jax/data/canvases.py. Of the 180 combinations of two classes and a relation, 36 occur in the test set alone, and
18 in the validation set alone; about 40 % of the test canvases have one of these 36.

Data:     python -m cnn_jax.data.prepare fashion_mnist
Command:  python launch.py --config=configs/caption_fashion_mnist.py
Time:     64 s of CPU time, of one core (AMD EPYC), without the compilation of the training steps
Expected: test captions right 48.07 % ± 1.62, held out 39.91 % ± 1.57 (mean ± std over 3 seeds)
"""

from typing import Any

from ml_collections import ConfigDict

from cnn_jax import data
from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config

SIDE = 64
SPLITS = {"train": "train[:55000]", "validation": "train[55000:]", "test": "test"}
COUNTS = {"train": 6000, "validation": 400, "test": 1000}
NOUNS = [
    ("top", "tops"),
    ("trouser", "trousers"),
    ("pullover", "pullovers"),
    ("dress", "dresses"),
    ("coat", "coats"),
    ("sandal", "sandals"),
    ("shirt", "shirts"),
    ("sneaker", "sneakers"),
    ("bag", "bags"),
    ("boot", "boots"),
]


def canvases_of_garments(split: str, *, data_dir: str | None = None, **_: Any) -> data.Dataset:
    """Canvases of garments with captions."""
    garments = data.load("fashion_mnist", SPLITS[split], data_dir=data_dir)
    return data.captioned_canvases(garments, NOUNS, split, count=COUNTS[split], side=SIDE, item_sides=(16, 20))


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch of a smaller network."""
    check_variant(variant, ("smoke",))
    config = default_config("captioning")
    config.data.name, config.input_shape = f"{__file__}:canvases_of_garments", (SIDE, SIDE, 1)
    config.model.name, config.model.width = "captioner", 0.5
    config.model.options = {"backbone": "small_cnn", "coarsest": 4, "length": 7, "features": 64}
    config.batch_size, config.epochs = 32, 8
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.003
    if variant == "smoke":
        config.epochs, config.model.width = 1, 0.25
    return config
