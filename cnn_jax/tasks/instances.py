"""Scores of how well a segmentation separates objects: the Rand error and the variation of information.

Two segmentations are compared as partitions of the pixels into objects, whatever the objects are called. A gap of one
pixel in a membrane joins two cells, which hardly changes the pixel accuracy, but these scores.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Integer, Shaped


class InstanceScores(NamedTuple):
    """How far the predicted objects are from the true ones; both 0 if they are the same.

    Attributes:
      rand_error: One minus the F score of pairs of pixels that are in one object.
      variation_of_information: In bits: ``split + merge``.
      split: The entropy of the predicted object of a pixel, given its true one.
      merge: The entropy of the true object of a pixel, given its predicted one.
    """

    rand_error: float
    variation_of_information: float
    split: float
    merge: float


def connected_objects(classes: Integer[np.ndarray, "*space"]) -> Int[np.ndarray, "*space"]:
    """Numbers of the connected parts of the pixels whose class is not 0, from 1; 0 for the others.

    Pixels are connected along the axes only, not at corners.

    >>> connected_objects(np.array([[1, 0, 1], [1, 0, 1]])).tolist()
    [[1, 0, 2], [1, 0, 2]]
    """
    from scipy import ndimage

    return ndimage.label(classes != 0)[0].astype(np.int64)


def instance_scores(truth: Shaped[np.ndarray, "*space"], predicted: Shaped[np.ndarray, "*space"]) -> InstanceScores:
    """The Rand error and the variation of information of one image, over the pixels that are in a true object.

    Args:
      truth: The number of the true object of each pixel; pixels of 0, such as membranes, are left out.
      predicted: The same of the predicted objects. A pixel that is in none is an object of its own class, 0.

    References:
      Arganda-Carreras et al., Crowdsourcing the creation of image segmentation algorithms for connectomics, 2015;
      Meila, Comparing clusterings, an information based distance, 2007.

    >>> scores = instance_scores(np.array([1, 1, 2, 2]), np.array([5, 5, 5, 5]))
    >>> scores.variation_of_information, round(scores.rand_error, 3)
    (1.0, 0.5)
    """
    inside = truth != 0
    if not inside.any():
        return InstanceScores(0.0, 0.0, 0.0, 0.0)
    _, true = np.unique(truth[inside], return_inverse=True)
    _, given = np.unique(predicted[inside], return_inverse=True)
    joint = np.unique(np.stack([true, given]), axis=1, return_counts=True)[1]
    tables = [counts.astype(np.float64) for counts in (joint, np.bincount(true), np.bincount(given))]
    pairs, of_true, of_given = ((counts * (counts - 1)).sum() for counts in tables)
    f_score = 2 * pairs / (of_true + of_given) if of_true + of_given else 1.0
    entropy, entropy_true, entropy_given = (_entropy(counts / inside.sum()) for counts in tables)
    split, merge = max(0.0, entropy - entropy_true), max(0.0, entropy - entropy_given)
    return InstanceScores(float(1 - f_score), split + merge, split, merge)


def _entropy(shares: np.ndarray) -> float:
    return float(-(shares * np.log2(shares)).sum())
