"""Three methods on membranes of neurons (ISBI 2012): fixed filter responses and a linear classifier, SegNet, U-Net.

The slices and the split of ``u_net_membranes.py``: 0 to 23 are trained on and 24 to 29 are the test set. All methods
learn the same random parts of 128x128 pixels and are tested on whole slices. For comparison the linear classifier is
also given the value of the pixel alone. The header of ``u_net_membranes.py`` says how to lay the data out, and
``python -m cnn_jax.data.prepare membranes`` where they are.

Command:  python launch.py --config=configs/membranes_methods.py
Time:     3 minutes of CPU time on one core (AMD EPYC), twelve runs
Expected: test IoU of U-Net 75.35 % ± 0.64 (mean ± std over 3 seeds), of SegNet 72.76 % ± 1.69, of filter responses
          66.17 % ± 0.33, of the value of the pixel 54.84 % ± 0.29
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
    config.input_shape, config.data.augment = (128, 128, 1), ("flip", "random_crop(size=(128, 128))")
    config.batch_size, config.duration, config.evaluate_every = 4, "300 steps", "300 steps"
    config.model.width = single.model.width
    config.networks = load_config("segment_digits_methods").networks
    if variant == "smoke":
        config.duration, config.evaluate_every = "2 steps", "2 steps"
        config.seeds, config.shown = 1, 1
    return config
