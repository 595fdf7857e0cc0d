"""The papers' own rules for drawing initial weights that ``jax.nn.initializers`` does not have.

Kernels have the shape ``(*window, in_features, out_features)``, so the fan-in is the product of all axes but the last.
What papers call by a name of the field (``glorot_uniform``, ``he_normal``, ``lecun_normal``) is taken from JAX.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer, normal, variance_scaling

gaussian_001: Initializer = normal(0.01)
"""A Gaussian of standard deviation 0.01, whatever the fan-in: AlexNet (Krizhevsky, Sutskever and Hinton, 2012,
section 5), ZFNet (Zeiler and Fergus, 2014: "initialized to 10^-2") and VGG's net A (Simonyan and Zisserman, 2015).
VGG's paper says a *variance* of 10^-2, with which net A's scores of a normalised image would start at about two million
(each is 10^11 times as large): taken as a slip for the deviation."""

torch_kernel: Initializer = variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform between plus and minus one over the root of the fan-in: what PyTorch's convolutions and linear layers start
with, and so torchvision's AlexNet."""


def uniform(bound: float) -> Initializer:
    """Uniform between plus and minus a bound.

    >>> bool(jnp.abs(uniform(0.5)(jax.random.key(0), (1000,), jnp.float32)).max() <= 0.5)
    True
    """

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def torch_bias(fan_in: int) -> Initializer:
    """The biases that PyTorch draws along with :data:`torch_kernel`, of the same range.

    >>> bool(jnp.abs(torch_bias(100)(jax.random.key(0), (1000,), jnp.float32)).max() <= 0.1)
    True
    """
    return uniform(1 / math.sqrt(fan_in))


def lecun_1989(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
    """Uniform between plus and minus 2.4 over the fan-in: the first LeNets.

    References:
      LeCun et al., Backpropagation applied to handwritten zip code recognition, 1989; Gradient-based learning applied
      to document recognition, 1998, section III.

    >>> bool(jnp.abs(lecun_1989(jax.random.key(0), (5, 5, 8, 12))).max() <= 2.4 / 200)
    True
    """
    return uniform(2.4 / math.prod(shape[:-1]))(key, shape, dtype)
