"""What is on the canvas? Captions such as "two threes left of a seven", on embedded data.

Each canvas of 48x48 has one or two groups of one to three digits, scikit-learn's 8x8 ones, enlarged to 12 to 16
pixels. The grammar of the captions is in cnn_jax/data/canvases.py. Of the 180 combinations of two digits and a
relation, 36 occur in the test set alone, and 18 in the validation set alone; about 40 % of the test canvases have one
of these 36. Nothing to download.

Command:  python launch.py --config=configs/caption_digits.py
Time:     50 s of CPU time, of one core (AMD EPYC), from the command to the report, compiling included
Expected: test captions right 72.03 % ± 1.80, held out 72.35 % ± 1.68 (mean ± std over 3 seeds)
"""

from typing import Any

from ml_collections import ConfigDict

from cnn_jax import data
from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config

SIDE = 48
COUNTS = {"train": 4000, "validation": 400, "test": 1000}
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NOUNS = [(name, "sixes" if name == "six" else f"{name}s") for name in NAMES]


def canvases_of_digits(split: str, **_: Any) -> data.Dataset:
    """Canvases of digits with captions."""
    digits = data.load("digits", split)
    return data.captioned_canvases(digits, NOUNS, split, count=COUNTS[split], side=SIDE, item_sides=(12, 16))


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch of a smaller network."""
    check_variant(variant, ("smoke",))
    config = default_config("captioning")
    config.data.name, config.input_shape = f"{__file__}:canvases_of_digits", (SIDE, SIDE, 1)
    config.model.name, config.model.width = "captioner", 0.5
    config.model.options = {"backbone": "small_cnn", "coarsest": 4, "length": 7, "features": 64}
    config.batch_size, config.epochs = 32, 12
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.003
    if variant == "smoke":
        config.epochs, config.model.width = 1, 0.25
    return config
