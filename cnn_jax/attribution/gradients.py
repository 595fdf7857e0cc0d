"""Gradients with respect to the input, and methods that combine several of them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Shaped

from cnn_jax.attribution.target import Function, Objective, Target, check_images, objective
from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, accumulator, as_array, check_number, integer


def gradient(
    function: Function, x: Shaped[AnyArray, "..."], target: Target, *, of: str = "score"
) -> Float[Array, "..."]:
    """Computes the gradient of the target with respect to the input.

    Args:
      function: Any JAX function of ``x``; a Flax module must be in evaluation mode.
      x: A batch of inputs, (N, ...); bfloat16, float16, float32 or float64.
      target: A class, a unit or a function of the output; see :mod:`cnn_jax.attribution.target`.
      of: Whether a class means its ``'score'`` before softmax or its ``'probability'`` after it. The gradient of a
        probability is small if the network is certain, and also shows what decreases the other scores.

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


def input_times_gradient(
    function: Function, x: Shaped[AnyArray, "..."], target: Target, *, of: str = "score"
) -> Float[Array, "..."]:
    """Computes the product of the input and the gradient of the target.

    For a linear function without bias, the products of an example add up to its target.

    Args:
      function: Any JAX function of ``x``; a Flax module must be in evaluation mode.
      x: A batch of inputs, (N, ...); bfloat16, float16, float32 or float64.
      target: The same as in :func:`gradient`.
      of: The same as in :func:`gradient`.

    Returns:
      The products, with the shape and dtype of ``x``.

    Raises:
      UsageError: The input, the function or the target is not valid.

    References:
      Shrikumar et al., Not just a black box: learning important features through propagating activation differences,
      2016.

    >>> input_times_gradient(lambda x: 3 * x, jnp.array([[1.0, 2.0]]), target=1)
    Array([[0., 6.]], dtype=float32)
    """
    op = "input_times_gradient"
    numbers, x = objective(op, function, target, of=of), check_images(op, x)
    return x * gradient_of(numbers, x)


def smooth_gradient(
    function: Function,
    x: Shaped[AnyArray, "..."],
    target: Target,
    *,
    samples: int = 50,
    noise: float = 0.15,
    key: Shaped[Array, "..."] | None = None,
    of: str = "score",
) -> Float[Array, "..."]:
    """Computes the mean gradient over noisy copies of the input (SmoothGrad).

    All images get the same noise, scaled by their range of values, so that the result for an image does not depend on
    the other images.

    Args:
      function: Any JAX function of ``x``; a Flax module must be in evaluation mode.
      x: A batch of inputs, (N, ...); bfloat16, float16, float32 or float64.
      target: The same as in :func:`gradient`.
      samples: The number of copies.
      noise: The standard deviation of the normal noise, as a fraction of the difference between the largest and the
        smallest value of an image. The paper recommends 0.1 to 0.2.
      key: The JAX key of the noise; ``jax.random.key(0)`` by default.
      of: The same as in :func:`gradient`.

    Returns:
      The mean gradient, with the shape and dtype of ``x``.

    Raises:
      UsageError: The input, the function, the target or an option is not valid.

    References:
      Smilkov et al., SmoothGrad: removing noise by adding noise, 2017.

    >>> smooth_gradient(lambda x: 3 * x, jnp.array([[1.0, 2.0]]), target=1, samples=4)
    Array([[0., 3.]], dtype=float32)
    """
    op = "smooth_gradient"
    numbers, x = objective(op, function, target, of=of), check_images(op, x)
    samples = integer(op, "samples", samples, least=1)
    check_number(op, "noise", noise, least=0)
    axes = tuple(range(1, x.ndim))
    scale = (noise * (x.max(axes, keepdims=True) - x.min(axes, keepdims=True))).astype(x.dtype)

    def add(sums: Array, key: Array) -> tuple[Array, None]:
        noisy = x + scale * jax.random.normal(key, x.shape[1:], x.dtype)
        return sums + gradient_of(numbers, noisy), None

    keys = jax.random.split(jax.random.key(0) if key is None else key, samples)
    sums, _ = lax.scan(add, jnp.zeros(x.shape, accumulator(x.dtype)), keys)
    return (sums / samples).astype(x.dtype)


