"""LeNet-5 on MNIST without distortions of the training digits, as in the comparison of 1998.

Needs MNIST prepared for tensorflow_datasets: python -m cnn_jax.data.prepare mnist

Command:  python launch.py --config=configs/lenet5_mnist.py
Time:     47 s on 2 CPU cores (AMD EPYC), reading the data and compiling included
Expected: test accuracy 99.22 % ± 0.03 (mean ± std over 3 seeds: --config.seed=0 to 2), error 0.78 %; in 1998 0.95 %
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch on 2,000 digits."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.data.name = "mnist"
    config.data.train, config.data.validation = "train[:55000]", "train[55000:]"
    config.data.resize = "pad"  # 28x28 in a frame of background, as the paper has it
    config.batch_size = 64
    config.epochs = 12
    config.optimizer.learning_rate = 0.05
    config.optimizer.weight_decay = 5e-4
    config.reference.accuracy = 0.9905
    config.reference.source = "LeNet-5, LeCun et al. 1998"
    config.report.explain = True
    if variant == "smoke":
        config.report.explain = False
        config.data.train, config.data.validation, config.data.test = "train[:2000]", "train[55000:55500]", "test[:500]"
        config.epochs = 1
    return config
