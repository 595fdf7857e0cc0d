"""Three methods of segmentation on membranes of neurons: fixed filter responses, SegNet, U-Net (ISBI 2012).

The slices of ``u_net_membranes.py`` at half their resolution, 256x256, with the same split: 0 to 23 are trained on and
24 to 29 are the test set. All methods have the same loss, augmentation and number of steps. The header of
``u_net_membranes.py`` says where the data are and how to lay them out.

Command:  python launch.py --config=configs/membranes_methods.py
Time:     TODO
Expected: test IoU TODO
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant, load_config
from cnn_jax.experiments.comparison import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: two steps of smaller networks, one seed."""
    check_variant(variant, ("smoke",))
    config, single = default_config("segmentation"), load_config(f"u_net_membranes:{variant}")
    for key in ("data", "balanced", "optimizer"):
        config[key] = single[key]
    config.data.size, config.input_shape = (256, 256), (128, 128, 1)
    config.data.augment = ("affine(rotation=180, mode='mirror')", "flip", "random_crop(size=(128, 128))")
    config.batch_size, config.duration, config.evaluate_every = 8, "300 steps", "150 steps"
    config.model.width = 0.125
    config.networks = {
        "filter responses, linear": {
            "model": {"name": "voxel_classifier", "options": {"location": False}},
            "optimizer": {"learning_rate": 0.05},
        },
        "SegNet": {"model": {"name": "segnet", "options": {"stages": (2, 2, 3)}}},
        "U-Net": {"model": {"name": "u_net_padded", "options": {"depth": 3, "batch_norm": True}}},
    }
    if variant == "smoke":
        config.duration, config.evaluate_every, config.model.width = "2 steps", "2 steps", 0.0625
        config.seeds, config.shown = 1, 1
    return config
