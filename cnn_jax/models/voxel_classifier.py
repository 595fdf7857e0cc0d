"""A linear classifier of each pixel or voxel on filter responses around it, which needs no learned features.

The features that brain tumours were segmented with before networks learned them: smoothed images, derivatives and
Laplacians of Gaussians at several scales, the maxima of responses in a neighbourhood, and the place in the image.
"""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import zeros
from jaxtyping import Array, DTypeLike, Shaped

from cnn_jax import filters, nn, ops
from cnn_jax.errors import UsageError
from cnn_jax.models.variant import Variant
from cnn_jax.ops.arguments import AnyArray


class FilterBank(nnx.Module):
    """Fixed features of each pixel, as channels.

    Of every input channel: its value, and for each scale sigma the Gaussian average, the derivative along each axis
    times sigma, the Laplacian times sigma^2, and the maxima of the Laplacian, its negative and the norm of the gradient
    in a neighbourhood. Then the place along each axis, from -1 to 1, and its square. Images are mirrored at their
    borders.

    Args:
      sigmas: The standard deviations of the Gaussians, in pixels.
      neighborhood: The size of the window of the maxima, in pixels, along each axis.
      location: Whether the place is among the features. Then all images should be of one size, and whole.

    >>> FilterBank((1.0, 2.0))(jnp.ones((1, 8, 8, 3))).shape
    (1, 8, 8, 49)
    """

    def __init__(self, sigmas: Sequence[float], *, neighborhood: int = 5, location: bool = True) -> None:
        self.sigmas, self.neighborhood, self.location = tuple(sigmas), neighborhood, location

    def features(self, channels: int, rank: int) -> int:
        """The number of features of an input with ``channels`` channels and ``rank`` spatial axes."""
        return channels * (1 + len(self.sigmas) * (rank + 5)) + (2 * rank if self.location else 0)

    def __call__(self, inputs: Shaped[AnyArray, "batch *space channels"]) -> Shaped[Array, "batch *space features"]:
        """Maps ``(batch, *space, C)`` to ``(batch, *space, features)``."""
        x = jnp.asarray(inputs)
        rank = x.ndim - 2
        found = [x]
        for sigma in self.sigmas:
            smooth = x
            for axis in range(rank):
                smooth = _along(smooth, filters.gaussian(sigma, rank=1), axis, rank)
            slopes = [sigma * _along(smooth, jnp.array([-0.5, 0.0, 0.5]), axis, rank) for axis in range(rank)]
            bends = [_along(smooth, jnp.array([1.0, -2.0, 1.0]), axis, rank) for axis in range(rank)]
            laplacian = sigma**2 * jnp.sum(jnp.stack(bends), axis=0)
            steepness = jnp.sqrt(jnp.sum(jnp.square(jnp.stack(slopes)), axis=0) + 1e-12)
            strongest = partial(ops.max_pool, window=(self.neighborhood,) * rank, strides=1, padding="SAME")
            maxima = [strongest(response) for response in (laplacian, -laplacian, steepness)]
            found += [smooth, *slopes, laplacian, *maxima]
        if self.location:
            for axis, size in enumerate(x.shape[1:-1], start=1):
                place = jnp.linspace(-1, 1, size, dtype=x.dtype).reshape(
                    [size if k == axis else 1 for k in range(x.ndim)]
                )
                place = jnp.broadcast_to(place, (*x.shape[:-1], 1))
                found += [place, jnp.square(place)]
        return jnp.concatenate(found, axis=-1)


def voxel_classifier(
    *,
    num_classes: int,
    input_shape: tuple[int, ...],
    width: float,
    dtype: DTypeLike | None,
    rngs: nnx.Rngs,
    sigmas: Sequence[float] = (1.0, 2.0, 4.0),
    neighborhood: int = 5,
    location: bool = True,
) -> nn.Sequence:
    """Logistic regression of the class of each pixel on standardised filter responses.

    Args:
      num_classes: The number of outputs for each pixel.
      input_shape: The shape of one input, (*space, channels).
      width: Not used: the features are fixed.
      dtype: The type to compute in.
      rngs: Draws the parameters, which start at zero.
      sigmas: The standard deviations of the Gaussians, in pixels. Without any the features are the values of the pixel
        alone.
      neighborhood: The size of the window of the maxima, in pixels, along each axis.
      location: Whether the place in the image is among the features.

    Raises:
      UsageError: A scale is not above 0, or the neighborhood is below 1.
    """
    if min(sigmas, default=1) <= 0 or neighborhood < 1:
        raise UsageError(
            f"sigmas={tuple(sigmas)}, neighborhood={neighborhood}: scales must be above 0 and it at least 1"
        )
    rank, channels = len(input_shape) - 1, input_shape[-1]
    bank = FilterBank(sigmas, neighborhood=neighborhood, location=location)
    features = bank.features(channels, rank)
    standardize = nn.BatchNorm(features, momentum=0.9, use_bias=False, use_scale=False, dtype=dtype, rngs=rngs)
    output = nn.Conv(features, num_classes, (1,) * rank, kernel_init=zeros, dtype=dtype, rngs=rngs)
    return nn.Sequence({"filters": bank, "standardize": standardize, "output": output})


def _along(x: Array, kernel: Array, axis: int, rank: int) -> Array:
    """Each channel filtered along one spatial axis."""
    return filters.apply(x, kernel.reshape([-1 if other == axis else 1 for other in range(rank)]))


VARIANTS = {"voxel_classifier": Variant(voxel_classifier, (240, 240, 4), 4, any_rank=True)}
