"""Gradients with respect to the input: which pixels a small change of which changes the target most."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from cnn_jax.attribution.target import Function, Objective, Target, check_images, objective
from cnn_jax.ops.arguments import AnyArray, accumulator


def gradient(
    function: Function, x: Shaped[AnyArray, "..."], target: Target, *, of: str = "score"
) -> Float[Array, "..."]:
    """Computes the gradient of the target with respect to the input.

    Args:
      function: Any JAX function of ``x``; a Flax module must be in evaluation mode.
      x: A batch of inputs, (N, ...); bfloat16, float16, float32 or float64.
      target: A class, a unit or a function of the output; see :mod:`cnn_jax.attribution.target`.
      of: Whether a class means its ``'score'`` before softmax or its ``'probability'`` after it. The gradient of a
        probability is small where the network is certain, and also shows what decreases the other scores.

    Returns:
      The gradient, with the shape and dtype of ``x``.

    Raises:
      UsageError: The input, the function or the target is not valid.

    References:
      Erhan et al., Visualizing higher-layer features of a deep network, 2009; Simonyan, Vedaldi and Zisserman, Deep
      inside convolutional networks, 2014.

    >>> gradient(lambda x: x**2, jnp.array([[1.0, 2.0], [3.0, 4.0]]), target=1)
    Array([[0., 4.],
           [0., 8.]], dtype=float32)
    """
    return gradient_of(objective("gradient", function, target, of=of), check_images("gradient", x))


def saliency(
    function: Function, x: Shaped[AnyArray, "..."], target: Target, *, of: str = "score"
) -> Float[Array, "..."]:
    """Computes the largest absolute gradient over the colours of each pixel.

    The absolute value comes first, then the maximum.

    Args:
      function: Any JAX function of ``x``; a Flax module must be in evaluation mode.
      x: A batch of inputs with channels last, (N, *space, C); bfloat16, float16, float32 or float64.
      target: The same as in :func:`gradient`.
      of: The same as in :func:`gradient`.

    Returns:
      The saliency, (N, *space, 1), at least 0.

    Raises:
      UsageError: The input, the function or the target is not valid.

    References:
      Simonyan, Vedaldi and Zisserman, Deep inside convolutional networks, 2014, section 3.1.

    >>> colours = jnp.array([1.0, -3.0, 2.0])
    >>> saliency(lambda x: (x * colours).sum((1, 2)), jnp.ones((1, 2, 2, 3)), target=1)[0, :, :, 0]
    Array([[3., 3.],
           [3., 3.]], dtype=float32)
    """
    found = gradient_of(objective("saliency", function, target, of=of), check_images("saliency", x))
    return jnp.abs(found).max(axis=-1, keepdims=True)


def gradient_of(numbers: Objective, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The gradient of an objective; examples do not depend on each other, so that their sum has all gradients."""
    return jax.grad(lambda x: total(numbers(x)))(x)


def total(numbers: Shaped[Array, "..."]) -> Float[Array, ""]:
    """The sum of the numbers of all examples, in at least float32."""
    return numbers.sum(dtype=accumulator(numbers.dtype))
