"""Initialisers from the papers that ``jax.nn.initializers`` does not have.

Kernels have the shape ``(*window, in_features, out_features)``, so the fan-in is the product of all axes but the last.
Common initialisers (``glorot_uniform``, ``he_normal``, ``lecun_normal``) are imported from JAX where they are used.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer, normal, variance_scaling

gaussian_001: Initializer = normal(0.01)
"""A normal distribution of standard deviation 0.01 for any fan-in: AlexNet (Krizhevsky, Sutskever and Hinton, 2012,
section 5), ZFNet (Zeiler and Fergus, 2014: "initialized to 10^-2") and VGG's net A (Simonyan and Zisserman, 2015).
VGG's paper says a *variance* of 10^-2. With that, net A's logits for a normalised image would start at about two
million, 10^11 times as large, so the number is taken to be the standard deviation."""

torch_kernel: Initializer = variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform between -1 / sqrt(fan-in) and 1 / sqrt(fan-in): PyTorch's default for convolutions and linear layers, which
torchvision's AlexNet uses."""


def uniform(bound: float) -> Initializer:
    """An initialiser that draws uniformly between ``-bound`` and ``bound``.

    >>> bool(jnp.abs(uniform(0.5)(jax.random.key(0), (1000,), jnp.float32)).max() <= 0.5)
    True
    """

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def torch_bias(fan_in: int) -> Initializer:
    """PyTorch's default initialiser of biases, with the same range as :data:`torch_kernel`.

    >>> bool(jnp.abs(torch_bias(100)(jax.random.key(0), (1000,), jnp.float32)).max() <= 0.1)
    True
    """
    return uniform(1 / math.sqrt(fan_in))


def lecun_1989(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
    """Uniform between -2.4 / fan-in and 2.4 / fan-in, as in the first LeNets.

    References:
      LeCun et al., Backpropagation applied to handwritten zip code recognition, 1989; Gradient-based learning applied
      to document recognition, 1998, section III.

    >>> bool(jnp.abs(lecun_1989(jax.random.key(0), (5, 5, 8, 12))).max() <= 2.4 / 200)
    True
    """
    return uniform(2.4 / math.prod(shape[:-1]))(key, shape, dtype)
