"""Kim's CNN-rand on MR: is a sentence of a film review positive or negative?

Needs the sentence polarity set: python -m cnn_jax.data.prepare sentences_mr

The paper reports ten-fold cross-validation, with early stopping on a tenth of each training set. The variants ``fold0``
to ``fold9`` hold out the tenths in turn; by default it is the first one. Training takes five epochs and nothing is
chosen. The vocabulary is that of the training set, and other words of the test set share one vector, where the paper
has a random one for each.

Command:  python launch.py --config=configs/sentences_mr.py
Time:     8 minutes on 2 CPU cores (AMD EPYC) that had much other work
Expected: test accuracy of the first two folds 76.76 % and 76.53 % (1 seed)
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config

FOLDS = 10
SMOKE = "smoke"


def get_config(variant: str = "") -> ConfigDict:
    """The experiment on one fold, or its ``smoke`` variant: a small network for a few steps."""
    check_variant(variant, (SMOKE, *(f"fold{fold}" for fold in range(FOLDS))))
    config = kim_config("text:data/sent-conv-torch/data/raw/rt-polarity.{label}", length=60, vocabulary=20_000)
    use_fold(config, int(variant.removeprefix("fold")) if variant.startswith("fold") else 0)
    config.reference.accuracy, config.reference.source = 0.761, "CNN-rand, Kim 2014, ten-fold"
    return smoke(config) if variant == SMOKE else config


def kim_config(name: str, *, length: int, vocabulary: int) -> ConfigDict:
    """The recipe of the paper, but for Adadelta and early stopping.

    Args:
      name: Of the data set.
      length: The number of words that sentences are padded or cut to.
      vocabulary: At least the number of words in the training set.
    """
    config = default_config()
    config.data.name, config.input_shape, config.data.validation = name, (length,), ""
    config.model.name, config.model.options = "text_cnn", {"vocabulary_size": vocabulary}
    config.batch_size, config.epochs, config.evaluate_every = 50, 5, "1 epoch"
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.001
    config.optimizer.max_norms = (("output/kernel", 3.0),)
    return config


def use_fold(config: ConfigDict, fold: int) -> None:
    """Holds out a tenth of a set without a split of its own, whose parts are in a mixed order."""
    first, last = 10 * fold, 10 * fold + 10
    parts = ("train", "validation", "test")
    config.data.test = "+".join(f"{part}[{first}%:{last}%]" for part in parts)
    before = [f"{part}[:{first}%]" for part in parts if first]
    behind = [f"{part}[{last}%:]" for part in parts if last < 100]
    config.data.train = "+".join(before + behind)


def smoke(config: ConfigDict) -> ConfigDict:
    """A few steps of a small network."""
    config.duration, config.evaluate_every = "4 steps", "2 steps"
    config.model.options = {**config.model.options, "features": 8}
    config.model.width = 0.1
    return config
