"""Losses against their definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from cnn_jax import ops
from cnn_jax.errors import UsageError


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_cross_entropy(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((4, 3, 5)), rng.integers(0, 5, (4, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    target = (1 - smoothing) * np.eye(5)[labels] + smoothing / 5
    expected = -(target * np.log(probabilities)).sum(axis=-1)
    with jax.enable_x64(True):
        for kind in (labels, np.eye(5)[labels]):
            losses = ops.softmax_cross_entropy(logits, kind, label_smoothing=smoothing)
            np.testing.assert_allclose(losses, expected, rtol=1e-12)
        gradient = jax.grad(lambda z: ops.softmax_cross_entropy(z, labels, label_smoothing=smoothing).sum())(logits)
        np.testing.assert_allclose(gradient, probabilities - target, atol=1e-12)


def test_softmax_cross_entropy_of_extreme_logits():
    logits = jnp.array([[1e4, 0.0], [0.0, 1e4], [0.0, -jnp.inf]])
    np.testing.assert_array_equal(ops.softmax_cross_entropy(logits, jnp.array([0, 0, 0])), [0, 1e4, 0])
    assert ops.softmax_cross_entropy(jnp.zeros((2, 3), jnp.bfloat16), jnp.array([0, 1])).dtype == jnp.float32


# Each loss of class labels as a function of logits (8, 4) and labels (8,).
OF_LABELS = {
    "softmax_cross_entropy": ops.softmax_cross_entropy,
    "smoothed": functools.partial(ops.softmax_cross_entropy, label_smoothing=0.1),
    "weighted": functools.partial(ops.softmax_cross_entropy, label_smoothing=0.1, class_weights=(1, 2, 0.5, 3)),
    "softmax_focal_loss": ops.softmax_focal_loss,
    "squared_error": ops.squared_error,
}


def zeros(array):
    """Where an array is 0.0, and not -0.0."""
    return (np.asarray(array) == 0) & ~np.signbit(array)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("ignore", [-1, -100, 255, 2])
@pytest.mark.parametrize("name", OF_LABELS)
def test_ignored_labels(name, ignore, jit):
    """Loss and gradient are those of the other examples, and 0 for whatever logits stand beside an ignored label."""
    rng = np.random.default_rng(0)
    kept = np.array([0, 1, 3, 3])
    labels = np.stack([kept, np.full(4, ignore)], axis=1).reshape(8)
    logits = rng.standard_normal((8, 4)).astype(np.float32)
    logits[1], logits[3], logits[5, 2] = np.nan, np.inf, -np.inf

    def both(logits, labels):
        losses = functools.partial(OF_LABELS[name], labels=labels, ignore_label=ignore)
        return losses(logits), jax.grad(lambda z: losses(z).sum())(logits)

    run = jax.jit(both) if jit else both
    losses, gradient = run(logits, labels.astype(np.int32 if ignore < 0 else np.uint8))
    expected, of_kept = both(logits[::2], kept)
    assert zeros(losses[1::2]).all()
    assert zeros(gradient[1::2]).all()
    np.testing.assert_allclose(losses[::2], expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[::2], of_kept, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("label", [4, 255, -2, -100])
@pytest.mark.parametrize("name", OF_LABELS)
def test_labels_out_of_range(name, label):
    """Named where their value is known; where it is not, the loss is infinite, and nothing is NaN."""
    logits, labels = jnp.ones((2, 4)), jnp.array([0, label])
    loss = OF_LABELS[name]
    with pytest.raises(UsageError, match=rf"label {label} is none of the 4 classes, 0 to 3; .*ignore_label={label} "):
        loss(logits, labels)
    with pytest.raises(UsageError, match=f"label {label} is none"):
        jax.jit(lambda z: loss(z, labels))(logits)
    losses = jax.jit(loss)(logits, labels)
    assert np.isfinite(losses[0])
    assert np.isposinf(losses[1])
    gradient = jax.jit(jax.grad(lambda z, labels: loss(z, labels).sum()))(logits, labels)
    assert np.isfinite(gradient).all()
    assert zeros(gradient[1]).all()
    assert np.isposinf(jax.vmap(loss)(logits, labels)[1])


def test_narrow_labels_of_many_classes():
    """What jax.nn.one_hot makes of uint8 labels and more than 256 classes has several ones."""
    logits = np.random.default_rng(0).standard_normal((2, 600)).astype(np.float32)
    expected = ops.softmax_cross_entropy(logits, np.array([3, 100]))
    for dtype in (np.uint8, np.int8, np.uint16, np.uint32):
        losses = ops.softmax_cross_entropy(logits, np.array([3, 100], dtype))
        np.testing.assert_array_equal(losses, expected)


def test_losses_are_never_minus_zero():
    sure = jnp.array([[0.0, -jnp.inf], [300.0, -300.0]])
    for loss in (ops.softmax_cross_entropy, ops.softmax_focal_loss):
        for function in (loss, jax.jit(loss)):
            assert zeros(function(sure, jnp.array([0, 0]))).all()
            assert zeros(function(sure[:, :1], jnp.array([0, 0]))).all()


def test_mixed_labels_of_which_one_is_ignored():
    """A row that sums to less than 1 is smoothed in proportion; a row of zeros has no loss."""
    logits = jnp.array([[1.0, 2.0, 3.0]] * 3)
    rows = jnp.array([[0.0, 0.4, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    part, none, whole = ops.softmax_cross_entropy(logits, rows, label_smoothing=0.3)
    np.testing.assert_allclose(part, 0.4 * whole, rtol=1e-6)
    assert zeros(none)


def test_rbf_output():
    rng = np.random.default_rng(0)
    x, centers = rng.standard_normal((6, 84)), rng.choice([-1.0, 1.0], (10, 84))
    with jax.enable_x64(True):
        expected = [[((one - center) ** 2).sum() for center in centers] for one in x]
        np.testing.assert_allclose(ops.rbf_output(x, centers), expected, rtol=1e-12)
        check_grads(ops.rbf_output, (x, centers), order=1, modes=["rev"])
        np.testing.assert_array_equal(ops.rbf_output(centers[3], centers).argmin(), 3)
