"""ResNet-20 on CIFAR-10, as He et al. 2016 trained it: section 4.2, table 6.

64,000 steps of 128 on 45,000 images, the rate divided by 10 after 32,000 and 48,000; padded by 4, cropped, mirrored.
Departures: colours are normalised by channel, not by pixel; biases and norms have no weight decay.

Needs CIFAR-10 prepared for tensorflow_datasets: python -m cnn_jax.data.prepare cifar10

Command:  python launch.py --config=configs/resnet20_cifar10.py
Time:     not run here: 64,000 steps are for a GPU
Expected: not run here; published 91.25 % test accuracy, 8.75 % error
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: a quarter of the width, one epoch on 400 images."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.input_shape = (32, 32, 3)
    config.model.name = "resnet_20"
    config.data.name = "cifar10"
    config.data.train, config.data.validation = "train[:45000]", "train[45000:]"
    config.data.augment = ("pad_and_crop(padding=4)", "flip")
    config.batch_size = 128
    config.duration = "64_000 steps"
    config.evaluate_every = "5 epochs"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.optimizer.schedule = "step"
    config.optimizer.drops = ("32_000 steps", "48_000 steps")
    config.reference.accuracy = 0.9125
    config.reference.source = "ResNet-20, He et al. 2016, table 6"
    if variant == "smoke":
        config.data.train, config.data.validation, config.data.test = "train[:400]", "", "test[:100]"
        config.model.width = 0.25
        config.batch_size, config.duration, config.evaluate_every = 100, "1 epoch", "1 epoch"
        config.optimizer.drops = ("2 steps", "3 steps")
    return config
