"""A nine, three sevens: handwritten 8x8 digits from words, by a conditional DCGAN. Nothing to download.

The words, such as seven or 7, are encoded by Kim's network for sentences, which is trained with the generator. LeNet-5
is trained first, in the folder classifier, and scores the images. With --config.condition=none there are no words.

Command:  python launch.py --config=configs/dcgan_digits.py
Time:     32 s of CPU time on one core (Intel Xeon), compiling and the classifier included
Expected: test accuracy 99.67 % ± 0.47 of what was asked for, Fréchet distance 0.292 ± 0.023 (mean ± std over 2 seeds:
          --config.seed=0 and 1)
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch of smaller networks."""
    check_variant(variant, ("smoke",))
    config = default_config("generation")
    config.condition, config.noise_size = "words", 32
    config.batch_size, config.epochs = 64, 150
    config.evaluate_every, config.keep_history = "30 epochs", 6
    config.ema_decay = 0.99
    config.optimizer.name, config.optimizer.learning_rate, config.optimizer.momentum = "adam", 0.0005, 0.5
    config.optimizer.schedule = "constant"
    if variant == "smoke":
        config.classifier = "lenet5_digits:smoke"
        config.epochs, config.evaluate_every, config.model.width, config.discriminator.width = 1, "1 epoch", 0.25, 0.25
    return config
