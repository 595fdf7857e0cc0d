"""AlexNet as published, and the variants that share its name.

Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012.
"""

from functools import partial
from typing import Any

from jax.nn.initializers import Initializer, ones, zeros

from cnn_jax.models import initializers
from cnn_jax.models.plain import ConvRow, plain_network
from cnn_jax.models.variant import Variant

# As published. The two groups ran on two GPUs, which exchanged activations only at conv3 and in the fully connected
# layers.
PAPER = {
    "conv1": ConvRow(96, 11, strides=4, then="norm pool"),
    "conv2": ConvRow(256, 5, padding=2, groups=2, then="norm pool"),
    "conv3": ConvRow(384, 3, padding=1),
    "conv4": ConvRow(384, 3, padding=1, groups=2),
    "conv5": ConvRow(256, 3, padding=1, groups=2, then="pool"),
}
# Without groups, as most lectures and figures show it.
UNGROUPED = {
    "conv1": ConvRow(96, 11, strides=4, then="norm pool"),
    "conv2": ConvRow(256, 5, padding=2, then="norm pool"),
    "conv3": ConvRow(384, 3, padding=1),
    "conv4": ConvRow(384, 3, padding=1),
    "conv5": ConvRow(256, 3, padding=1, then="pool"),
}
# torchvision's variant, from Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.
TORCHVISION = {
    "conv1": ConvRow(64, 11, strides=4, padding=2, then="pool"),
    "conv2": ConvRow(192, 5, padding=2, then="pool"),
    "conv3": ConvRow(384, 3, padding=1),
    "conv4": ConvRow(256, 3, padding=1),
    "conv5": ConvRow(256, 3, padding=1, then="pool"),
}
# As in Virtue's lecture: batch normalisation and no padding, so the input of FC6 has only 256 numbers.
BATCH_NORM = {
    "conv1": ConvRow(96, 11, strides=4, then="pool"),
    "conv2": ConvRow(256, 5, then="pool"),
    "conv3": ConvRow(384, 3),
    "conv4": ConvRow(384, 3),
    "conv5": ConvRow(256, 3, then="pool"),
}


def paper_bias(name: str, fan_in: int) -> Initializer:
    """Biases of 1 in conv2, conv4, conv5, fc6 and fc7, so that their ReLUs start with positive inputs; 0 elsewhere."""
    return ones if name in ("conv2", "conv4", "conv5", "fc6", "fc7") else zeros


def torch_bias(name: str, fan_in: int) -> Initializer:
    """Biases drawn from the same uniform distribution as PyTorch's kernels."""
    return initializers.torch_bias(fan_in)


_as_published: dict[str, Any] = {"kernel_init": initializers.gaussian_001, "bias_init": paper_bias}
_as_in_torch: dict[str, Any] = {
    "kernel_init": initializers.torch_kernel,
    "bias_init": torch_bias,
    "dropout_first": True,
}

# The paper says that images are 224x224, but the output of its first convolution is 55x55 only for 227x227 images.
VARIANTS = {
    "alexnet": Variant(partial(plain_network, PAPER, **_as_published), (227, 227, 3), 1000),
    "alexnet_ungrouped": Variant(partial(plain_network, UNGROUPED, **_as_published), (227, 227, 3), 1000),
    "alexnet_torchvision": Variant(
        partial(plain_network, TORCHVISION, adaptive_pool=(6, 6), **_as_in_torch), (224, 224, 3), 1000
    ),
    "alexnet_batch_norm": Variant(
        partial(plain_network, BATCH_NORM, batch_norm=True, **_as_in_torch), (224, 224, 3), 1000
    ),
}
