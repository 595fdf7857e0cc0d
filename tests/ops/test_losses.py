"""Losses against their definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from sklearn.utils.class_weight import compute_class_weight

from cnn_jax import ops
from cnn_jax.errors import UsageError
from tests.compiled import compiled


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_cross_entropy(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((4, 3, 5)), rng.integers(0, 5, (4, 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    target = (1 - smoothing) * np.eye(5)[labels] + smoothing / 5
    expected = -(target * np.log(probabilities)).sum(axis=-1)

    @compiled
    def run(logits):
        loss = functools.partial(ops.softmax_cross_entropy, label_smoothing=smoothing)
        gradient = jax.grad(lambda z: loss(z, labels).sum())(logits)
        return loss(logits, labels), loss(logits, np.eye(5)[labels]), gradient

    with jax.enable_x64(True):
        *both, gradient = run(logits)
    for losses in both:
        np.testing.assert_allclose(losses, expected, rtol=1e-12)
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


@pytest.mark.parametrize("name", OF_LABELS)
def test_ignored_labels(name):
    """The other examples keep their losses and gradients; ignored examples have 0, whatever their logits."""
    rng = np.random.default_rng(0)
    kept = np.array([0, 1, 3, 3])
    logits = rng.standard_normal((8, 4)).astype(np.float32)
    logits[1], logits[3], logits[5, 2] = np.nan, np.inf, -np.inf

    @compiled
    def run(logits, labels):
        def both(logits, labels, ignore):
            def losses(logits):
                return OF_LABELS[name](logits, labels, ignore_label=ignore)

            return losses(logits), jax.grad(lambda z: losses(z).sum())(logits)

        return both(logits[::2], kept, -1), {ignore: both(logits, labels[ignore], ignore) for ignore in labels}

    labels = {
        ignore: np.stack([kept, np.full(4, ignore)], axis=1).reshape(8).astype(np.int32 if ignore < 0 else np.uint8)
        for ignore in (-1, -100, 255, 2)
    }
    (expected, of_kept), results = run(logits, labels)
    for losses, gradient in results.values():
        assert zeros(losses[1::2]).all()
        assert zeros(gradient[1::2]).all()
        np.testing.assert_allclose(losses[::2], expected, rtol=1e-6)
        np.testing.assert_allclose(gradient[::2], of_kept, rtol=1e-5, atol=1e-7)
    assert zeros(OF_LABELS[name](logits, labels[-1])[1::2]).all()


@pytest.mark.parametrize("name", OF_LABELS)
def test_labels_out_of_range(name):
    """Named where their value is known; where it is not, the loss is infinite, and nothing is NaN."""
    loss = OF_LABELS[name]
    for label in (4, 255, -2, -100):
        with pytest.raises(UsageError, match=rf"label {label} is none of the 4 classes, 0 to 3, and not ignored"):
            loss(jnp.ones((2, 4)), np.array([0, label]))
    logits, labels = jnp.ones((5, 4)), jnp.array([0, 4, 255, -2, -100])
    with pytest.raises(UsageError, match="label 4 is none"):
        jax.jit(lambda z: loss(z, labels))(logits)

    @compiled
    def run(logits, labels):
        return loss(logits, labels), jax.vmap(loss)(logits, labels), jax.grad(lambda z: loss(z, labels).sum())(logits)

    *both, gradient = run(logits, labels)
    for losses in both:
        assert np.isfinite(losses[0])
        assert np.isposinf(losses[1:]).all()
    assert np.isfinite(gradient).all()
    assert zeros(gradient[1:]).all()


def test_narrow_labels_of_many_classes():
    """What jax.nn.one_hot makes of uint8 labels and more than 256 classes has several ones."""
    logits = np.random.default_rng(0).standard_normal((2, 600)).astype(np.float32)
    expected = ops.softmax_cross_entropy(logits, np.array([3, 100]))
    for dtype in (np.uint8, np.int8, np.uint16, np.uint32):
        losses = ops.softmax_cross_entropy(logits, np.array([3, 100], dtype))
        np.testing.assert_array_equal(losses, expected)


def test_losses_are_never_minus_zero():
    sure, labels = jnp.array([[0.0, -jnp.inf], [300.0, -300.0]]), jnp.array([0, 0])

    def run(sure):
        losses = (ops.softmax_cross_entropy, ops.softmax_focal_loss)
        return [loss(logits, labels) for loss in losses for logits in (sure, sure[:, :1])]

    for losses in compiled(run)(sure):
        assert zeros(losses).all()


def test_mixed_labels_of_which_one_is_ignored():
    """A row that sums to less than 1 is smoothed in proportion; a row of zeros has no loss."""
    logits = jnp.array([[1.0, 2.0, 3.0]] * 3)
    rows = jnp.array([[0.0, 0.4, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    part, none, whole = ops.softmax_cross_entropy(logits, rows, label_smoothing=0.3)
    np.testing.assert_allclose(part, 0.4 * whole, rtol=1e-6)
    assert zeros(none)


def softmax_by_hand(logits, labels, *, smoothing, weights, gamma):
    """One example and one class after the other."""
    losses = np.zeros(len(labels))
    for n, label in enumerate(labels):
        p = np.exp(logits[n]) / np.exp(logits[n]).sum()
        for k in range(len(p)):
            target = (1 - smoothing) * (k == label) + smoothing / len(p)
            losses[n] -= weights[k] * target * (1 - p[k]) ** gamma * np.log(p[k])
    return losses


@pytest.mark.parametrize("gamma", [0, 0.5, 2])
def test_smoothing_weights_and_focus(gamma):
    rng = np.random.default_rng(0)
    logits, labels, weights = rng.standard_normal((20, 5)), rng.integers(0, 5, 20), [1, 0, 2.5, 0.1, 3]
    expected = softmax_by_hand(logits, labels, smoothing=0.2, weights=weights, gamma=gamma)
    loss = functools.partial(ops.softmax_focal_loss, label_smoothing=0.2, class_weights=weights)
    with jax.enable_x64(True):
        np.testing.assert_allclose(loss(logits, labels, gamma=gamma), expected, rtol=1e-12)
        traced = compiled(lambda z, gamma: loss(z, labels, gamma=gamma))(logits, float(gamma))
        np.testing.assert_allclose(traced, expected, rtol=1e-12)
        check_grads(jax.jit(lambda z: loss(z, labels, gamma=gamma)), (logits,), order=2)


@pytest.mark.parametrize("gamma", [0.5, 1, 2])
def test_focal_loss_of_a_certain_class_has_a_gradient(gamma):
    logits = jnp.array([[200.0, 0.0, 0.0], [0.0, -jnp.inf, -jnp.inf], [-200.0, 0.0, 0.0]])

    def loss(logits, gamma):
        return ops.softmax_focal_loss(logits, jnp.zeros(3, int), gamma=gamma).sum()

    gradient, of_gamma = compiled(jax.grad(loss, (0, 1)))(logits, float(gamma))
    np.testing.assert_allclose(gradient, [[0, 0, 0], [0, 0, 0], [-1, 0.5, 0.5]], atol=1e-6)
    assert np.isfinite(of_gamma)


def sigmoid_by_hand(z, y, *, smoothing=0.0, positive=1.0, alpha=None, gamma=0.0):
    """Of one class."""
    p = 1 / (1 + np.exp(-z))
    y = (1 - smoothing) * y + smoothing / 2
    of_present, of_absent = (1, 1) if alpha is None else (alpha, 1 - alpha)
    present = -positive * of_present * (1 - p) ** gamma * np.log(p)
    return y * present - (1 - y) * of_absent * p**gamma * np.log(1 - p)


def test_losses_of_independent_classes():
    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.standard_normal((6, 4)), rng.integers(-1, 2, (6, 4))
    weights = [1, 2, 0, 5]
    cases = [
        (ops.sigmoid_cross_entropy, {}),
        (functools.partial(ops.sigmoid_cross_entropy, label_smoothing=0.1), {"smoothing": 0.1}),
        (functools.partial(ops.sigmoid_cross_entropy, pos_weight=weights), {}),
        (ops.sigmoid_focal_loss, {"alpha": 0.25, "gamma": 2}),
        (functools.partial(ops.sigmoid_focal_loss, alpha=None, gamma=0.5), {"gamma": 0.5}),
    ]
    for loss, options in cases:
        positive = weights if getattr(loss, "keywords", {}).get("pos_weight") else [1] * 4
        expected = np.zeros((6, 4))
        for n, k in np.ndindex(6, 4):
            if labels[n, k] != -1:
                expected[n, k] = sigmoid_by_hand(logits[n, k], labels[n, k], positive=positive[k], **options)
        unknown = np.where(labels == -1, np.nan, logits)
        with jax.enable_x64(True):
            losses, gradient = compiled(lambda z, f=loss: (f(z, labels), jax.grad(lambda z: f(z, labels).sum())(z)))(
                unknown
            )
            np.testing.assert_allclose(losses, expected, rtol=1e-10)
            assert zeros(losses)[labels == -1].all()
            assert zeros(gradient)[labels == -1].all()
            assert np.isfinite(gradient).all()


def test_independent_classes_at_the_limits():
    logits, labels = jnp.array([[jnp.inf, -jnp.inf, jnp.inf, 1e30]]), jnp.array([[1, 0, 0, 0]])

    def run(logits):
        gradient = jax.grad(lambda z: ops.sigmoid_cross_entropy(z, labels).sum())(logits)
        return ops.sigmoid_cross_entropy(logits, labels), ops.sigmoid_focal_loss(logits, labels, alpha=None), gradient

    losses, focal, gradient = compiled(run)(logits)
    for each in (losses, focal):
        np.testing.assert_array_equal(each, np.float32([[0, 0, np.inf, 1e30]]))
    np.testing.assert_array_equal(gradient, [[0, 0, 1, 1]])
    with pytest.raises(UsageError, match=r"sigmoid_cross_entropy: label 2 of a class is not from 0 to 1"):
        ops.sigmoid_cross_entropy(logits, 2 * labels)
    for loss in (ops.sigmoid_cross_entropy, ops.sigmoid_focal_loss):
        assert np.isposinf(compiled(loss)(jnp.zeros((1, 2)), jnp.array([[2.0, jnp.nan]]))).all()


def test_balanced_class_weights():
    labels = np.random.default_rng(0).choice(5, 300, p=[0.5, 0.3, 0.15, 0.05, 0])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    weights = ops.balanced_class_weights(np.append(labels, [-1, -1]).reshape(2, 151), num_classes=5)
    np.testing.assert_allclose(weights, [*expected, 0], rtol=1e-6)
    np.testing.assert_allclose(weights[labels].mean(), 1, rtol=1e-6)
    np.testing.assert_array_equal(ops.balanced_class_weights(np.array([-1]), num_classes=2), [0, 0])
    compiling = compiled(functools.partial(ops.balanced_class_weights, num_classes=2))
    np.testing.assert_array_equal(compiling(np.array([0, 0, 1, 1, 2, -5])), [1, 1])


def test_errors_of_a_regression():
    rng = np.random.default_rng(0)
    outputs, targets = 2 * rng.standard_normal((7, 3)), rng.standard_normal((7, 3))
    size = np.abs(outputs - targets)
    huber = [[e * e / 2 if e <= 0.8 else 0.8 * (e - 0.4) for e in row] for row in size]
    assert (size < 0.8).any()
    assert (size > 0.8).any()
    with jax.enable_x64(True):
        np.testing.assert_allclose(ops.mean_squared_error(outputs, targets), (size**2).mean(axis=-1), rtol=1e-12)
        np.testing.assert_allclose(ops.mean_absolute_error(outputs, targets), size.mean(axis=-1), rtol=1e-12)
        np.testing.assert_allclose(ops.huber_loss(outputs, targets, delta=0.8), np.mean(huber, axis=-1), rtol=1e-12)
        check_grads(jax.jit(lambda x, y: ops.huber_loss(x, y, delta=0.8)), (outputs, targets), order=1)
    whole = ops.mean_squared_error(outputs, np.ones((7, 3), int))
    np.testing.assert_allclose(whole, ((outputs - 1) ** 2).mean(axis=-1), rtol=1e-5)
    far = jnp.array([[1e30], [-jnp.inf], [0.0]])
    gradient = compiled(jax.grad(lambda x: ops.huber_loss(x, jnp.zeros((3, 1))).sum()))(far)
    np.testing.assert_array_equal(gradient, [[1], [-1], [0]])


X = np.ones((8, 4), np.float32)
CLASSES = np.ones(8, int)
ERRORS = {
    "weights of another number": (
        lambda: ops.softmax_cross_entropy(X, CLASSES, class_weights=(1, 2)),
        r"softmax_cross_entropy: class_weights of shape \(2,\) must have one weight for each of 4 classes",
    ),
    "negative weight": (
        lambda: ops.softmax_focal_loss(X, CLASSES, class_weights=(1, 1, -2, 1)),
        "softmax_focal_loss: class_weights has a weight of -2; weights must be finite and at least 0",
    ),
    "infinite weight": (
        lambda: ops.sigmoid_cross_entropy(X, X, pos_weight=(1, 1, np.inf, 1)),
        "sigmoid_cross_entropy: pos_weight has a weight of inf",
    ),
    "gamma": (lambda: ops.softmax_focal_loss(X, CLASSES, gamma=-1), "softmax_focal_loss: gamma=-1 must be at least 0"),
    "alpha": (lambda: ops.sigmoid_focal_loss(X, X, alpha=2), "sigmoid_focal_loss: alpha=2 must be from 0 to 1"),
    "alpha is a bool": (
        lambda: ops.sigmoid_focal_loss(X, X, alpha=True),
        "sigmoid_focal_loss: alpha=True must be a number",
    ),
    "labels of one class": (
        lambda: ops.sigmoid_cross_entropy(X, CLASSES),
        r"labels of shape \(8,\) do not go with logits of shape \(8, 4\); .* jax.nn.one_hot\(labels, 4\)",
    ),
    "delta": (lambda: ops.huber_loss(X, X, delta=0), "huber_loss: delta=0 must be above 0"),
    "targets that would be broadcast": (
        lambda: ops.mean_squared_error(X[:, :1], X[:, 0]),
        r"targets of shape \(8,\) do not go with outputs of shape \(8, 1\); .* targets\[..., None\]",
    ),
    "real labels to count": (
        lambda: ops.balanced_class_weights(X, num_classes=2),
        "balanced_class_weights: labels of dtype float32 must be integers",
    ),
    "ignored label": (
        lambda: ops.softmax_cross_entropy(X, CLASSES, ignore_label=True),
        "ignore_label must consist of Python ints",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(UsageError, match=message):
        call()
