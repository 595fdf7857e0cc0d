"""LeNet-5 on Fashion-MNIST, trained as on MNIST: a second data set costs a few lines.

Needs Fashion-MNIST prepared for tensorflow_datasets: python -m cnn_jax.data.prepare fashion_mnist

Command:  python launch.py --config=configs/lenet5_fashion_mnist.py
Time:     44 s on 2 CPU cores (AMD EPYC), reading the data and compiling included
Expected: test accuracy 91.27 % ± 0.09 (mean ± std over 3 seeds: --config.seed=0 to 2)
"""

from ml_collections import ConfigDict

from cnn_jax.config import load_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch on 2,000 images."""
    config = load_config(f"lenet5_mnist:{variant}")
    config.data.name = "fashion_mnist"
    config.reference.accuracy = 0.916
    config.reference.source = "2 convolutions and pooling, from the data set's own README"
    return config
