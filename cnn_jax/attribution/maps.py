"""Methods that score positions of an image: Grad-CAM from an activation, and occlusion from changed images."""

import math
from collections.abc import Sequence
from string import ascii_letters

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from cnn_jax.attribution.gradients import check_baseline, total
from cnn_jax.attribution.target import Function, Target, check_images, objective
from cnn_jax.errors import UsageError
from cnn_jax.ops.arguments import AnyArray, check_axes, integer, per_axis, window_sizes


def grad_cam(
    function: Function,
    x: Shaped[AnyArray, "..."],
    target: Target,
    *,
    activation: str | None,
    of: str = "score",
    resize: bool = True,
) -> Float[Array, "..."]:
    """Computes where those channels of an activation are active that increase the target (Grad-CAM).

    The channels are summed with the means of their gradients as weights, and negative sums become 0.

    Args:
      function: A network whose activations can be replaced, ``model(x, intercept={name: function})``, such as
        :class:`cnn_jax.nn.Sequence`; or any function, with ``activation=None``.
      x: A batch of inputs with channels last, (N, *space, C); bfloat16, float16, float32 or float64.
      target: A class, a unit or a function of the output; see :mod:`cnn_jax.attribution.target`.
      activation: The name of an activation with spatial axes, often the last. With None ``x`` is the activation, and
        the function is the rest of the network; for networks that you split yourself.
      of: Whether a class means its ``'score'`` or its ``'probability'``, as in :func:`cnn_jax.attribution.gradient`.
      resize: Whether to interpolate the map linearly to the size of ``x``; else it has the size of the activation.

    Returns:
      The map, (N, *space, 1), at least 0.

    Raises:
      UsageError: There is no such activation, or it has no spatial axes; the input, the function or the target is not
        valid.

    References:
      Selvaraju et al., Grad-CAM: visual explanations from deep networks via gradient-based localization, 2017.

    >>> from cnn_jax import models
    >>> model = models.create("lenet_5_modern")
    >>> grad_cam(model, jnp.ones((2, 32, 32, 1)), target=3, activation="c3").shape
    (2, 32, 32, 1)
    """
    op = "grad_cam"
    numbers, x = objective(op, function, target, of=of), check_images(op, x)
    if activation is None:
        seen = [x]
    else:
        seen = []
        numbers(x, intercept={activation: seen.append})  # append returns None: the activation stays as it is
    (array,) = seen
    if array.ndim < 3 or (resize and array.ndim != x.ndim):
        raise UsageError(
            f"{op}: activation {activation!r} of shape {array.shape} has no spatial axes like those of x, of shape "
            f"{x.shape}; choose an earlier one"
        )

    def value(array: Array) -> Float[Array, ""]:
        return total(numbers(array) if activation is None else numbers(x, intercept={activation: lambda _: array}))

    weights = jax.grad(value)(array).mean(tuple(range(1, array.ndim - 1)), keepdims=True)
    found = jax.nn.relu((weights * array).sum(axis=-1, keepdims=True)).astype(x.dtype)
    return jax.image.resize(found, (*x.shape[:-1], 1), "linear") if resize else found


def occlusion(
    function: Function,
    x: Shaped[AnyArray, "..."],
    target: Target,
    *,
    window: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    baseline: Shaped[AnyArray, "..."] | float = 0.0,
    of: str = "score",
    batch_size: int = 1,
) -> Float[Array, "..."]:
    """Computes how much the target decreases when a window of the image is covered.

    A pixel gets the mean decrease over the windows that cover it. The last windows of an axis may extend beyond it.

    Args:
      function: Any JAX function of ``x``; a Flax module must be in evaluation mode. It needs no gradient.
      x: A batch of inputs with channels last, (N, *space, C); bfloat16, float16, float32 or float64.
      target: A class, a unit or a function of the output; see :mod:`cnn_jax.attribution.target`.
      window: Sizes of the window, one per spatial axis, or one for all of them.
      strides: The distances between windows, at most the size of the window; equal to the window by default.
      baseline: The values in a covered window: a number, one number per channel, one input of shape ``x.shape[1:]``, or
        a batch of the shape of ``x``.
      of: The same as in :func:`grad_cam`.
      batch_size: How many windows are computed at the same time, for all images. A larger number needs more memory, and
        is faster for small batches.

    Returns:
      The mean decreases, (N, *space, 1).

    Raises:
      UsageError: The window or the baseline does not fit, the strides leave gaps, or the target returns one number for
        several images; the input, the function or the target is not valid.

    References:
      Zeiler and Fergus, Visualizing and understanding convolutional networks, 2014, section 4.2.

    >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]
    >>> occlusion(lambda x: x.sum((1, 2)), x, target=0, window=(1, 2))[0, :, :, 0]
    Array([[3., 3.],
           [7., 7.]], dtype=float32)
    """
    op = "occlusion"
    numbers, x = objective(op, function, target, of=of), check_images(op, x)
    windows = window_sizes(op, "window", window, x)
    check_axes(op, x, len(windows), f"window={window}")
    space = x.shape[1:-1]
    if len(windows) != len(space) or any(size > full for size, full in zip(windows, space, strict=True)):
        raise UsageError(f"{op}: window={windows} does not fit into the spatial axes {space} of x of shape {x.shape}")
    steps = windows if strides is None else per_axis(op, "strides", strides, len(space))
    if any(step > size for step, size in zip(steps, windows, strict=True)):
        raise UsageError(f"{op}: strides={steps} leave gaps between windows of {windows}; use at most their sizes")
    batch_size = integer(op, "batch_size", batch_size, least=1)
    cover = check_baseline(op, baseline, x)
    before = numbers(x)
    if before.shape != (len(x),) and len(x) > 1:
        raise UsageError(f"{op}: the target returns one number for {len(x)} images; return one per image")
    # For each axis, the positions that each window covers: (windows, positions).
    masks = [_covered(*sizes) for sizes in zip(space, windows, steps, strict=True)]
    counts = [len(mask) for mask in masks]

    def after(index: Array) -> Array:
        """The targets with one window covered."""
        mask = jnp.ones((), bool)
        for axis, (mine, number) in enumerate(zip(masks, jnp.unravel_index(index, counts), strict=True)):
            mask = mask & jnp.asarray(mine)[number].reshape([-1 if i == axis else 1 for i in range(len(space) + 1)])
        return numbers(jnp.where(mask, cover, x))

    indices = jnp.arange(math.prod(counts))
    decreases = before - lax.map(after, indices, batch_size=None if batch_size == 1 else batch_size)
    # The sum over the windows that cover a position, axis by axis.
    wide = [ascii_letters[axis] for axis in range(len(space))]
    positions = [letter.upper() for letter in wide]
    pairs = ",".join(f"{one}{other}" for one, other in zip(wide, positions, strict=True))
    sums = jnp.einsum(
        f"{''.join(wide)}n,{pairs}->n{''.join(positions)}",
        decreases.reshape(*counts, len(x)),
        *(mask / mask.sum(axis=0) for mask in masks),
    )
    return sums[..., None].astype(x.dtype)


def _covered(size: int, window: int, stride: int) -> np.ndarray:
    """Which positions of an axis each window covers, as (windows, size)."""
    starts = np.arange(-(-(size - window) // stride) + 1)[:, None] * stride
    return (np.arange(size) >= starts) & (np.arange(size) < starts + window)
