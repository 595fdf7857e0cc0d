"""Which of three classes has each moment of a signal? Maxima of convolutions against a small 1-D CNN.

The signal is that of lecture 003: class 2 has smaller values than the others, and classes 1 and 3 have values of the
same range, but those of class 3 are more spiky. The value alone tells class 2 apart. The maximum of Laplacian of
Gaussian responses over each value and its 16 neighbours tells class 1 from 3, too, by a linear classifier. A CNN learns
its own filters. Nothing to download: the signal is generated, and each of its moments is an example, with the window
around it.

Command:  python launch.py --config=configs/signal_classes.py
Time:     119 s on 2 CPU cores (AMD EPYC) that had other work too, twelve runs
Expected: test accuracy of the CNN 97.76 % ± 0.10 (mean ± std over 3 seeds), of the maxima of
          filters 87.56 % ± 0.05, of the window 75.12 % ± 0.03, of the value 73.77 % ± 0.07
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from scipy.ndimage import gaussian_filter1d

from cnn_jax import data, filters, models, nn, ops
from cnn_jax.config import check_variant
from cnn_jax.experiments.baselines import default_config

RADIUS = 24  # of the window around a moment
NEIGHBOURS = 8  # on each side, over which the maximum is taken
SIGMAS = (1.0, 2.0, 4.0)
LENGTHS = {"train": 8000, "test": 4000}  # of the signals
CLASSES = ("1", "2", "3")


def signal_of(length: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A signal and the class of each of its values, 0 to 2, which changes every 60 to 180 values."""
    generator = np.random.default_rng(seed)
    labels: list[int] = []
    while len(labels) < length:
        others = [one for one in range(3) if not labels or one != labels[-1]]
        labels += [int(generator.choice(others))] * int(generator.integers(60, 181))
    classes = np.array(labels[:length], np.int32)
    smooth = gaussian_filter1d(generator.standard_normal(length), 6)
    spikes = generator.standard_normal(length) * (generator.random(length) < 0.3)
    noise = [wave / wave.std() for wave in (smooth, 0.5 * spikes / spikes.std() + smooth / smooth.std())]
    values = np.choose(classes, [2 + 0.5 * noise[0], 0.5 * noise[0], 2 + 0.5 * noise[1]])
    return (values + 0.05 * generator.standard_normal(length)).astype(np.float32), classes


def moments(split: str, **_: Any) -> data.Dataset:
    """Each value of the training or the test signal with its neighbours; beyond the ends the signal is mirrored."""
    length = LENGTHS[split]
    values, classes = signal_of(length, seed=length)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, RADIUS, mode="reflect"), 2 * RADIUS + 1)
    spec = {"signal": "signal", "label": data.Field("label", class_names=CLASSES)}
    return data.Dataset("moments", split, {"signal": windows[..., None].copy(), "label": classes}, spec)


def value_alone(
    *, num_classes: int, input_shape: tuple[int, ...], width: float, dtype: Any, rngs: nnx.Rngs
) -> nn.Sequence:
    """A linear classifier of the value in the middle."""
    output = nn.Linear(input_shape[-1], num_classes, dtype=dtype, rngs=rngs)
    return nn.Sequence({"middle": lambda x: x[:, x.shape[1] // 2], "output": output})


def maxima_of_filters(
    *, num_classes: int, input_shape: tuple[int, ...], width: float, dtype: Any, rngs: nnx.Rngs
) -> nn.Sequence:
    """A linear classifier of the value and of the maxima of Laplacian of Gaussian responses of three widths."""

    def features(x: Any) -> Any:
        middle = x.shape[1] // 2
        near = slice(middle - NEIGHBOURS, middle + NEIGHBOURS + 1)
        responses = [filters.apply(x, -filters.laplacian_of_gaussian(sigma, rank=1)) for sigma in SIGMAS]
        return jnp.concatenate([x[:, middle], *(ops.global_max_pool(one[:, near]) for one in responses)], axis=-1)

    output = nn.Linear(1 + len(SIGMAS), num_classes, dtype=dtype, rngs=rngs)
    return nn.Sequence({"features": features, "norm": nn.BatchNorm(1 + len(SIGMAS), rngs=rngs), "output": output})


def window(*, num_classes: int, input_shape: tuple[int, ...], width: float, dtype: Any, rngs: nnx.Rngs) -> nn.Sequence:
    """A linear classifier of all values of the window."""
    output = nn.Linear(input_shape[0] * input_shape[1], num_classes, dtype=dtype, rngs=rngs)
    return nn.Sequence({"flatten": nn.Flatten(input_shape), "output": output})


VALUE_ALONE = models.Variant(value_alone, (2 * RADIUS + 1, 1), 3)
WINDOW = models.Variant(window, (2 * RADIUS + 1, 1), 3)
MAXIMA_OF_FILTERS = models.Variant(maxima_of_filters, (2 * RADIUS + 1, 1), 3)


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch of the two linear classifiers."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.data.name, config.data.validation = f"{__file__}:moments", ""
    config.input_shape = (2 * RADIUS + 1, 1)
    config.batch_size, config.epochs, config.evaluate_every = 128, 8, "2 epochs"
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.003
    linear = {"optimizer": {"learning_rate": 0.05}}  # whose weights have a longer way to go
    config.networks = {
        "the value, linear": {"model": {"name": f"{__file__}:VALUE_ALONE"}, **linear},
        "the window, linear": {"model": {"name": f"{__file__}:WINDOW"}, **linear},
        "maxima of filters, linear": {"model": {"name": f"{__file__}:MAXIMA_OF_FILTERS"}, **linear},
        "1-D CNN": {"model": {"name": "small_cnn_1d", "width": 0.5}},
    }
    config.seeds = dict.fromkeys(config.networks, 3)
    config.methods, config.few = (), 0
    if variant == "smoke":
        config.networks = {
            title: config.networks[title] for title in ("the value, linear", "maxima of filters, linear")
        }
        config.seeds, config.epochs, config.evaluate_every = {}, 1, "1 epoch"
    return config
