"""The experiment of 1989: LeNet on 16x16 digits, 7,291 to learn from, 2,007 to be tested on, 23 passes one by one.

The zip codes of 1989 are not public; these are the first so many digits of MNIST's two sets, brought to 16x16.

Needs MNIST prepared for tensorflow_datasets: python -m cnn_jax.data.prepare mnist

Command:  python launch.py --config=configs/lenet_1989.py
Time:     80 s on 2 CPU cores (AMD EPYC) that had other work too, reading the data and compiling included
Expected: test accuracy 95.68 % ± 0.78 (mean ± std over 3 seeds: --config.seed=0 to 2)
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch on 500 images."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.input_shape = (16, 16, 1)
    config.model.name = "lenet_1989"
    config.data.name = "mnist"
    config.data.train = "train[:7291]"
    config.data.validation = ""
    config.data.test = "test[:2007]"
    config.data.pixel_range = (-1.0, 1.0)
    config.loss = "squared_error"
    config.batch_size = 1
    config.epochs = 23
    config.steps_per_call = 7291  # an epoch in one compiled call: a step takes far less time than a call's overhead
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.03
    config.optimizer.momentum = 0.0
    config.optimizer.schedule = "constant"
    config.reference.accuracy = 0.95
    config.reference.source = "5.0 % error on zip codes, LeCun et al. 1989"
    if variant == "smoke":
        config.epochs = 1
        config.data.train = "train[:500]"
        config.data.test = "test[:500]"
    return config
