"""The fully convolutional network of Wang et al. on ArrowHead: outlines of 36 projectile points, in three classes.

Needs the set from the UCR archive: python -m cnn_jax.data.prepare arrow_head

The variant ``resnet`` has the residual network of the same paper. Both recipes differ from the paper's, which has 2,000
(1,500) epochs and takes the weights with the smallest training loss.

Command:  python launch.py --config=configs/arrow_head.py
Time:     7 minutes on 2 CPU cores (AMD EPYC) that had much other work
Expected: test accuracy 81.34 % ± 1.65 (mean ± std over 3 seeds: --config.seed=0 to 2)
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, its variant ``resnet``, or its ``smoke`` variant: two epochs of a thin network."""
    config = recipe(variant, fcn=0.843, resnet=0.845)
    config.data.name, config.input_shape, config.batch_size = "series:data/ArrowHead", (251, 1), 12
    return config


def recipe(variant: str, *, fcn: float, resnet: float) -> ConfigDict:
    """What is the same for the sets of the archive. The numbers are the published accuracies of the two networks."""
    check_variant(variant, ("smoke", "resnet"))
    config = default_config()
    config.data.validation = ""
    config.model.name = "resnet_series" if variant == "resnet" else "fcn_series"
    config.epochs, config.evaluate_every = 300, "50 epochs"
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.001
    config.reference.accuracy = resnet if variant == "resnet" else fcn
    # "Deep learning for time series classification: a review"
    config.reference.source = "Fawaz et al. 2019, mean of 10 runs"
    if variant == "smoke":
        config.model.width, config.epochs, config.evaluate_every = 0.1, 2, "1 epoch"
    return config
