"""Fantasy images: inputs that maximise the score of a class or a unit."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key, Shaped

from cnn_jax import filters
from cnn_jax.attribution.backpropagation import rewritten
from cnn_jax.attribution.target import Function, Target, check_images, limits, objective
from cnn_jax.data import augment
from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, Number, check_number, integer

BEGINNING = 16  # the number of first steps in which gradients also pass inactive rectifiers, as in Lucid
RATE = 0.05  # Adam's learning rate, in units of the value range
# A square root of the covariance of the colours of ImageNet's images; its columns are principal colours: Olah,
# Mordvintsev and Schubert, Feature visualization, Distill, 2017, in the Lucid library.
COLOURS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])


class FantasyImages(NamedTuple):
    """Images that maximise a score, and their distance from an optimum. ``z`` is an image in units of the value range.

    Attributes:
      images: The images, in units of the network's input, (N, *space, C).
      scores: The score ``o`` of each image, without random transformations, (N,).
      objectives: The maximised ``o - decay ||z||^2`` of each image, (N,).
      residuals: The norm of the gradient of each objective, ``||grad o - 2 decay z||`` with respect to ``z``, (N,). It
        is 0 at an optimum. With ``clip``, components that only move a value beyond its limit are left out.
      gradient_norms: ``||grad o||`` with respect to ``z``, (N,), for comparison with the residuals.
      history: The objective of the transformed image before each step, (steps, N).
    """

    images: Float[Array, "n *space channels"]
    scores: Float[Array, " n"]
    objectives: Float[Array, " n"]
    residuals: Float[Array, " n"]
    gradient_norms: Float[Array, " n"]
    history: Float[Array, "steps n"]


def fantasy_image(
    function: Function,
    x: Shaped[AnyArray, "..."],
    target: Target,
    *,
    decay: Number,
    of: str = "score",
    steps: int = 256,
    value_range: tuple[int | float, int | float] = (0.0, 1.0),
    optimizer: optax.GradientTransformation | None = None,
    key: Key[Array, ""] | None = None,
    jitter: int = 0,
    rotation: int | float = 0.0,
    scale: tuple[int | float, int | float] = (1.0, 1.0),
    blur: int | float = 0.0,
    fourier: bool = False,
    decorrelate: bool = False,
    clip: bool = False,
) -> FantasyImages:
    """Maximises ``o - decay ||z||^2`` over the input, with the network's weights fixed.

    ``o`` is the score of the target and ``z = x / (high - low)`` is the image in units of its value range. ``decay``
    therefore has the same effect for images from 0 to 1 and from 0 to 255: it is the penalty of one value that differs
    from 0 by the whole range. In units of ``x`` the factor is ``decay / (high - low)^2``. The fantasy image of a linear
    function ``w x`` of images from 0 to 1 is ``w / (2 decay)``.

    The images of a batch are optimised at the same time and independently: give one target for each (several classes or
    channels), or several initial images for one target. For many calls, compile the call with ``jax.jit``.

    At the start a rectifier may be inactive for the whole image, so that its gradient is zero. In the first 16 steps
    the gradient therefore also passes rectifiers with a negative input, if it increases that input.

    Args:
      function: Any JAX function of a batch; a Flax module must be in evaluation mode.
      x: The initial images, (N, *space, C), such as small random numbers around grey; float32 or float64.
      target: A class, a unit or a function of the output, see :mod:`cnn_jax.attribution.target`.
      decay: The factor lambda of the penalty, at least 0.
      of: Whether a class means its ``'score'`` or its ``'probability'``.
      steps: The number of steps.
      value_range: The range (low, high) of the data's values, in units of ``x``.
      optimizer: The optimiser of ``z``, which minimises the negative objective; by default Adam with a learning rate
        that falls from 0.05 to 0 along a cosine.
      key: The key of the random transformations; required if there are any.
      jitter: The largest random shift of each step along every axis, in whole pixels.
      rotation: The largest random rotation of each step, in degrees.
      scale: The range of the random scale of each step.
      blur: The standard deviation, in pixels, of a Gaussian that blurs the images after each step; it falls to 0 over
        the steps.
      fourier: Whether to optimise the coefficients of the images' Fourier transform, where the coefficient of a
        frequency f is weighted by 1/f, as in natural images. This favours smooth images.
      decorrelate: Whether to optimise coordinates along the principal colours of natural images; for three colours.
      clip: Whether to limit the values to ``value_range`` after each step.

    Returns:
      The images, their scores and objectives, and the residual of each, which is 0 at an optimum.

    Raises:
      UsageError: The input, the function, the target or an option is not valid.

    References:
      Lecture 001, "Creating a fantasy image that matches a label"; Simonyan, Vedaldi and Zisserman, Deep inside
      convolutional networks, 2014, section 2; Olah, Mordvintsev and Schubert, Feature visualization, Distill, 2017 (the
      options).

    >>> weights = jnp.array([1.0, -2.0, 0.5, 0.0]).reshape(1, 2, 2, 1)
    >>> found = fantasy_image(lambda x: (x * weights).sum((1, 2)), jnp.zeros((1, 2, 2, 1)), 0, decay=2.0)
    >>> found.images[0, :, :, 0].round(2)  # weights / 4
    Array([[ 0.25, -0.5 ],
           [ 0.12,  0.  ]], dtype=float32)
    >>> bool(found.residuals[0] < 0.01 * found.gradient_norms[0])
    True
    """
    op = "fantasy_image"
    score = objective(op, function, target, of=of)
    x = check_images(op, x)
    steps = integer(op, "steps", steps, least=1)
    check_number(op, "decay", decay, least=0)
    check_number(op, "blur", blur, least=0)
    low, high = limits(op, value_range)
    unit = high - low
    space = _coordinates(op, x.shape[1:], fourier=fourier, decorrelate=decorrelate)
    transform = _transformation(op, key, jitter=jitter, rotation=rotation, scale=scale)
    optimizer = optimizer or optax.adam(optax.cosine_decay_schedule(RATE, steps))

    def scores_and_objectives(score: Score, z: Array) -> tuple[Array, Array]:
        scores = score(unit * z)
        if scores.shape != (len(z),):
            raise UsageError(f"{op}: the target must return one number for each of the {len(z)} images")
        return scores, scores - decay * jnp.square(z).reshape(len(z), -1).sum(axis=1)

    def constrained(z: Array, number: Array) -> Array:
        """The images after a step, blurred and clipped."""
        z = _blurred(z, blur, share=1 - (number + 1) / steps) if blur else z
        return z.clip(low / unit, high / unit) if clip else z

    def step(score: Score, carry: tuple[Array, Any], number: Array) -> tuple[tuple[Array, Any], Array]:
        point, state = carry

        def total(point: Array) -> tuple[Array, Array]:
            _, objectives = scores_and_objectives(score, transform(space.image(point), number))
            return objectives.sum(), objectives

        uphill, objectives = jax.grad(total, has_aux=True)(point)
        updates, state = optimizer.update(-uphill, state, point)
        point = optax.apply_updates(point, updates)
        if blur or clip:
            point = space.point(constrained(space.image(point), number))
        return (point, state), objectives

    eased, _ = rewritten(op, "rising", score, x)
    start, beginning = space.point(x / unit), min(BEGINNING, steps)
    carry = start, optimizer.init(start)
    carry, early = jax.lax.scan(partial(step, eased), carry, jnp.arange(beginning))
    carry, late = jax.lax.scan(partial(step, score), carry, jnp.arange(beginning, steps))
    z = space.image(carry[0])
    (scores, objectives), transposed = jax.vjp(partial(scores_and_objectives, score), z)
    (of_scores,) = transposed((jnp.ones_like(scores), jnp.zeros_like(scores)))
    of_objectives = of_scores - 2 * decay * z
    if clip:
        outward = ((z <= low / unit) & (of_objectives < 0)) | ((z >= high / unit) & (of_objectives > 0))
        of_objectives = jnp.where(outward, 0, of_objectives)
    history = jnp.concatenate([early, late])
    return FantasyImages(unit * z, scores, objectives, _norms(of_objectives), _norms(of_scores), history)


Score = Callable[[Array], Array]


class _Coordinates(NamedTuple):
    """The linear maps between images and the coordinates that are optimised."""

    point: Callable[[Array], Array]
    image: Callable[[Array], Array]


def _coordinates(op: str, shape: Sequence[int], *, fourier: bool, decorrelate: bool) -> _Coordinates:
    """The coordinates of images of a shape (*space, C)."""
    sizes, colours = tuple(shape[:-1]), COLOURS / np.linalg.norm(COLOURS, axis=0).max()
    if decorrelate and shape[-1] != 3:
        raise UsageError(f"{op}: decorrelate=True is for three colours, but x has {shape[-1]} channels")
    if fourier and not sizes:
        raise UsageError(f"{op}: fourier=True is for inputs with spatial axes; x has shape (N, {shape[-1]})")
    axes = tuple(range(1, 1 + len(sizes)))
    weights = _spectrum(sizes)[..., None] if fourier else None

    def point(z: Array) -> Array:
        z = z @ jnp.asarray(np.linalg.inv(colours).T, z.dtype) if decorrelate else z
        if weights is None:
            return z
        waves = jnp.fft.rfftn(z, axes=axes, norm="ortho") / weights
        return jnp.stack([waves.real, waves.imag], axis=-1)

    def image(point: Array) -> Array:
        z = point
        if weights is not None:
            waves = jax.lax.complex(point[..., 0], point[..., 1]) * weights
            z = jnp.fft.irfftn(waves, s=sizes, axes=axes, norm="ortho")
        return z @ jnp.asarray(colours.T, z.dtype) if decorrelate else z

    return _Coordinates(point, image)


def _spectrum(sizes: Sequence[int]) -> np.ndarray:
    """The weight of each wave of a real Fourier transform, proportional to 1/frequency, with a mean square of 1."""
    *others, last = sizes
    along = [*map(np.fft.fftfreq, others), np.fft.rfftfreq(last)]
    frequencies = np.sqrt(sum(axis**2 for axis in np.meshgrid(*along, indexing="ij")))
    weights = 1 / np.maximum(frequencies, 1 / max(sizes))  # the mean counts as the lowest frequency
    return (weights / np.sqrt(np.square(weights).mean())).astype(np.float32)


def _transformation(
    op: str, key: Key[Array, ""] | None, *, jitter: int, rotation: int | float, scale: tuple[int | float, int | float]
) -> Callable[[Array, Array], Array]:
    """The random transformation of a step: a function of images and the step's number."""
    turned = rotation != 0 or tuple(scale) != (1, 1)
    if not (jitter or turned):
        return lambda images, number: images
    if key is None:
        raise UsageError(f"{op}: jitter, rotation and scale are random; give key=jax.random.key(0)")

    def transform(images: Array, number: Array) -> Array:
        of_jitter, of_turn = jax.random.split(jax.random.fold_in(key, number))
        if jitter:
            images = augment.pad_and_crop(of_jitter, images, padding=jitter, mode="mirror")
        return augment.affine(of_turn, images, rotation=rotation, scale=scale, mode="mirror") if turned else images

    return transform


def _blurred(z: Array, blur: int | float, *, share: Array) -> Array:
    """Images blurred by a Gaussian with a standard deviation of ``share * blur`` pixels."""
    reach = max(1, round(4 * blur))
    distances = jnp.arange(-reach, reach + 1) / jnp.maximum(blur * share, 1e-3)
    row = jnp.exp(-jnp.square(distances) / 2)
    row = (row / row.sum()).astype(z.dtype)
    for axis in range(z.ndim - 2):
        z = filters.apply(z, row.reshape([-1 if axis == other else 1 for other in range(z.ndim - 2)]))
    return z


def _norms(arrays: Array) -> Float[Array, " n"]:
    return jnp.linalg.norm(arrays.reshape(len(arrays), -1), axis=1)
