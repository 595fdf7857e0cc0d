"""A convolutional autoencoder of 1,797 small digits with two numbers per image. Nothing to download.

The report has the map of these two numbers, coloured by class, and the digits that are decoded from a grid over it.

Command:  python launch.py --config=configs/autoencoder_digits.py
Time:     15 to 33 s of CPU time on cores that did other work, too
Expected: test root mean square error, of white: 19.19 % ± 0.04 (mean ± std over 3 seeds: --config.seed=0 to 2)
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: two epochs."""
    check_variant(variant, ("smoke",))
    config = default_config("autoencoder")
    config.input_shape = (8, 8, 1)
    config.model.name, config.model.width = "conv_autoencoder", 0.5
    config.model.options = {"latent_size": 2}
    config.batch_size = 32
    config.epochs = 150
    config.evaluate_every = "10 epochs"
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.003
    if variant == "smoke":
        config.epochs = 2
        config.evaluate_every = "1 epoch"
    return config
