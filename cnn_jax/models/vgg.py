"""VGG's networks A to E: 3x3 convolutions (1x1 in parts of C) that keep the size, and max pools that halve it.

Simonyan & Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, table 1. The
networks ``*_bn`` have batch normalisation after each convolution, as in torchvision; they are not in the paper.
"""

from functools import partial

from jax.nn.initializers import Initializer, glorot_uniform, he_normal

from cnn_jax import nn
from cnn_jax.models import initializers
from cnn_jax.models.plain import ConvRow, plain_network
from cnn_jax.models.variant import Variant

# C3D64: a convolution with a window of 3x3 and 64 channels; LRN: local response normalisation; M: max pool.
TABLE = {
    "vgg_a": "C3D64 M  C3D128 M  C3D256 C3D256 M  C3D512 C3D512 M  C3D512 C3D512 M",
    "vgg_a_lrn": "C3D64 LRN M  C3D128 M  C3D256 C3D256 M  C3D512 C3D512 M  C3D512 C3D512 M",
    "vgg_b": "C3D64 C3D64 M  C3D128 C3D128 M  C3D256 C3D256 M  C3D512 C3D512 M  C3D512 C3D512 M",
    "vgg_c": "C3D64 C3D64 M  C3D128 C3D128 M  C3D256 C3D256 C1D256 M  C3D512 C3D512 C1D512 M  C3D512 C3D512 C1D512 M",
    "vgg_d": "C3D64 C3D64 M  C3D128 C3D128 M  C3D256 C3D256 C3D256 M  C3D512 C3D512 C3D512 M  C3D512 C3D512 C3D512 M",
    "vgg_e": "C3D64 C3D64 M  C3D128 C3D128 M  C3D256 C3D256 C3D256 C3D256 M  C3D512 C3D512 C3D512 C3D512 M"
    "  C3D512 C3D512 C3D512 C3D512 M",
}


def rows(column: str) -> dict[str, ConvRow]:
    """Converts a column of the table to layers named ``conv1_1`` to ``conv5_4``.

    >>> list(rows("C3D64 C3D64 M C3D128 M"))
    ['conv1_1', 'conv1_2', 'conv2_1']
    """
    found: dict[str, ConvRow] = {}
    for stage, text in enumerate(column.split(" M")[:-1], start=1):
        *convolutions, last = text.removesuffix(" LRN").split()
        then = "norm pool" if text.endswith(" LRN") else "pool"
        for index, cell in enumerate([*convolutions, last], start=1):
            window, channels = (int(number) for number in cell.removeprefix("C").split("D"))
            found[f"conv{stage}_{index}"] = ConvRow(
                channels, window, padding=window // 2, then=then if index > len(convolutions) else ""
            )
    return found


def _variant(name: str, kernel_init: Initializer, *, batch_norm: bool = False) -> Variant:
    builder = partial(
        plain_network,
        rows(TABLE[name]),
        pool=partial(nn.MaxPool, (2, 2)),
        batch_norm=batch_norm,
        kernel_init=kernel_init,
    )
    return Variant(builder, (224, 224, 3), 1000)


# In the paper, net A starts with AlexNet's Gaussian, and deeper nets start with layers of a trained net A. The paper
# remarks that Glorot and Bengio's initialisation makes this unnecessary, so it is used for the deeper nets here.
_GAUSSIAN = ("vgg_a", "vgg_a_lrn")
VARIANTS = {
    name: _variant(name, initializers.gaussian_001 if name in _GAUSSIAN else glorot_uniform()) for name in TABLE
} | {f"{name}_bn": _variant(name, he_normal(), batch_norm=True) for name in TABLE}
