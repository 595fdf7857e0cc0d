"""Losses against PyTorch: values and gradients."""

import functools

import jax
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cnn_jax import ops
from tests.compiled import with_gradients
from tests.parity.test_pool import draw

LOGITS = 3 * draw((12, 5))
CLASSES = np.random.default_rng(1).integers(0, 5, 12)
WITH_IGNORED = np.where(np.arange(12) % 3 == 0, -1, CLASSES)
MIXED = np.random.default_rng(2).dirichlet(np.ones(5), 12).astype(np.float32)
WEIGHTS = np.array([0.5, 1, 2, 0, 4], np.float32)
SEVERAL = np.random.default_rng(3).integers(0, 2, (12, 5)).astype(np.float32)


def assert_same(ours, theirs, x, labels):
    """Losses of the same arrays, and the gradients of their sum."""
    reference = torch.tensor(x, requires_grad=True)
    expected = theirs(reference, torch.tensor(labels))
    losses, gradient = with_gradients(lambda x: ours(x, labels))(np.ones(expected.shape, np.float32), x)
    np.testing.assert_allclose(losses, expected.detach(), rtol=1e-5, atol=1e-6)
    (expected,) = torch.autograd.grad(expected.sum(), reference)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("labels", [CLASSES, WITH_IGNORED, MIXED], ids=["classes", "ignored", "mixed"])
def test_softmax_cross_entropy(labels, weights, smoothing):
    weight = None if weights is None else torch.tensor(weights)
    assert_same(
        functools.partial(ops.softmax_cross_entropy, label_smoothing=smoothing, class_weights=weights),
        lambda z, labels: F.cross_entropy(
            z, labels, weight, label_smoothing=smoothing, ignore_index=-1, reduction="none"
        ),
        LOGITS,
        labels,
    )


def test_weighted_mean():
    """The two means in the documentation of class weights."""
    losses = ops.softmax_cross_entropy(LOGITS, WITH_IGNORED, class_weights=WEIGHTS)
    counted = WITH_IGNORED != -1
    weight = {"weight": torch.tensor(WEIGHTS), "ignore_index": -1}
    logits, labels = torch.tensor(LOGITS), torch.tensor(WITH_IGNORED)
    mean = F.cross_entropy(logits, labels, **weight)
    np.testing.assert_allclose(losses.sum() / WEIGHTS[WITH_IGNORED[counted]].sum(), mean, rtol=1e-6)
    unweighted = ops.softmax_cross_entropy(LOGITS, WITH_IGNORED)
    mean = F.cross_entropy(logits, labels, ignore_index=-1)
    np.testing.assert_allclose(unweighted.sum() / np.maximum(counted.sum(), 1), mean, rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 1, 2])
def test_softmax_focal_loss(gamma):
    def theirs(z, labels):
        logarithm = F.log_softmax(z, -1).gather(1, labels[:, None])[:, 0]
        return -torch.tensor(WEIGHTS)[labels] * (1 - logarithm.exp()) ** gamma * logarithm

    assert_same(functools.partial(ops.softmax_focal_loss, gamma=gamma, class_weights=WEIGHTS), theirs, LOGITS, CLASSES)


@pytest.mark.parametrize("pos_weight", [None, WEIGHTS])
@pytest.mark.parametrize("labels", [SEVERAL, MIXED], ids=["several", "shares"])
def test_sigmoid_cross_entropy(labels, pos_weight):
    weight = None if pos_weight is None else torch.tensor(pos_weight)
    assert_same(
        functools.partial(ops.sigmoid_cross_entropy, pos_weight=pos_weight),
        lambda z, labels: F.binary_cross_entropy_with_logits(z, labels, pos_weight=weight, reduction="none"),
        LOGITS,
        labels,
    )


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2), (0.9, 1.5), (None, 2)])
def test_sigmoid_focal_loss(alpha, gamma):
    def theirs(z, labels):
        """The same as torchvision.ops.sigmoid_focal_loss."""
        p = torch.sigmoid(z)
        losses = F.binary_cross_entropy_with_logits(z, labels, reduction="none")
        losses = losses * (1 - (p * labels + (1 - p) * (1 - labels))) ** gamma
        return losses if alpha is None else (alpha * labels + (1 - alpha) * (1 - labels)) * losses

    assert_same(functools.partial(ops.sigmoid_focal_loss, alpha=alpha, gamma=gamma), theirs, LOGITS, SEVERAL)


def test_errors_of_a_regression():
    for ours, theirs in (
        (ops.mean_squared_error, F.mse_loss),
        (ops.mean_absolute_error, F.l1_loss),
        (functools.partial(ops.huber_loss, delta=0.7), functools.partial(F.huber_loss, delta=0.7)),
    ):
        assert_same(ours, lambda x, y, loss=theirs: loss(x, y, reduction="none").mean(-1), LOGITS, draw((12, 5), 4))


def test_jit_of_ignored_labels():
    """PyTorch's sum over the examples that are not ignored, where labels are arguments of a compiled program."""
    expected = F.cross_entropy(torch.tensor(LOGITS), torch.tensor(WITH_IGNORED), ignore_index=-1, reduction="sum")
    actual = jax.jit(lambda z, labels: ops.softmax_cross_entropy(z, labels).sum())(LOGITS, WITH_IGNORED)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
