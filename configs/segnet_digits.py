"""Where is handwriting on a photograph? A small SegNet, which unpools with the positions of the maxima.

The data, the loss and the number of steps are those of ``segment_digits.py``. The network has the first three stages of
SegNet and an eighth of its channels. Nothing to download.

Command:  python launch.py --config=configs/segnet_digits.py
Time:     108 s on one core (AMD EPYC) that had other work too, compiling included
Expected: test IoU 81.51 % ± 2.39, Dice 89.00 % ± 1.69, pixel accuracy 97.02 % ± 0.54 (mean ± std over 3 seeds)
"""

from ml_collections import ConfigDict

from cnn_jax.config import load_config


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch of a smaller network."""
    config = load_config(f"segment_digits:{variant}")
    config.model.name, config.model.options = "segnet", {"stages": (2, 2, 3)}
    return config
