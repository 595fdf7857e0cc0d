"""Three methods of segmentation on one split: fixed filter responses and a linear classifier, SegNet, U-Net.

The voxel classifier is a logistic regression on Gaussians, derivatives, Laplacians and their maxima around each pixel,
which is how tumours were segmented before networks learned the features. For comparison it is also given the value of
the pixel alone. The data are those of ``segment_digits.py``: handwriting on photographs. Nothing to download.

Command:  python launch.py --config=configs/segment_digits_methods.py
Time:     10 minutes on one core (AMD EPYC) that had much other work, twelve runs
Expected: test IoU of U-Net 90.57 % ± 1.05 (mean ± std over 3 seeds), of SegNet 81.51 % ± 2.39, of filter responses
          55.46 % ± 0.61, of the value of the pixel 46.62 % ± 0.00, which finds no ink at all
"""

from ml_collections import ConfigDict

from cnn_jax.config import check_variant, load_config
from cnn_jax.experiments.comparison import default_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch of smaller networks, one seed."""
    check_variant(variant, ("smoke",))
    config, single = default_config("segmentation"), load_config(f"segment_digits:{variant}")
    for key in ("data", "input_shape", "loss", "batch_size", "epochs", "optimizer"):
        config[key] = single[key]
    config.model.width = single.model.width
    config.networks = {
        "value of the pixel, linear": {
            "model": {"name": "voxel_classifier", "options": {"location": False, "sigmas": ()}},
            "optimizer": {"learning_rate": 0.05},
        },
        "filter responses, linear": {
            "model": {"name": "voxel_classifier", "options": {"location": False}},
            "optimizer": {"learning_rate": 0.05},
        },
        "SegNet": {"model": {"name": "segnet", "options": {"stages": (2, 2, 3)}}},
        "U-Net": {"model": {"name": "u_net_padded", "options": {"depth": 3, "batch_norm": True}}},
    }
    if variant == "smoke":
        config.seeds, config.shown = 1, 1
    return config
