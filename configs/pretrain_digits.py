"""Does pretraining help? A classifier of small digits that starts with the encoder of an autoencoder, and from scratch.

The autoencoder learns 1,297 digits of scikit-learn, 8x8, without their labels. A classifier with the same encoder then
learns few labelled ones: from the encoder's weights, all trained on (``tuned``) or kept, and from random weights.
Nothing to download.

Command:  python launch.py --config=configs/pretrain_digits.py
Time:     71 s of CPU time on 1 core (Intel Xeon) that did other work, too; 46 runs
Expected: with 100 labels, tuned 79.13 % ± 3.78, kept 79.33 % ± 4.65, scratch 76.80 % ± 5.36 (mean ± std over 5 seeds,
          in one command; each seed has other labelled digits)
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.experiments.finetune import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one seed, short runs."""
    config = recipe(variant)
    config.input_shape = (8, 8, 1)
    config.data.name = config.source.name = "digits"
    config.source.batch_size, config.source.duration = 32, "60 epochs"
    config.source.evaluate_every = "60 epochs"
    config.batch_size, config.duration, config.evaluate_every = 50, "600 steps", "600 steps"
    if variant == "smoke":
        shorten(config)
    return config


def recipe(variant: str) -> ConfigDict:
    """What is the same for other digits: the networks, their optimiser, and the ways."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.model.name, config.model.width = "conv_encoder", 0.5
    config.model.options = {"latent_size": 32}
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.01
    config.data.validation = ""
    config.source.changes = {
        "experiment": "autoencoder",
        "model": {"name": "conv_autoencoder", "options": {"latent_size": 32, "noise": 0.5}},
        "optimizer": {"learning_rate": 0.002},
    }
    config.ways, config.seeds = ("tuned", "kept", "scratch"), 5
    config.examples = (50, 100, 200)
    return config


def shorten(config: ConfigDict) -> None:
    """One seed of each way, and few steps."""
    config.seeds, config.ways, config.examples = 1, ("tuned", "scratch"), (100,)
    config.duration = config.evaluate_every = "10 steps"
    config.source.duration = config.source.evaluate_every = "20 steps"
