"""Learning rate and batch size of LeNet-5 on MNIST: the valley in which both grow together.

Needs MNIST prepared for tensorflow_datasets: python -m cnn_jax.data.prepare mnist

Command:  python launch.py --config=configs/sweeps/learning_rate_batch_size.py --mode=sweep --noreports
Trials:   30: 6 learning rates x 5 batch sizes
Time:     47 s on 2 CPU cores (AMD EPYC), compiling included
Expected: validation accuracy 97.1 % at rate 0.1 and batch 64; 96.9 % at 0.01 and 16; 95.5 % at 0.3 and 256 (one seed)
"""

from typing import Any

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """Two epochs on 10,000 digits; ``smoke``: one on 1,000."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.data.name = "mnist"
    config.data.train, config.data.validation, config.data.test = "train[:10000]", "train[55000:]", "test"
    config.data.resize = "pad"
    config.epochs = 2
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.schedule = "constant"
    config.evaluate_every = "2 epochs"
    if variant == "smoke":
        config.data.train, config.data.validation, config.data.test = "train[:1000]", "train[55000:55200]", "test[:200]"
        config.epochs = 1
    return config


def get_hyper(hyper: Any) -> Any:
    """Every pair."""
    return hyper.product(
        hyper.sweep("optimizer.learning_rate", [0.001, 0.003, 0.01, 0.03, 0.1, 0.3]),
        hyper.sweep("batch_size", [16, 32, 64, 128, 256]),
    )
