"""U-Net's weight map: pixels between two objects that nearly touch count more."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from cnn_jax.typed import typed


@typed
def border_weights(
    classes: Shaped[np.ndarray, "*space"], *, weight: float, sigma: float, ignored: int | None = None
) -> Float32[np.ndarray, "*space"]:
    """``w0 exp(-(d1 + d2)^2 / (2 sigma^2))`` of the background, 0 elsewhere; to be added to the weight of the class.

    ``d1`` and ``d2`` are the distances to the nearest and the second nearest object, in pixels. Objects are the
    connected parts of the pixels whose class is not 0; along an axis only, so objects that touch at a corner are two.

    Args:
      classes: Class numbers, of any number of axes.
      weight: ``w0``, 10 in the paper.
      sigma: In pixels, 5 in the paper.
      ignored: The class number of pixels that are no part of an object.

    References:
      Ronneberger, Fischer and Brox, U-Net: convolutional networks for biomedical image segmentation, 2015, equation 2.

    >>> border_weights(np.array([[1, 0, 1]]), weight=10.0, sigma=2.0).round(3)
    array([[0.   , 6.065, 0.   ]], dtype=float32)
    """
    from scipy import ndimage

    inside = classes != 0
    if ignored is not None:
        inside &= classes != ignored
    objects, count = ndimage.label(inside)
    first = np.full(classes.shape, np.inf)
    second = np.full(classes.shape, np.inf)
    reach = int(np.ceil(8 * sigma))  # of two objects at this distance the weight is below 1e-13
    for number, place in enumerate(ndimage.find_objects(objects), start=1):
        around = tuple(
            slice(max(0, axis.start - reach), min(size, axis.stop + reach))
            for axis, size in zip(place, classes.shape, strict=True)
        )
        distance = ndimage.distance_transform_edt(objects[around] != number)
        nearer = distance < first[around]
        second[around] = np.where(nearer, first[around], np.minimum(second[around], distance))
        first[around] = np.where(nearer, distance, first[around])
    weights = weight * np.exp(-np.square(first + second) / (2 * sigma**2)) if count > 1 else np.zeros(classes.shape)
    return np.where(classes == 0, weights, 0).astype(np.float32)


@typed
@dataclasses.dataclass(frozen=True)
class BorderWeights:
    """The weight map of one example, from its mask; see :func:`border_weights`.

    Attributes:
      label: The field of the mask.
      weight: ``w0``.
      sigma: In pixels.
      ignored: The class number of pixels that are no part of an object.
    """

    label: str
    weight: float
    sigma: float
    ignored: int | None = None

    def __call__(self, example: Mapping[str, Any]) -> Float32[np.ndarray, "..."]:
        """The map of an example, a mapping from fields to values."""
        classes = np.asarray(example[self.label])
        return border_weights(classes, weight=self.weight, sigma=self.sigma, ignored=self.ignored)
