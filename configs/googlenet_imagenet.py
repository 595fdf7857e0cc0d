"""GoogLeNet on ImageNet, after Szegedy et al. 2015: section 6.

Windows of 8 to 100 % of the image and aspects from 3/4 to 4/3, brought to 224x224 and mirrored, with changes of
brightness, contrast and saturation (Howard 2013); SGD at a rate that falls by 4 % every 8 epochs; both auxiliary heads
with weight 0.3; the moving average of the weights is what is tested, on ten crops. What the paper does not say is as in
Caffe's version: batches of 32, the rate 0.01, weight decay 2e-4, 60 epochs. Departures: one interpolation of the
windows, not a random one; the paper's own best numbers are of 144 crops and seven networks.

Needs ImageNet: see alexnet_imagenet.py.

Command:  python launch.py --config=configs/googlenet_imagenet.py
Time:     not run here; the authors estimate a week on a few GPUs
Expected: not run here; published for one network and ten crops: top-5 error 9.15 %; top-1 is not published
"""

from ml_collections import ConfigDict

from cnn_jax.config import config_module

LIGHT = ("brightness(strength=0.4)", "contrast(strength=0.4)", "saturation(strength=0.4)")


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: a small network on pieces of two photographs."""
    alexnet = config_module("alexnet_imagenet")
    config = alexnet.imagenet(variant)
    config.model.name = "googlenet"
    config.auxiliary_weight = 0.3
    config.data.augment = ("random_resized_crop(size=(224, 224))", "flip", *LIGHT)
    config.batch_size = 32
    config.epochs = 60
    config.ema_decay = 0.9999
    config.optimizer.learning_rate = 0.01
    config.optimizer.weight_decay = 2e-4
    config.optimizer.drops = tuple(f"{epoch} epochs" for epoch in range(8, 60, 8))
    config.optimizer.drop_factor = 0.96
    config.reference.source = "top-5 error 9.15 %: one network, ten crops, Szegedy et al. 2015, table 3"
    if variant == "smoke":
        alexnet.smoke(config, side=80, width=1 / 16)
        config.data.augment = ("random_resized_crop(size=(80, 80))", "flip", *LIGHT)
    return config
