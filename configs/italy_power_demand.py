"""The fully convolutional network of Wang et al. on ItalyPowerDemand: 67 days of power, winter or summer.

Needs the set from the UCR archive: python -m cnn_jax.data.prepare italy_power_demand

The recipe and the variant ``resnet`` are those of arrow_head.py.

Command:  python launch.py --config=configs/italy_power_demand.py
Time:     79 s on 2 CPU cores (AMD EPYC) that had other work too
Expected: test accuracy 95.89 % ± 0.15 (mean ± std over 3 seeds: --config.seed=0 to 2)
"""

from ml_collections import ConfigDict

from cnn_jax.config import config_module


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, its variant ``resnet``, or its ``smoke`` variant: two epochs of a thin network."""
    config = config_module("arrow_head").recipe(variant, fcn=0.961, resnet=0.963)
    config.data.name, config.input_shape, config.batch_size = "series:data/ItalyPowerDemand", (24, 1), 16
    return config
