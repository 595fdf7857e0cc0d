"""What a network responds to: for any JAX function of a batch of images.

Each method is a pure function ``method(function, x, target, ...)`` that returns an array with the rank of ``x``.
``function`` is any JAX function of ``x``, such as a network of ``cnn_jax``, another Flax module or a few lines of
``jax.numpy``. :mod:`cnn_jax.attribution.target` explains targets.

The methods run under ``jit`` and ``vmap``, and do not compile anything themselves. To explain many batches, compile
once. The state of a module is then an argument, so that its weights are not part of the program:

>>> import jax, jax.numpy as jnp
>>> from flax import nnx
>>> from cnn_jax import attribution, models
>>> graph, state = nnx.split(models.create("lenet_5_modern"))
>>> @jax.jit
... def explain(state, x, target):
...     return attribution.saliency(nnx.merge(graph, state), x, target)
>>> explain(state, jnp.ones((8, 32, 32, 1)), jnp.arange(8)).shape
(8, 32, 32, 1)
"""

from cnn_jax.attribution.gradients import gradient, saliency
from cnn_jax.attribution.target import Objective, objective

__all__ = [
    "Objective",
    "gradient",
    "objective",
    "saliency",
]
