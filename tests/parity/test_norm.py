"""Normalisations against PyTorch: outputs and gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from flax import nnx

from cnn_jax import nn, ops
from tests.parity.test_pool import assert_same, channels_first, channels_last, draw


@pytest.mark.parametrize(("size", "channels"), [(5, 8), (5, 32), (3, 3), (4, 20)])
def test_local_response_norm(size, channels):
    numbers = {"alpha": 0.5, "beta": 0.75, "k": 1.5}
    assert_same(
        lambda x: ops.local_response_norm(x, size=size, convention="torch", **numbers),
        lambda t: F.local_response_norm(t, size, **numbers),
        draw((2, 5, 4, channels)),
        tolerance=1e-5,
    )


def test_batch_norm_in_training():
    x, scale, bias = draw((4, 5, 6, 3)), draw((3,), 1), draw((3,), 2)

    def ours(x):
        mean, variance = ops.batch_statistics(x)
        return ops.batch_norm(x, mean=mean, variance=variance, scale=scale, bias=bias)

    parameters = {"weight": torch.tensor(scale), "bias": torch.tensor(bias)}
    assert_same(ours, lambda t: F.batch_norm(t, None, None, training=True, **parameters), x, tolerance=1e-5)


def test_running_statistics():
    x = draw((4, 5, 6, 3))
    ours = nn.BatchNorm(3, momentum=0.9, rngs=nnx.Rngs(0))
    theirs = torch.nn.BatchNorm2d(3, momentum=0.1)
    y = ours(x, train=True)
    np.testing.assert_allclose(y, channels_last(theirs(channels_first(x))), atol=1e-5)
    np.testing.assert_allclose(ours.mean[...], theirs.running_mean, atol=1e-6)
    # PyTorch keeps the unbiased variance, Flax and this module the biased one.
    count = 4 * 5 * 6
    unbiased = 0.9 + (ours.var[...] - 0.9) * count / (count - 1)
    np.testing.assert_allclose(unbiased, theirs.running_var, atol=1e-6)
