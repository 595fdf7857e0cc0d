"""Examples that two sets have in common, by their content: their score tells nothing about new examples."""

import numpy as np

from cnn_jax.data.dataset import Dataset
from cnn_jax.data.records import Records
from cnn_jax.typed import typed


@typed
def count_shared(trained: Dataset | Records, scored: Dataset | Records) -> int:
    """How many examples of one set have the same content as an example of another, whatever their labels are.

    In memory, images (or what else is the input) are the same if their pixels are. A set that is left on disk is not
    read for this: images are the same if their files are, or their places in a file of TFDS; where neither is known,
    none are.

    Args:
      trained: The set that is trained on.
      scored: The set whose examples are counted.

    Example:
      >>> from cnn_jax import data
      >>> count_shared(data.load("digits", "train"), data.load("digits", "test+train[:5]"))
      5
    """
    if trained.hashes is None or scored.hashes is None:
        return 0
    return int(np.isin(scored.hashes, trained.hashes).sum())
