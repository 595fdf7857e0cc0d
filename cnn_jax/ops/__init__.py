"""Pure functions of arrays: convolutions, pools, activations, norms. No parameters, no state, no config.

Every op takes arrays with channels last and any number of batch axes first, has keyword-only options named as Flax and
lax name them, and rejects what does not fit with one line (``cnn_jax.errors.UsageError``).
"""

from cnn_jax.ops.conv import conv, depthwise_conv, separable_conv
from cnn_jax.ops.padding import pad

__all__ = [
    "conv",
    "depthwise_conv",
    "pad",
    "separable_conv",
]
