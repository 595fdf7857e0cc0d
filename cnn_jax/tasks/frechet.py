"""The Fréchet distance between two sets of features, by which sets of images are compared.

Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash equilibrium", NeurIPS 2017.
"""

import numpy as np
from jaxtyping import Float, Shaped


def frechet_distance(first: Shaped[np.ndarray, "n features"], second: Shaped[np.ndarray, "m features"]) -> float:
    """The squared Fréchet distance between the normal distributions with the means and covariances of two sets.

    It is ``|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½)``, in float64. Covariances are divided by n - 1. It depends on the
    numbers of examples and is above 0 for two samples of the same distribution: compare it with that of real images
    from real ones.

    Args:
      first: Features of at least two examples.
      second: Those of the others.

    Returns:
      The distance; NaN if a feature is not finite.

    >>> some = np.random.default_rng(0).normal(size=(1000, 3))
    >>> round(frechet_distance(some, some + 2), 6)  # 3 x 2²
    12.0
    """
    sets = [np.asarray(features, np.float64) for features in (first, second)]
    if not all(np.isfinite(features).all() for features in sets):
        return float("nan")
    means = [features.mean(axis=0) for features in sets]
    covariances = [np.atleast_2d(np.cov(features, rowvar=False)) for features in sets]
    return frechet_distance_of_normals(means[0], covariances[0], means[1], covariances[1])


def frechet_distance_of_normals(
    first_mean: Float[np.ndarray, " features"],
    first_covariance: Float[np.ndarray, "features features"],
    second_mean: Float[np.ndarray, " features"],
    second_covariance: Float[np.ndarray, "features features"],
) -> float:
    """The squared Fréchet distance between two normal distributions.

    The trace of the root of ``C1 C2`` is the sum of the roots of the eigenvalues of ``C1^½ C2 C1^½``, which is
    symmetric. Covariances of fewer examples than features are no problem.

    >>> frechet_distance_of_normals(np.zeros(2), np.eye(2), np.ones(2), 4 * np.eye(2))  # 2 x (1² + (2 - 1)²)
    4.0
    """
    values, vectors = np.linalg.eigh(first_covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    of_product = np.linalg.eigvalsh(root @ second_covariance @ root)
    traces = np.trace(first_covariance) + np.trace(second_covariance) - 2 * np.sqrt(of_product.clip(0)).sum()
    return float(np.square(first_mean - second_mean).sum() + traces)
