"""The nearest training images of MNIST's test digits, by pixels and by the features of LeNet-5's last hidden layer.

Needs MNIST prepared for tensorflow_datasets: python -m cnn_jax.data.prepare mnist

Command:  python launch.py --config=configs/nearest_neighbors_mnist.py
Time:     72 s on 2 CPU cores (Intel Xeon), training included
Expected: of 2,000 test digits by pixels 97.50 %, by features 99.30 %, by the network itself 99.26 % (1 seed)
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.experiments.nearest_neighbors import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch on 2,000 digits."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.data.name = "mnist"
    config.data.train, config.data.validation = "train[:55000]", "train[55000:]"
    config.data.resize = "pad"
    config.batch_size = 64
    config.epochs = 12
    config.optimizer.learning_rate = 0.05
    config.optimizer.weight_decay = 5e-4
    if variant == "smoke":
        config.data.train, config.data.validation, config.data.test = "train[:2000]", "train[55000:55500]", "test[:500]"
        config.epochs = 1
        config.queries = 100
    return config
