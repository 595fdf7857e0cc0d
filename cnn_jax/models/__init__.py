"""The historical and current convolutional networks under one API.

>>> from flax import nnx
>>> import jax.numpy as jnp
>>> from cnn_jax import models
>>> model = models.create("lenet_5_modern", num_classes=10, input_shape=(32, 32, 1), rngs=nnx.Rngs(0))
>>> model(jnp.zeros((1, 32, 32, 1))).shape
(1, 10)
"""

from cnn_jax.models.registry import NAMES_ELSEWHERE, available, create, variant
from cnn_jax.models.surgery import convolutionalize, output_layer, output_layers, replace_head, trainable
from cnn_jax.models.tiling import Cells, Tiling
from cnn_jax.models.variant import Variant

__all__ = [
    "NAMES_ELSEWHERE",
    "Cells",
    "Tiling",
    "Variant",
    "available",
    "convolutionalize",
    "create",
    "output_layer",
    "output_layers",
    "replace_head",
    "trainable",
    "variant",
]
