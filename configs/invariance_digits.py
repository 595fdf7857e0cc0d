"""How well small networks recognise shifted, turned, scaled, darker and partly covered digits. Nothing to download.

Trained without and with distorted digits; without them, but with a loss that makes the outputs for a digit and for its
rotation alike; and with average pools and with no pools. To measure a finished run instead: --config.run=FOLDER

Command:  python launch.py --config=configs/invariance_digits.py
Time:     60 s of CPU time on 1 core (Intel Xeon) that did other work, too
Expected: test accuracy of max pools 99.33 %, augmented 98.33 %, rotated pairs 98.33 %, no pools 98.00 % (1 seed),
          average pools 97.67 %; as means over the strengths of shift, rotation, scale, brightness and occlusion:
          max pools 65.8, 61.1, 72.8, 72.9, 93.6 %; augmented 95.3, 77.0, 92.2, 95.4, 88.1 %;
          rotated pairs 66.2, 96.6, 63.8, 73.4, 91.7 %; average pools 61.2, 56.1, 69.6, 88.1, 89.1 %;
          no pools 59.7, 55.6, 72.3, 85.2, 91.5 %
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant
from cnn_jax.experiments.invariance import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one network, two epochs and one change."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.input_shape = (16, 16, 1)
    config.model.name, config.model.width = "small_cnn", 0.5
    config.batch_size = 32
    config.epochs = 20
    config.evaluate_every = "5 epochs"
    config.optimizer.learning_rate = 0.05
    config.optimizer.weight_decay = 1e-3
    augment = ("affine(rotation=30, scale=(0.7, 1.3), translation=0.15)", "brightness(strength=0.5)", "cutout(size=2)")
    config.networks = {
        "max pools": {},
        "max pools, augmented": {"data": {"augment": augment}, "epochs": 60},
        "max pools, rotated pairs": {"rotated_pairs": {"weight": 0.1, "rotation": 90.0}},
        "average pools": {"model": {"options": {"pool": "average"}}},
        "no pools": {"model": {"options": {"pool": "stride"}}},
    }
    if variant == "smoke":
        config.epochs = 2
        config.evaluate_every = "2 epochs"
        config.networks = {}
        config.changes = {"shift": (), "rotation": (0.0, 45.0), "scale": (), "brightness": (), "occlusion": ()}
    return config
