"""Histograms of oriented gradients under linear classifiers and a support vector machine on Fashion-MNIST.

Beside them the raw pixels and a small network, on all 60,000 training and 10,000 test images. The published 92.6 % are
of "HOG+SVM" in the data set's README, which gives neither the sizes of cells and blocks nor the kind of the SVM.

Needs Fashion-MNIST prepared for tensorflow_datasets: python -m cnn_jax.data.prepare fashion_mnist

Command:  python launch.py --config=configs/hog_fashion_mnist.py
Time:     35 min on 2 CPU cores (Intel Xeon) shared with a dozen other programs, without the network
Expected: test error: small network 6.75 % ± 0.21 (mean ± std over 3 seeds, of small_cnn_fashion_mnist.py, same recipe);
          without a seed: on HOG support vector machine 7.86 %, linear 9.71 %, logistic regression 10.40 %; on pixels
          support vector machine 10.75 %, logistic regression 15.58 %
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.experiments.baselines import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one method on 2,000 images."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.input_shape = (28, 28, 1)
    config.data.name = "fashion_mnist"
    config.data.validation = ""
    config.methods = (
        "logistic regression on pixels",
        "support vector machine on 50 components",
        "logistic regression on HOG",
        "linear support vector machine on HOG",
        "support vector machine on 100 components of HOG",
    )
    config.few = 0
    # The network's recipe is that of small_cnn_fashion_mnist.py.
    config.batch_size = 128
    config.epochs = 10
    config.optimizer.learning_rate = 0.1
    config.optimizer.warmup = "1 epoch"
    config.optimizer.weight_decay = 5e-4
    config.label_smoothing = 0.1
    config.evaluate_every = "2 epochs"
    augmented = {"augment": ("flip", "pad_and_crop(padding=1)"), "test_time": "mirror"}
    config.networks = {"small network": {"model": {"name": "small_cnn"}, "data": augmented}}
    config.published = {
        "support vector machine on 100 components of HOG": 0.074,
        "small network": 0.066,  # 2 convolutions, pooling and batch normalisation, from the same README
    }
    if variant == "smoke":
        config.data.train, config.data.test = "train[:2000]", "test[:500]"
        config.methods = ("linear support vector machine on HOG",)
        config.networks = {}
    return config
