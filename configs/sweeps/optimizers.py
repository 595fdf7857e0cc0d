"""Adagrad, RMSprop, SGD and Adam at four learning rates each: "they really only differ in the effect of time".

Adagrad divides by the root of the sum of all squared gradients so far, RMSprop by that of a fading mean of them: the
same at the first step, and further apart with every other one. Adam is RMSprop with momentum and a corrected start.

Needs MNIST prepared for tensorflow_datasets: python -m cnn_jax.data.prepare mnist

Command:  python launch.py --config=configs/sweeps/optimizers.py --mode=sweep --noreports
Trials:   16: 4 optimisers x 4 learning rates
Time:     91 s on 2 CPU cores (AMD EPYC), compiling included
Expected: validation accuracy of the best rates 97.4 % (Adagrad), 97.65 % (RMSprop, Adam), 97.75 % (SGD) (one seed)
"""

from typing import Any

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """Four epochs on 10,000 digits, looked at four times an epoch; ``smoke``: one on 1,000."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.data.name = "mnist"
    config.data.train, config.data.validation, config.data.test = "train[:10000]", "train[55000:57000]", "test"
    config.data.resize = "pad"
    config.batch_size = 64
    config.epochs = 4
    config.evaluate_every = "0.25 epochs"
    config.optimizer.name = "sgd"
    config.optimizer.schedule = "constant"
    if variant == "smoke":
        config.data.train, config.data.validation, config.data.test = "train[:1000]", "train[55000:55200]", "test[:200]"
        config.epochs = 1
    return config


def get_hyper(hyper: Any) -> Any:
    """Rates a factor of three apart, around where each is at home; momentum for SGD and Adam only, as they have it."""
    rates = {
        "adagrad": (0.003, 0.01, 0.03, 0.1),
        "rmsprop": (0.0003, 0.001, 0.003, 0.01),
        "sgd": (0.01, 0.03, 0.1, 0.3),
        "adam": (0.0003, 0.001, 0.003, 0.01),
    }
    return [
        {
            "optimizer.name": name,
            "optimizer.momentum": 0.9 if name in ("sgd", "adam") else 0.0,
            "optimizer.learning_rate": rate,
        }
        for name, some in rates.items()
        for rate in some
    ]