def integrated_gradients(
    function: Function,
    x: Shaped[AnyArray, "..."],
    target: Target,
    *,
    baseline: Shaped[AnyArray, "..."] | float = 0.0,
    steps: int = 50,
    of: str = "score",
    return_error: bool = False,
) -> Any:
    """Computes the integral of the gradient on the straight line from a baseline to the input.

    The exact integrals of an example add up to the difference between the target of the input and of the baseline
    (completeness). The integral is computed by the midpoint rule. ``return_error`` also returns the deviation.

    Args:
      function: Any JAX function of ``x``; a Flax module must be in evaluation mode.
      x: A batch of inputs, (N, ...); bfloat16, float16, float32 or float64.
      target: The same as in :func:`gradient`.
      baseline: An input without information: a number, one number per channel, one input of shape ``x.shape[1:]``, or
        a batch of the shape of ``x``. The default 0 is a black image if 0 is black, and the mean image for
        standardised images.
      steps: The number of points on the line.
      of: The same as in :func:`gradient`.
      return_error: Whether to also return the completeness error.

    Returns:
      The attributions, with the shape and dtype of ``x``; with ``return_error`` a pair of these and of the sum of the
      attributions minus the difference of the targets, (N,), or () if the target is a function that returns one number.

    Raises:
      UsageError: The baseline has another shape; the input, the function, the target or an option is not valid.

    References:
      Sundararajan, Taly and Yan, Axiomatic attribution for deep networks, 2017.

    >>> integrated_gradients(lambda x: x**2, jnp.array([[1.0, 2.0]]), target=1, steps=4, return_error=True)
    (Array([[0., 4.]], dtype=float32), Array([0.], dtype=float32))
    """
    op = "integrated_gradients"
    numbers, x = objective(op, function, target, of=of), check_images(op, x)
    steps = integer(op, "steps", steps, least=1)
    start = check_baseline(op, baseline, x)

    def add(sums: Array, index: Array) -> tuple[Array, None]:
        position = ((index + 0.5) / steps).astype(x.dtype)
        return sums + gradient_of(numbers, start + position * (x - start)), None

    sums, _ = lax.scan(add, jnp.zeros(x.shape, accumulator(x.dtype)), jnp.arange(steps))
    found = (x - start) * sums / steps
    if not return_error:
        return found.astype(x.dtype)
    difference = numbers(x) - numbers(start)
    attributed = found.sum(tuple(range(difference.ndim, x.ndim)))
    return found.astype(x.dtype), attributed - difference


def gradient_of(numbers: Objective, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The gradient of an objective. Examples are independent, so the gradient of their sum contains all gradients."""
    try:
        return jax.grad(lambda x: total(numbers(x)))(x)
    except UsageError:
        raise
    except ValueError as error:  # raised by JAX for a while loop
        raise UsageError(f"{numbers.op}: the function has no gradient: {str(error).splitlines()[0]}") from error


def total(numbers: Shaped[Array, "..."]) -> Float[Array, ""]:
    """The sum of the numbers of all examples, in at least float32."""
    return numbers.sum(dtype=accumulator(numbers.dtype))


def check_baseline(op: str, baseline: Shaped[AnyArray, "..."] | float, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Converts a baseline to the shape and dtype of ``x``, or raises a ``UsageError``."""
    array = as_array(op, "baseline", baseline)
    if array.shape not in ((), x.shape[-1:], x.shape[1:], x.shape):
        raise UsageError(
            f"{op}: baseline of shape {array.shape} must be one number, one per channel, or have the shape of one "
            f"input, {x.shape[1:]}, or of x, {x.shape}"
        )
    return jnp.broadcast_to(array.astype(x.dtype), x.shape)
