"""Three convolutions on Fashion-MNIST, in minutes on a CPU.

Needs Fashion-MNIST prepared for tensorflow_datasets: python -m cnn_jax.data.prepare fashion_mnist

Command:  python launch.py --config=configs/small_cnn_fashion_mnist.py
Time:     104 s on 2 CPU cores (AMD EPYC) that had other work too, reading the data and compiling included
Expected: test accuracy 93.25 % ± 0.21 (mean ± std over 3 seeds: --config.seed=0 to 2)
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch on 2,000 images."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.input_shape = (28, 28, 1)
    config.model.name = "small_cnn"
    config.data.name = "fashion_mnist"
    config.data.train, config.data.validation = "train[:55000]", "train[55000:]"
    config.data.augment = ("flip", "pad_and_crop(padding=1)")
    config.data.test_time = "mirror"
    config.batch_size = 128
    config.epochs = 10
    config.optimizer.learning_rate = 0.1
    config.optimizer.warmup = "1 epoch"
    config.optimizer.weight_decay = 5e-4
    config.label_smoothing = 0.1
    config.evaluate_every = "2 epochs"
    config.reference.accuracy = 0.934
    config.reference.source = "2 convolutions, pooling and batch normalisation, from the data set's own README"
    config.report.explain = True
    if variant == "smoke":
        config.report.explain = False
        config.data.train, config.data.validation, config.data.test = "train[:2000]", "train[55000:55500]", "test[:500]"
        config.epochs = 2
    return config
