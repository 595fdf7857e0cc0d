"""Sets of images of two domains that are no pairs."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

from cnn_jax.data.dataset import Dataset
from cnn_jax.errors import UsageError
from cnn_jax.typed import typed


@typed
def unpaired(name: str, split: str, domains: Mapping[str, Shaped[np.ndarray, "..."]]) -> Dataset:
    """Two domains of images as one set, each example with an image of both, for the task ``cyclegan``.

    An image of one domain says nothing about the image of the other one beside it. If one domain has fewer images,
    they are repeated.

    Args:
      name: The data set's name.
      split: The split expression that was read.
      domains: Name of a domain -> its images, uint8 (0..255) or float32 (0..1), shape ``(n, height, width, channels)``.
        The name of the first one is ``'image'``, that of the other one is free.

    Raises:
      UsageError: There are not two domains, or one of them has no images, or their images differ in shape.

    Example:
      >>> horses, zebras = np.zeros((3, 8, 8, 3), np.uint8), np.ones((2, 8, 8, 3), np.uint8)
      >>> both = unpaired("animals", "train", {"image": horses, "zebra": zebras})
      >>> len(both), both.fields["zebra"].shape
      (3, (3, 8, 8, 3))
    """
    where = f"data set {name!r}, split {split!r}"
    if len(domains) != 2 or "image" not in domains:
        raise UsageError(f"{where}: give two domains, 'image' and one other, not {', '.join(map(repr, domains))}")
    for domain, images in domains.items():
        if not len(images):
            raise UsageError(f"{where}: the domain {domain!r} has no images; each of the two domains needs some")
    shapes = {domain: images.shape[1:] for domain, images in domains.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"those of {domain!r} are {shape}" for domain, shape in shapes.items())
        raise UsageError(f"{where}: the images of both domains need one shape, but {told}")
    count = max(map(len, domains.values()))
    fields = {domain: images[np.arange(count) % len(images)] for domain, images in domains.items()}
    return Dataset(name, split, fields, dict.fromkeys(domains, "image"))
