"""Loads pretrained weights into the networks of this package, and saves them.

Supported are the weights of torchvision and timm (AlexNet, VGG, GoogLeNet, ResNet) and this package's own files:

>>> import tempfile
>>> from flax import nnx
>>> from cnn_jax import models, weights
>>> model = models.create("lenet_5_modern", rngs=nnx.Rngs(0))
>>> path = f"{tempfile.mkdtemp()}/lenet.safetensors"
>>> weights.save(model, path, about=weights.About("lenet_5_modern", mean=(0.13,), std=(0.31,)))
>>> loaded = weights.load(nnx.eval_shape(lambda: models.create("lenet_5_modern", rngs=nnx.Rngs(0))), path)
>>> bool((loaded.model.c1.kernel[...] == model.c1.kernel[...]).all()), loaded.about.mean
(True, (0.13,))
"""

from cnn_jax.weights.about import About
from cnn_jax.weights.transfer import LAYOUTS, Loaded, create, load, save, to_torch

__all__ = ["LAYOUTS", "About", "Loaded", "create", "load", "save", "to_torch"]
