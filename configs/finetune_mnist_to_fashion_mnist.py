"""Features of digits, used for clothes: LeNet-5 learns MNIST, then only its output layer learns Fashion-MNIST.

From 10, 100 and 1,000 examples of Fashion-MNIST, against training the whole network on the same examples.

Needs both prepared for tensorflow_datasets: python -m cnn_jax.data.prepare mnist fashion_mnist

Command:  python launch.py --config=configs/finetune_mnist_to_fashion_mnist.py
Time:     6 minutes on 2 CPU cores (AMD EPYC) that had other work too, 19 runs
Expected: with 1,000 examples, kept 73.49 % ± 0.52 and scratch 81.39 % ± 0.29 (mean ± std over 3 seeds, in one command)
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.experiments.finetune import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: fewer examples, one seed, short runs."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.data.name = "fashion_mnist"
    config.data.validation = ""
    config.data.resize = "pad"
    config.batch_size = 100
    config.duration = "1000 steps"
    config.evaluate_every = "1000 steps"
    config.steps_per_call = 500
    if variant == "smoke":
        config.examples = (100,)
        config.seeds = 1
        config.duration = config.evaluate_every = "20 steps"
        config.data.train, config.data.test = "train[:5000]", "test[:1000]"
        config.source.train, config.source.test = "train[:2000]", "test[:1000]"
        config.source.duration = "1 epoch"
    return config
