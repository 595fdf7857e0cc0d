"""The few words in which the lectures' examples are written down."""

import jax
import jax.numpy as jnp
import numpy as np


def plane(rows):
    """A signal, image or volume of one channel."""
    return jnp.array(rows, float)[..., None]


def window(rows):
    """A kernel from one channel to one feature."""
    return jnp.array(rows, float)[..., None, None]


def agree(actual, expected):
    """Same shape, same numbers up to rounding in float64."""
    np.testing.assert_allclose(actual, np.array(expected, float), rtol=1e-12, atol=1e-12, strict=True)


def shape(function, *shapes, **options):
    """The shape of a function's result, without computing it."""
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float64) for shape in shapes]
    return jax.eval_shape(lambda *arrays: function(*arrays, **options), *arrays).shape
