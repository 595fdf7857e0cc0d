"""Layers: thin Flax NNX modules that hold parameters and options and call one op of ``cnn_jax.ops``.

A network is a :class:`Sequence` of named layers. Functions such as ``jnp.tanh`` or ``ops.global_avg_pool`` are layers
too.
"""

from cnn_jax.nn.blocks import Auxiliary, Parallel, Residual
from cnn_jax.nn.connections import ConvLocal, SeparableConv
from cnn_jax.nn.conv import Conv, ConvTranspose
from cnn_jax.nn.lecun import Subsampling, TableConv
from cnn_jax.nn.linear import Flatten, Linear, RBFOutput, Scale, flatten
from cnn_jax.nn.normalization import BatchNorm, Dropout, GaussianNoise, InstanceNorm, LocalResponseNorm
from cnn_jax.nn.pool import AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, LpPool, MaxPool, MaxUnpool, Upsample
from cnn_jax.nn.sequence import Sequence
from cnn_jax.nn.skips import Add, Concatenate, CutTo, SkipSequence
from cnn_jax.nn.sound import Spectrogram
from cnn_jax.nn.text import ConvMaxOverTime, Embed

__all__ = [
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "Add",
    "Auxiliary",
    "AvgPool",
    "BatchNorm",
    "Concatenate",
    "Conv",
    "ConvLocal",
    "ConvMaxOverTime",
    "ConvTranspose",
    "CutTo",
    "Dropout",
    "Embed",
    "Flatten",
    "GaussianNoise",
    "InstanceNorm",
    "Linear",
    "LocalResponseNorm",
    "LpPool",
    "MaxPool",
    "MaxUnpool",
    "Parallel",
    "RBFOutput",
    "Residual",
    "Scale",
    "SeparableConv",
    "Sequence",
    "SkipSequence",
    "Spectrogram",
    "Subsampling",
    "TableConv",
    "Upsample",
    "flatten",
]
