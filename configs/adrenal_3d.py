"""A small 3-D CNN on AdrenalMNIST3D: is the shape of an adrenal gland normal? 28x28x28 masks, 1,188 of them to learn.

Needs the set from MedMNIST: python -m cnn_jax.data.prepare adrenal_3d

Of the 298 test volumes 229 are normal: always saying so has an accuracy of 76.8 %, which is more than the published
72.1 % of a ResNet-18 with 3-D convolutions. The area under the ROC curve does not depend on that (published: 0.827).
The variant ``resnet`` has that network, of 33 million parameters, which is for a GPU; ``thin_resnet`` has an eighth of
its channels, and 4 epochs.

Command:  python launch.py --config=configs/adrenal_3d.py
Time:     5 minutes on 2 CPU cores (AMD EPYC) that had much other work
Expected: test accuracy 76.85 % (1 seed), as by always saying 'normal'; area under the ROC curve 0.853; thin_resnet, in
          3 minutes of CPU time on 1 core (Intel Xeon): 81.21 %, 0.852
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.tasks import default_config

RESNETS = {"resnet": 1.0, "thin_resnet": 0.125}  # variant -> width


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, with the network of the paper or a thinner one, or its ``smoke`` variant: one short epoch."""
    check_variant(variant, ("smoke", *RESNETS))
    config = default_config()
    config.data.name, config.input_shape = "npz:data/adrenalmnist3d.npz", (28, 28, 28, 1)
    config.data.augment = ("flip",)
    config.model.name, config.model.width = "small_cnn_3d", 0.25
    config.batch_size, config.epochs, config.evaluate_every = 32, 15, "3 epochs"
    if variant in RESNETS:
        config.model.name, config.model.width = "resnet_18_3d", RESNETS[variant]
    if variant == "thin_resnet":
        config.epochs, config.evaluate_every = 4, "1 epoch"
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.001
    config.reference.accuracy = 0.721
    config.reference.source = "ResNet-18 with 3-D convolutions, MedMNIST v2; saying 'normal' always has 76.8 %"
    if variant == "smoke":
        config.data.train, config.data.validation, config.data.test = "train[:64]", "validation[:32]", "test[:32]"
        config.model.width, config.epochs, config.evaluate_every = 0.1, 1, "1 epoch"
    return config
