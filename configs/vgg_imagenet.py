"""VGG's network D (VGG-16) on ImageNet, as Simonyan and Zisserman 2015 trained it: section 3.1.

Windows of 224x224 from images whose shorter side is scaled to a random length from 256 to 512, mirrored, with light
along the principal components of the colours; 74 epochs of SGD at 0.01 in batches of 256, divided by 10 three times;
dropout. Departures: the paper lowered the rate when validation stood still, here at thirds of the run; the images are
kept at 384x384 and so are a little soft at the larger scales; ten crops of 384x384 in the test, where the paper slides
the network over the image; biases have no weight decay.

Needs ImageNet: see alexnet_imagenet.py.

Command:  python launch.py --config=configs/vgg_imagenet.py
Time:     not run here; the authors' four GPUs took two to three weeks
Expected: not run here; published for network D, one scale of 384 in the test: top-1 error 25.6 %, top-5 error 8.1 %
"""

from ml_collections import ConfigDict

from cnn_jax.config import config_module


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: a small network on pieces of two photographs."""
    alexnet = config_module("alexnet_imagenet")
    config = alexnet.imagenet(variant)
    config.model.name = "vgg_d"
    config.data.size = (384, 384)
    config.data.augment = ("random_crop(size=(224, 224), sides=(256, 512))", "flip", "color_pca(std=0.1)")
    config.batch_size = 256
    config.epochs = 74
    config.optimizer.learning_rate = 0.01
    config.optimizer.weight_decay = 5e-4
    config.optimizer.drops = ("25 epochs", "45 epochs", "65 epochs")
    config.reference.accuracy = 0.744
    config.reference.source = "network D, Simonyan and Zisserman 2015, table 3; top-5 error 8.1 %"
    if variant == "smoke":
        alexnet.smoke(config, side=32, width=1 / 16)
        config.data.augment = ("random_crop(size=(32, 32), sides=(36, 64))", "flip", "color_pca(std=0.1)")
    return config
