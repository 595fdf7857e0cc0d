"""Attribution methods, which show what a network responds to, for any JAX function of a batch of images.

Each method is a pure function ``method(function, x, target, ...)`` that returns an array with the rank of ``x``.
``function`` is any JAX function of ``x``, such as a network of ``cnn_jax``, another Flax module or a few lines of
``jax.numpy``. Targets are described in :mod:`cnn_jax.attribution.target`.

The methods work under ``jit`` and ``vmap``, and do not compile anything themselves. To explain many batches, compile
once. Pass the state of a module as an argument, so that its weights are not constants of the compiled function:

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

from cnn_jax.attribution.backpropagation import Receipt, deconvnet, guided_backpropagation
from cnn_jax.attribution.crops import StrongestCrops, strongest_crops
from cnn_jax.attribution.fantasy import FantasyImages, fantasy_image
from cnn_jax.attribution.gradients import (
    gradient,
    input_times_gradient,
    integrated_gradients,
    saliency,
    smooth_gradient,
)
from cnn_jax.attribution.maps import grad_cam, occlusion
from cnn_jax.attribution.randomization import Stage, randomization_test
from cnn_jax.attribution.rectifiers import Rectifier
from cnn_jax.attribution.style import StyledImages, gram_matrix, style_transfer, total_variation
from cnn_jax.attribution.target import Objective, objective
from cnn_jax.attribution.tuning import TuningCurves, tuning_curves

METHODS = {
    method.__name__: method
    for method in (
        gradient,
        saliency,
        deconvnet,
        guided_backpropagation,
        input_times_gradient,
        integrated_gradients,
        smooth_gradient,
        grad_cam,
        occlusion,
    )
}
"""The methods by name: ``METHODS[name](function, x, target)``; Grad-CAM needs ``activation``, occlusion ``window``."""

__all__ = [
    "METHODS",
    "FantasyImages",
    "Objective",
    "Receipt",
    "Rectifier",
    "Stage",
    "StrongestCrops",
    "StyledImages",
    "TuningCurves",
    "deconvnet",
    "fantasy_image",
    "grad_cam",
    "gradient",
    "gram_matrix",
    "guided_backpropagation",
    "input_times_gradient",
    "integrated_gradients",
    "objective",
    "occlusion",
    "randomization_test",
    "saliency",
    "smooth_gradient",
    "strongest_crops",
    "style_transfer",
    "total_variation",
    "tuning_curves",
]
