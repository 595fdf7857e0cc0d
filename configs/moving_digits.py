"""Where does a digit move? Video of real digits, on which a 2-D network fails that sees one frame, and a 3-D one not.

Scikit-learn's digits move left, right, up or down through eight frames, around the edges, from a random place: each
frame alone could belong to any direction, so the 2-D network can only guess (25 %). Nothing to download.

Command:  python launch.py --config=configs/moving_digits.py
Time:     5 minutes on 2 CPU cores (AMD EPYC) that had much other work, six runs
Expected: test accuracy of the 3-D network 100.00 % ± 0.00 (mean ± std over 3 seeds); on one frame 24.67 % ± 3.38
"""

from typing import Any

import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from cnn_jax import data, models, nn
from cnn_jax.config import check_variant
from cnn_jax.experiments.baselines import default_config
from cnn_jax.models.small_cnn import small_cnn

SIDE, FRAMES = 16, 8
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}


def moving_digits(split: str, **_: Any) -> data.Dataset:
    """Each digit of a split of the data set ``digits`` in one video."""
    digits = data.load("digits", split)
    generator = np.random.default_rng(len(digits))
    labels = generator.integers(len(DIRECTIONS), size=len(digits)).astype(np.int32)
    videos = np.zeros((len(digits), FRAMES, SIDE, SIDE, 1), np.uint8)
    for video, image, label in zip(videos, digits.images, labels, strict=True):
        video[:, : image.shape[0], : image.shape[1]] = image
        place = generator.integers(SIDE, size=2)
        for number, frame in enumerate(video):
            step = number * np.array(list(DIRECTIONS.values())[label])
            frame[...] = np.roll(frame, place + step, axis=(0, 1))
    spec = {"video": "video", "label": data.Field("label", class_names=tuple(DIRECTIONS))}
    return data.Dataset("moving_digits", split, {"video": videos, "label": labels}, spec)


def one_frame(
    *, num_classes: int, input_shape: tuple[int, ...], width: float, dtype: Any, rngs: nnx.Rngs
) -> nn.Sequence:
    """The 2-D network on the middle frame."""
    network = small_cnn(num_classes=num_classes, input_shape=input_shape[1:], width=width, dtype=dtype, rngs=rngs)
    layers = {name: network.layer(name) for name in network.names}
    return nn.Sequence({"middle_frame": lambda x: x[:, x.shape[1] // 2], **layers})


ONE_FRAME = models.Variant(one_frame, (FRAMES, SIDE, SIDE, 1), len(DIRECTIONS))


def get_config(variant: str = "") -> ConfigDict:
    """The experiment, or its ``smoke`` variant: one epoch of two small networks."""
    check_variant(variant, ("smoke",))
    config = default_config()
    config.data.name, config.input_shape = f"{__file__}:moving_digits", (FRAMES, SIDE, SIDE, 1)
    config.batch_size, config.epochs, config.evaluate_every = 32, 10, "2 epochs"
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.002
    config.model.width = 0.25
    config.networks = {
        "2-D, one frame": {"model": {"name": f"{__file__}:ONE_FRAME"}},
        "3-D, all frames": {"model": {"name": "small_cnn_3d"}},
    }
    config.seeds = dict.fromkeys(config.networks, 3)
    config.methods, config.few = (), 0
    if variant == "smoke":
        config.data.train, config.data.validation, config.data.test = "train[:64]", "validation[:32]", "test[:32]"
        config.model.width, config.epochs, config.evaluate_every, config.seeds = 0.1, 1, "1 epoch", {}
    return config
