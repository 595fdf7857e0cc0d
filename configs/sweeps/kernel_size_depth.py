"""One 7x7 kernel against 5x5 and 3x3, and against three 3x3: the same receptive field, fewer weights.

Needs MNIST prepared for tensorflow_datasets: python -m cnn_jax.data.prepare mnist

Command:  python launch.py --config=configs/sweeps/kernel_size_depth.py --mode=sweep --seeds=3 --noreports
Trials:   27: 3 stacks x 3 learning rates, three seeds each
Time:     76 s on 2 CPU cores (AMD EPYC), compiling included
Expected: validation accuracy of the best rates 91.2 % ± 1.1 (7x7), 93.5 % ± 1.0 (5x5, 3x3), 94.0 % ± 0.6 (three 3x3)
"""

from typing import Any

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """Three epochs on 5,000 digits; ``smoke``: one on 1,000."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.model.name = "conv_stack"
    config.model.options.kernel_sizes = (3, 3, 3)
    config.input_shape = (28, 28, 1)
    config.data.name = "mnist"
    config.data.train, config.data.validation, config.data.test = "train[:5000]", "train[55000:]", "test"
    config.data.resize = "none"
    config.batch_size = 64
    config.epochs = 3
    config.evaluate_every = "3 epochs"
    if variant == "smoke":
        config.data.train, config.data.validation, config.data.test = "train[:1000]", "train[55000:55200]", "test[:200]"
        config.epochs = 1
    return config


def get_hyper(hyper: Any) -> Any:
    """Each stack at three learning rates, since what is best for one need not be so for another."""
    return hyper.product(
        hyper.sweep("model.options.kernel_sizes", [(7,), (5, 3), (3, 3, 3)]),
        hyper.sweep("optimizer.learning_rate", [0.003, 0.01, 0.03]),
    )
