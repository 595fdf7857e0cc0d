"""How well small networks recognise shifted, turned, scaled, darker and partly covered digits. Nothing to download.

Trained without and with distorted digits; without them, but with a loss that makes the outputs for a digit and for its
rotation alike; and with average pools and with no pools. To measure a finished run instead: --config.run=FOLDER

Command:  python launch.py --config=configs/invariance_digits.py
Time:     33 to 60 s of CPU time on 1 core that did other work, too
Expected: test accuracy of max pools 99.22 % ± 0.19 (mean ± std over 3 seeds: --config.seed=0 to 2), augmented 98.78 %
          ± 0.38, rotated pairs 98.78 % ± 0.38, average pools 97.78 % ± 0.19, no pools 98.44 % ± 0.38; as means over
          the strengths of shift, rotation, scale, brightness and occlusion: max pools 66.7, 59.0, 71.7, 74.5, 93.2 %;
          augmented 95.1, 77.2, 91.5, 95.6, 88.0 %; rotated pairs 64.5, 96.2, 63.5, 73.9, 91.9 %; average pools 61.7,
          56.5, 70.4, 81.9, 89.3 %; no pools 60.7, 56.4, 71.3, 86.9, 92.0 %
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
