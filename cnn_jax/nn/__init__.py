"""Layers: thin Flax NNX modules that hold parameters and options and call one op of ``cnn_jax.ops``."""

from cnn_jax.nn.linear import Conv, Linear, flatten
from cnn_jax.nn.normalization import BatchNorm, Dropout
from cnn_jax.nn.pool import AvgPool, MaxPool
from cnn_jax.nn.sequence import Sequence

__all__ = ["AvgPool", "BatchNorm", "Conv", "Dropout", "Linear", "MaxPool", "Sequence", "flatten"]
