"""The output layer of LeNet-5 against its definition."""

import jax
import numpy as np
from jax.test_util import check_grads

from cnn_jax import ops


def test_rbf_output():
    rng = np.random.default_rng(0)
    x, centers = rng.standard_normal((6, 84)), rng.choice([-1.0, 1.0], (10, 84))
    with jax.enable_x64(True):
        expected = [[((one - center) ** 2).sum() for center in centers] for one in x]
        np.testing.assert_allclose(ops.rbf_output(x, centers), expected, rtol=1e-12)
        check_grads(ops.rbf_output, (x, centers), order=1, modes=["rev"])
        np.testing.assert_array_equal(ops.rbf_output(centers[3], centers).argmin(), 3)
