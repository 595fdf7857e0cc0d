"""AlexNet on ImageNet, as Krizhevsky, Sutskever and Hinton 2012 trained it: section 5.

Pictures of 256x256 (the middle of the shorter side scaled to 256), windows of 227x227 from random places and mirrored,
light along the principal components of the colours; 90 epochs of SGD at 0.01, divided by 10 three times; dropout; ten
crops in the test. Departures: the paper lowered the rate when validation stood still, here after 30, 60 and 80 epochs;
biases have no weight decay. ``--config.ensemble=5`` averages five networks, as the paper did (38.1 % and 16.4 %).

Needs ImageNet: by hand, as tensorflow_datasets says of imagenet2012; or folders of images, train and val, one
subfolder a class: --config.data.name=folder:/data/imagenet --config.data.test=validation

Command:  python launch.py --config=configs/alexnet_imagenet.py
Time:     not run here; 1.2 million images, 90 times, are days for a GPU
Expected: not run here; published for one network on the validation set: top-1 error 40.7 %, top-5 error 18.2 %
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: a small network on pieces of two photographs."""
    config = imagenet(variant)
    config.input_shape = (227, 227, 3)
    config.model.name = "alexnet"
    config.data.augment = ("random_crop(size=(227, 227))", "flip", "color_pca(std=0.1)")
    config.batch_size = 128
    config.epochs = 90
    config.optimizer.learning_rate = 0.01
    config.optimizer.weight_decay = 5e-4
    config.optimizer.drops = ("30 epochs", "60 epochs", "80 epochs")
    config.reference.accuracy = 0.593
    config.reference.source = "one network, Krizhevsky et al. 2012, table 2; top-5 error 18.2 %"
    if variant == "smoke":
        smoke(config, side=67, width=1 / 16)
        config.data.augment = ("random_crop(size=(67, 67))", "flip", "color_pca(std=0.1)")
    return config


def imagenet(variant: str) -> ConfigDict:
    """What the experiments with ImageNet have in common: images read as 256x256, top-5, ten crops, SGD with steps."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.input_shape = (224, 224, 3)
    config.data.name = "imagenet2012"
    config.data.validation, config.data.test = "", "validation"  # as in the papers: the test set is not public
    config.data.size = (256, 256)
    config.data.test_time = "ten_crop"
    config.top_k = 5
    config.optimizer.name = "sgd"
    config.optimizer.schedule = "step"
    config.evaluate_every = "5 epochs"
    return config


def smoke(config: ConfigDict, *, side: int, width: float) -> None:
    """Makes a few steps with small images and a narrow network of an experiment, all else as it is."""
    config.input_shape = (side, side, 3)
    config.model.width = width
    config.data.name = "photographs"
    config.data.test = "test"
    config.data.size = (side + 8, side + 8)
    config.batch_size = 16
    config.duration = config.evaluate_every = "4 steps"
    config.optimizer.drops = ("2 steps", "3 steps")
