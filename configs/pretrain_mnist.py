"""Pretraining on 60,000 digits without labels: how much does a classifier gain that has labels of 100 and of 1,000?

A denoising autoencoder learns all training digits of MNIST. The recipe of the classifier and its three ways are those
of ``configs/pretrain_digits.py``.

Needs MNIST prepared for tensorflow_datasets: python -m cnn_jax.data.prepare mnist

Command:  python launch.py --config=configs/pretrain_mnist.py
Time:     2 minutes of CPU time on 1 core (Intel Xeon), 19 runs
Expected: with 100 labels, tuned 73.85 % ± 0.14, kept 60.27 % ± 2.55, scratch 72.56 % ± 1.89 (mean ± std over 3 seeds,
          in one command); with 1,000 labels, tuned 92.02 % ± 1.03, kept 79.08 % ± 0.15, scratch 92.44 % ± 0.21
"""

from ml_collections import ConfigDict

from cnn_jax.config import config_module


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one seed, short runs."""
    pretrain = config_module("pretrain_digits")
    config = pretrain.recipe(variant)
    config.input_shape = (28, 28, 1)
    config.data.name = config.source.name = "mnist"
    config.source.batch_size, config.source.duration, config.source.evaluate_every = 128, "4 epochs", "4 epochs"
    config.batch_size, config.duration, config.evaluate_every = 50, "500 steps", "500 steps"
    config.examples, config.seeds = (100, 1000), 3
    if variant == "smoke":
        pretrain.shorten(config)
    return config
