"""A denoising convolutional autoencoder of MNIST with 32 numbers per image; variant ``map``: two numbers, no noise.

Needs MNIST prepared for tensorflow_datasets: python -m cnn_jax.data.prepare mnist

Command:  python launch.py --config=configs/autoencoder_mnist.py
Time:     34 min on 2 CPU cores (Intel Xeon) shared with a dozen other programs, about 4 min of CPU time
Expected: test root mean square error of pixels from 0 to 1, without noise: 0.0795, or 7.95 % of white (1 seed)
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, with two numbers and without noise (``map``), or its ``smoke`` variant: 2,000 digits."""
    check_variant(variant, ("map", "smoke"))
    config = default_config("autoencoder")
    config.input_shape = (28, 28, 1)
    config.data.name = "mnist"
    config.data.train, config.data.validation = "train[:55000]", "train[55000:]"
    config.model.name, config.model.width = "conv_autoencoder", 0.5
    config.model.options = {"latent_size": 2} if variant == "map" else {"latent_size": 32, "noise": 0.5}
    config.batch_size = 128
    config.epochs = 8
    config.evaluate_every = "2 epochs"
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.002
    if variant == "smoke":
        config.data.train, config.data.validation, config.data.test = "train[:2000]", "train[55000:55500]", "test[:500]"
        config.epochs = 1
        config.evaluate_every = "1 epoch"
    return config
