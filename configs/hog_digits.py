"""Histograms of oriented gradients and linear classifiers on 1,797 small digits, beside the pixels and LeNet-5.

The digits are those of scikit-learn, 8x8. Nothing to download.

Command:  python launch.py --config=configs/hog_digits.py
Time:     71 s of CPU time on 2 cores (Intel Xeon) that did other work, too; 54 s of it LeNet-5 with three seeds
Expected: test error: LeNet-5 0.56 % ± 0.19 (mean ± std over 3 seeds: --config.seed=0 to 2); without a seed: linear
          support vector machine 2.00 % on HOG and 3.67 % on pixels, logistic regression 2.33 % and 3.33 %
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.experiments.baselines import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one method."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.methods = (
        "logistic regression on pixels",
        "linear support vector machine on pixels",
        "logistic regression on HOG",
        "linear support vector machine on HOG",
    )
    config.hog.pixels_per_cell = 2
    config.few = 0
    config.batch_size = 32
    config.epochs = 60
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 1e-3
    config.label_smoothing = 0.1
    config.data.augment = ("affine(rotation=8, scale=(0.92, 1.08), shear=0.1, translation=0.05)",)
    config.networks = {"LeNet-5, modern": {}}
    config.seeds = {"LeNet-5, modern": 3}
    if variant == "smoke":
        config.methods = ("linear support vector machine on HOG",)
        config.networks = {}
    return config
