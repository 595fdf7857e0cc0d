"""Three 1-D convolutions on MNIST-1D: digits as signals of 40 values, generated as published. Nothing to download.

The test set is that of the published table, and nothing is chosen on it.

Command:  python launch.py --config=configs/mnist1d.py
Time:     40 s on 2 CPU cores (AMD EPYC) that had other work too
Expected: test accuracy 97.80 % ± 0.50 (mean ± std over 3 seeds: --config.seed=0 to 2)
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch on 400 signals."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.data.name, config.input_shape = "mnist1d", (40, 1)
    config.data.validation = ""
    config.model.name = "small_cnn_1d"
    config.batch_size, config.epochs, config.evaluate_every = 64, 40, "4 epochs"
    config.optimizer.name, config.optimizer.learning_rate = "adamw", 0.003
    config.optimizer.weight_decay = 0.05
    config.label_smoothing = 0.1
    config.reference.accuracy = 0.94
    config.reference.source = "CNN, from the data set's README"
    if variant == "smoke":
        config.data.train, config.data.test = "train[:400]", "test[:200]"
        config.epochs, config.evaluate_every = 1, "1 epoch"
    return config
