"""Artistic style: an image with the content of one image and the style of another, by the activations of a network."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Shaped

from cnn_jax.attribution.target import Function, activations, check_images, check_ready, limits
from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, Number, check_number, integer

RATE = 0.02  # Adam's learning rate, in units of the value range

Layers = Sequence[str] | Mapping[str, float]
"""Names of activations, with equal weights; or the weight of each."""


class StyledImages(NamedTuple):
    """Images with the content of some images and the style of others.

    Attributes:
      images: The images, in units of the network's input, (N, *space, C).
      content_losses: The relative squared error of the content activations of each image, (N,).
      style_losses: The relative squared error of the Gram matrices of each image, (N,).
      variations: The total variation of each image, (N,).
      history: The loss that is minimised, before each step, (steps, N).
    """

    images: Float[Array, "n *space channels"]
    content_losses: Float[Array, " n"]
    style_losses: Float[Array, " n"]
    variations: Float[Array, " n"]
    history: Float[Array, "steps n"]


def gram_matrix(activation: Shaped[AnyArray, "n *space channels"]) -> Float[Array, "n channels channels"]:
    """The mean over all positions of the products of every two channels, which does not depend on where things are.

    Args:
      activation: Of shape (N, *space, C), of any rank.

    Returns:
      Shape (N, C, C).

    References:
      Gatys, Ecker and Bethge, Image style transfer using convolutional neural networks, 2016, equation 3, divided by
      the number of positions.

    >>> gram_matrix(jnp.array([[[1.0, 2.0], [3.0, 0.0]]]))  # (1 + 9) / 2, 1 * 2 / 2, 4 / 2
    Array([[[5., 1.],
            [1., 2.]]], dtype=float32)
    """
    rows = jnp.asarray(activation).reshape(len(activation), -1, activation.shape[-1])
    return jnp.einsum("nmi,nmj->nij", rows, rows) / rows.shape[1]


def total_variation(images: Shaped[AnyArray, "n *space channels"]) -> Float[Array, " n"]:
    """The mean absolute difference of neighbouring values, summed over the axes of space.

    Args:
      images: Of shape (N, *space, C), of any rank.

    Returns:
      Shape (N,).

    References:
      Mahendran and Vedaldi, Understanding deep image representations by inverting them, 2015; here with absolute
      differences.

    >>> total_variation(jnp.array([[[[0.0], [1.0]], [[0.0], [3.0]]]]))  # along rows (0 + 2) / 2, along columns 2
    Array([3.], dtype=float32)
    """
    images = jnp.asarray(images)
    steps = [jnp.abs(jnp.diff(images, axis=axis)) for axis in range(1, images.ndim - 1)]
    return sum((step.reshape(len(images), -1).mean(axis=1) for step in steps), jnp.zeros(len(images), images.dtype))


def style_transfer(
    function: Function,
    content: Shaped[AnyArray, "..."],
    style: Shaped[AnyArray, "..."],
    *,
    content_layers: Layers,
    style_layers: Layers,
    content_weight: Number = 1.0,
    style_weight: Number = 10.0,
    variation_weight: Number = 0.1,
    steps: int = 256,
    value_range: tuple[int | float, int | float] = (0.0, 1.0),
    optimizer: optax.GradientTransformation | None = None,
    start: Shaped[AnyArray, "..."] | None = None,
) -> StyledImages:
    """Draws the content of images in the style of others: an optimisation over the input, with the weights fixed.

    The loss of an image is ``content_weight`` times the squared error of its activations from those of the content
    image, plus ``style_weight`` times the squared error of the Gram matrices of its activations from those of the style
    image, plus ``variation_weight`` times its total variation in units of the value range. In each layer the errors are
    divided by the squared norm of what they are compared with, so that the same weights suit networks whose
    activations have other magnitudes; the paper scales the network's weights instead, and its weights are not
    comparable.

    Args:
      function: A network that returns its activations, called as ``function(x, return_activations=True)``; a Flax
        module must be in evaluation mode.
      content: The images whose content is kept, (N, *space, C); float32 or float64.
      style: The images whose style is taken: one for each content image or one for all, of any size.
      content_layers: The names of activations that hold the content, or a mapping from names to weights.
      style_layers: The names of activations whose Gram matrices are the style, or a mapping from names to weights.
      content_weight: The weight of the content, at least 0.
      style_weight: The weight of the style, at least 0.
      variation_weight: The weight of the total variation, at least 0.
      steps: The number of steps.
      value_range: The range (low, high) of the data's values, in units of ``content``. Images stay inside.
      optimizer: The optimiser of the images in units of the range; by default Adam with a learning rate that falls from
        0.02 to 0 along a cosine.
      start: The initial images, (N, *space, C); the content images by default.

    Returns:
      The images, their losses, and the history of the loss.

    Raises:
      UsageError: The function has no such activation, or an image, a weight or another argument is not valid.

    References:
      Lecture 003, "Next time: artistic style"; Gatys, Ecker and Bethge, Image style transfer using convolutional neural
      networks, 2016; Mahendran and Vedaldi, Understanding deep image representations by inverting them, 2015 (the total
      variation).

    >>> from flax import nnx
    >>> from cnn_jax import models
    >>> model = models.create("small_cnn", input_shape=(16, 16, 3), rngs=nnx.Rngs(0))
    >>> model.eval()
    >>> photo, painting = jnp.full((1, 16, 16, 3), 0.5), jnp.eye(16)[None, ..., None].repeat(3, axis=-1)
    >>> found = style_transfer(model, photo, painting, content_layers=["conv2"], style_layers=["conv1"], steps=20)
    >>> bool(found.history[-1, 0] < found.history[0, 0])
    True
    """
    op = "style_transfer"
    content, style = check_images(op, content), check_images(op, style)
    image = content if start is None else check_images(op, start)
    if isinstance(function, nnx.Module):
        check_ready(op, function)
    steps = integer(op, "steps", steps, least=1)
    weights = {"content_weight": content_weight, "style_weight": style_weight, "variation_weight": variation_weight}
    for name, weight in weights.items():
        check_number(op, name, weight, least=0)
    if image.shape != content.shape:
        raise UsageError(f"{op}: start has shape {image.shape}, but the content images have {content.shape}")
    if style.ndim != content.ndim or style.shape[-1] != content.shape[-1] or len(style) not in (1, len(content)):
        raise UsageError(
            f"{op}: style images of shape {style.shape} do not fit content images of shape {content.shape}; give one "
            f"or {len(content)}, with {content.shape[-1]} channels"
        )
    low, high = limits(op, value_range)
    unit = high - low
    optimizer = optimizer or optax.adam(optax.cosine_decay_schedule(RATE, steps))
    of_content, of_style = _layer_weights(op, "content", content_layers), _layer_weights(op, "style", style_layers)
    kept = activations(op, function, content, list(of_content))
    taken = [gram_matrix(found) for found in activations(op, function, style, list(of_style))]

    def losses(images: Array) -> tuple[Array, Array, Array]:
        found = activations(op, function, images, [*of_content, *of_style])
        grams = [gram_matrix(activation) for activation in found[len(of_content) :]]
        return (
            _error(found[: len(of_content)], kept, of_content),
            _error(grams, taken, of_style),
            total_variation(images / unit),
        )

    def total(z: Array) -> tuple[Array, Array]:
        of_content, of_style, variations = losses(unit * z)
        each = content_weight * of_content + style_weight * of_style + variation_weight * variations
        return each.sum(), each

    def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], Array]:
        z, state = carry
        gradient, each = jax.grad(total, has_aux=True)(z)
        updates, state = optimizer.update(gradient, state, z)
        return (optax.apply_updates(z, updates).clip(low / unit, high / unit), state), each

    first = image / unit
    (z, _), history = jax.lax.scan(step, (first, optimizer.init(first)), length=steps)
    return StyledImages(unit * z, *losses(unit * z), history)


def _layer_weights(op: str, kind: str, layers: Layers) -> dict[str, float]:
    """Name of an activation -> its weight; equal weights sum to 1."""
    if isinstance(layers, str) or not layers:
        raise UsageError(f"{op}: {kind}_layers={layers!r} must name one activation or more, as a list")
    weights = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers, 1 / len(layers))
    for name, weight in weights.items():
        check_number(op, f"the weight of {kind} layer {name}", weight, least=0)
    return weights


def _error(found: Sequence[Array], expected: Sequence[Array], weights: Mapping[str, float]) -> Float[Array, " n"]:
    """The weighted sum of the squared errors of each example, in units of the squared norm of what is expected."""

    def squared_norms(array: Array) -> Array:
        return jnp.square(array).reshape(len(array), -1).sum(axis=1)

    errors = [
        weight * squared_norms(mine - other) / jnp.maximum(squared_norms(other), 1e-12)
        for mine, other, weight in zip(found, expected, weights.values(), strict=True)
    ]
    return sum(errors[1:], errors[0])
