"""Features of the digits 0 to 4, used for the digits 5 to 9: LeNet-5 learns one half, its output layer the other.

From 10, 100 and 1,000 examples of the second half, against training the whole network on the same examples.

Needs MNIST prepared for tensorflow_datasets: python -m cnn_jax.data.prepare mnist

Command:  python launch.py --config=configs/finetune_mnist_halves.py
Time:     12 minutes on 2 CPU cores (AMD EPYC) that had other work too, 19 runs
Expected: with 1,000 examples, kept 94.60 % ± 0.42 and scratch 96.51 % ± 0.03 (mean ± std over 3 seeds, in one command)
"""

from ml_collections import ConfigDict

from cnn_jax.config import load_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: fewer examples, one seed, short runs."""
    config = load_config(f"finetune_mnist_to_fashion_mnist:{variant}")
    config.data.name = "mnist"
    config.source.classes = (0, 1, 2, 3, 4)
    config.data.classes = (5, 6, 7, 8, 9)
    return config
