"""A sneaker, nine boots: garments from words. A conditional DCGAN on Fashion-MNIST, the smallest text-to-image.

The words are those of the class names, encoded by Kim's network for sentences, which is trained with the generator.
LeNet-5 is trained first, in the folder classifier, and scores the images. For another run with the same classifier,
give its folder: --config.classifier=runs/.../classifier

Needs Fashion-MNIST prepared for tensorflow_datasets: python -m cnn_jax.data.prepare fashion_mnist

Command:  python launch.py --config=configs/dcgan_fashion_mnist.py
Time:     7 min of CPU time on one core (Intel Xeon), compiling and the classifier included
Expected: test accuracy 84.21 % of what was asked for, Fréchet distance 3.30 (1 seed)
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: a few steps on 400 images."""
    check_variant(variant, ("smoke",))
    config = default_config("generation")
    config.condition, config.noise_size, config.classifier = "words", 64, "lenet5_fashion_mnist"
    config.data.name, config.input_shape = "fashion_mnist", (28, 28, 1)
    config.data.train, config.data.validation = "train[:55000]", "train[55000:]"
    config.model.name, config.model.width, config.discriminator.width = "dcgan_generator", 0.5, 0.5
    config.batch_size, config.epochs = 64, 4
    config.evaluate_every, config.keep_history, config.ema_decay = "2 epochs", 6, 0.999
    config.optimizer.name, config.optimizer.learning_rate, config.optimizer.momentum = "adam", 0.0004, 0.5
    config.optimizer.schedule = "constant"
    if variant == "smoke":
        config.classifier = "lenet5_fashion_mnist:smoke"
        config.data.train, config.data.validation, config.data.test = "train[:400]", "", "test[:200]"
        config.model.width, config.discriminator.width = 0.0625, 0.0625
        config.epochs, config.evaluate_every, config.keep_history = 1, "1 epoch", 0
    return config
