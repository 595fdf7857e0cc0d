"""Helper functions for the lectures' examples."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnn_jax import nn


def plane(rows):
    """A signal, image or volume of one channel."""
    return jnp.array(rows, float)[..., None]


def window(rows):
    """A kernel from one channel to one feature."""
    return jnp.array(rows, float)[..., None, None]


def assert_agree(actual, expected):
    """Same shape, same numbers up to rounding in float64."""
    np.testing.assert_allclose(actual, np.array(expected, float), rtol=1e-12, atol=1e-12, strict=True)


def shape(function, *shapes, **options):
    """The shape of a function's result, without computing it."""
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float64) for shape in shapes]
    return jax.eval_shape(lambda *arrays: function(*arrays, **options), *arrays).shape


def pullback(function, dy, *inputs):
    """The gradients of the inputs for a gradient ``dy`` of the output; compiled, which is faster here."""
    return jax.jit(lambda dy, *inputs: jax.vjp(function, *inputs)[1](dy))(dy, *inputs)


def field(layers, size=17):
    """Height and width of the inputs that the centre of the output depends on, and the number of these inputs."""
    centre = jax.jit(jax.grad(lambda x: layers(x)[size // 2, size // 2, 0]))
    seen = np.argwhere(np.asarray(centre(jnp.ones((size, size, 1))))[..., 0] != 0)
    return (*(int(extent) + 1 for extent in np.ptp(seen, axis=0)), len(seen))


def convolutions(*sizes):
    """Convolution layers of one channel with square windows of ones of these sizes and no biases."""
    return nnx.Sequential(
        *(
            nn.Conv(1, 1, (size, size), use_bias=False, kernel_init=nnx.initializers.ones, rngs=nnx.Rngs(0))
            for size in sizes
        )
    )


def parameters(model):
    """The number of parameters of a layer or a network, which may be abstract."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
