"""How well small networks recognise shifted, turned, scaled, darker and partly covered digits. Nothing to download.

Trained without and with distorted digits, and without them with average pools and with no pools. To measure a finished
run instead: --config.run=FOLDER

Command:  python launch.py --config=configs/invariance_digits.py
Time:     104 s of CPU time on 2 cores (Intel Xeon) that did other work, too
Expected: test accuracy of max pools 99.33 %, augmented 98.33 %, average pools 97.67 %, no pools 98.67 % (1 seed);
          as means over the strengths of shift, rotation, scale, brightness, occlusion in this order:
          max pools 65.0, 60.6, 70.4, 71.7, 92.4 %; augmented 94.8, 77.1, 91.3, 94.9, 86.3 %;
          average pools 60.9, 56.1, 70.5, 86.6, 89.3 %; no pools 59.9, 55.4, 72.0, 85.2, 91.9 %
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
