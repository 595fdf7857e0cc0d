"""ZFNet: AlexNet with a smaller and denser first convolution.

Zeiler & Fergus, "Visualizing and understanding convolutional networks", ECCV 2014. The paper's feature maps of 55x55
and 13x13 result from pools that include partial windows at the edges. The paper does not give the constants of its
contrast normalisation; AlexNet's are used here.
"""

from functools import partial
from typing import Any

from cnn_jax.models import initializers
from cnn_jax.models.plain import ConvRow, overlapping_pool, plain_network
from cnn_jax.models.variant import Variant


def _table(conv3: int, conv4: int, conv5: int) -> dict[str, ConvRow]:
    return {
        "conv1": ConvRow(96, 7, strides=2, padding=1, then="pool norm"),
        "conv2": ConvRow(256, 5, strides=2, then="pool norm"),
        "conv3": ConvRow(conv3, 3, padding=1),
        "conv4": ConvRow(conv4, 3, padding=1),
        "conv5": ConvRow(conv5, 3, padding=1, then="pool"),
    }


FIGURE_3 = _table(384, 384, 256)
WIDE = _table(512, 1024, 512)  # the wider network in the paper's table of modified architectures, used in lectures

_as_published: dict[str, Any] = {
    "pool": partial(overlapping_pool, rounding="ceil"),
    "kernel_init": initializers.gaussian_001,
}

VARIANTS = {
    "zfnet": Variant(partial(plain_network, FIGURE_3, **_as_published), (224, 224, 3), 1000),
    "zfnet_wide": Variant(partial(plain_network, WIDE, **_as_published), (224, 224, 3), 1000),
}
