"""Metrics of classification against scikit-learn and loops."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from cnn_jax import ops
from cnn_jax.errors import UsageError

K = 6  # of which 5 never occurs, and 4 is never right


def draw(count=400, ignored=0.2):
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, count), rng.integers(0, 5, count)
    predicted = np.where(rng.random(count) < 0.5, labels, predicted)
    return np.where(rng.random(count) < ignored, -1, labels), predicted


@pytest.mark.parametrize("jit", [False, True])
def test_confusion_matrix(jit):
    labels, predicted = draw()
    count = functools.partial(ops.confusion_matrix, num_classes=K)
    matrix = (jax.jit(count) if jit else count)(labels.reshape(20, 20), predicted.reshape(20, 20))
    kept = labels != -1
    expected = sklearn_metrics.confusion_matrix(labels[kept], predicted[kept], labels=range(K))
    np.testing.assert_array_equal(matrix, expected)
    halves = count(labels[:150], predicted[:150]) + count(labels[150:], predicted[150:])
    np.testing.assert_array_equal(halves, expected)


def test_scores_of_classes_and_their_averages():
    labels, predicted = draw(ignored=0)
    matrix = ops.confusion_matrix(labels, predicted, num_classes=K)
    reference = functools.partial(sklearn_metrics.precision_recall_fscore_support, labels, predicted, zero_division=0)
    for actual, expected in zip(ops.precision_recall_f1(matrix), reference(labels=range(K)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
    averages = ops.macro_average(matrix)
    np.testing.assert_allclose(averages[:3], reference(average="macro")[:3], rtol=1e-6)
    assert averages.support == len(labels)


def test_scores_of_nothing_are_zero():
    nothing = ops.confusion_matrix(np.array([-1, -1]), np.array([0, 1]), num_classes=2)
    assert not np.any(nothing)
    for scores in (ops.precision_recall_f1(nothing), ops.macro_average(nothing)):
        assert not np.any(np.concatenate([np.ravel(score) for score in scores]))
    bins = ops.calibration_bins(np.full((2, 2), 0.5, np.float32), np.array([-1, -1]))
    assert ops.expected_calibration_error(bins) == 0


def test_in_top_k():
    """Against a stable sort of each row, with many ties; scikit-learn agrees where there are none."""
    rng = np.random.default_rng(0)
    outputs, labels = rng.integers(-2, 3, (5, 40, 7)).astype(np.float32), rng.integers(-1, 7, (5, 40))
    for k in (1, 3, 7):
        order = np.argsort(-outputs, axis=-1, kind="stable")[..., :k]
        expected = (order == labels[..., None]).any(axis=-1)
        np.testing.assert_array_equal(ops.in_top_k(outputs, labels, k=k), expected)
    np.testing.assert_array_equal(ops.in_top_k(outputs, labels), outputs.argmax(axis=-1) == labels)
    outputs, labels = rng.standard_normal((50, 7)), rng.integers(0, 7, 50)
    expected = sklearn_metrics.top_k_accuracy_score(labels, outputs, k=3, labels=range(7))
    np.testing.assert_allclose(ops.in_top_k(outputs, labels, k=3).mean(), expected, rtol=1e-6)


def test_a_diverged_network_has_no_class_in_the_top_k():
    outputs = jnp.array([[jnp.nan, jnp.nan, jnp.nan], [jnp.nan, 1.0, 0.0], [1.0, jnp.nan, 0.0]])
    labels = jnp.array([0, 1, 0])
    np.testing.assert_array_equal(ops.in_top_k(outputs, labels, k=1), [False, False, False])
    np.testing.assert_array_equal(ops.in_top_k(outputs, labels, k=2), [False, True, True])


def calibration(probabilities, labels, bins):
    """Guo et al.'s definition, one bin after the other: bins, and the expected calibration error."""
    edges, kept = np.linspace(0, 1, bins + 1).astype(np.float32), labels != -1
    confidence, right = probabilities.max(axis=-1)[kept], (probabilities.argmax(axis=-1) == labels)[kept]
    count, confidences, correct, error = [], [], [], 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        count.append(inside.sum())
        confidences.append(confidence[inside].sum(dtype=np.float64))
        correct.append(right[inside].sum())
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean(dtype=np.float64))
    return (count, confidences, correct), error


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration(bins):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(4, 0.5), 500).astype(np.float32)
    probabilities[0], probabilities[1], probabilities[2] = [1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.2, 0.6, 0.1, 0.1]
    labels = np.where(rng.random(500) < 0.5, probabilities.argmax(axis=-1), rng.integers(-1, 4, 500))
    expected, error = calibration(probabilities, labels, bins)
    count = jax.jit(functools.partial(ops.calibration_bins, bins=bins))
    whole = count(probabilities, labels)
    for actual, numbers in zip(whole, expected, strict=True):
        np.testing.assert_allclose(actual, numbers, rtol=1e-5)
    np.testing.assert_allclose(ops.expected_calibration_error(whole), error, rtol=1e-5)
    parts = jax.tree.map(jnp.add, count(probabilities[:250], labels[:250]), count(probabilities[250:], labels[250:]))
    np.testing.assert_allclose(ops.expected_calibration_error(parts), error, rtol=1e-5)


ERRORS = {
    "label": (
        lambda: ops.confusion_matrix(np.array([2]), np.array([0]), num_classes=2),
        "confusion_matrix: label 2 is none of the 2 classes, 0 to 1, and not ignored .ignore_label=-1.",
    ),
    "prediction": (
        lambda: ops.confusion_matrix(np.array([1]), np.array([-1]), num_classes=2),
        "confusion_matrix: predicted class -1 is none of the 2 classes, 0 to 1$",
    ),
    "shape": (
        lambda: ops.confusion_matrix(np.array([1]), np.array([1, 1]), num_classes=2),
        r"labels of shape \(1,\) do not go with predicted of shape \(2,\)",
    ),
    "probabilities as predictions": (
        lambda: ops.confusion_matrix(np.array([1]), np.array([0.5]), num_classes=2),
        "predicted of dtype float64 must be integers",
    ),
    "square": (lambda: ops.macro_average(np.ones((2, 3), int)), r"confusion of shape \(2, 3\) must be"),
    "k": (lambda: ops.in_top_k(np.ones((1, 3)), np.array([0]), k=4), "k=4 must be from 1 to the number of classes, 3"),
    "top-k label": (lambda: ops.in_top_k(np.ones((1, 3)), np.array([3])), "in_top_k: label 3 is none of the 3"),
    "top-k shape": (lambda: ops.in_top_k(np.ones((1, 3)), np.array([[1]])), r"give integers of shape \(1,\)"),
    "logits": (
        lambda: ops.calibration_bins(np.array([[3.0, -1.0]]), np.array([0])),
        r"calibration_bins: probabilities must be from 0 to 1; give jax.nn.softmax\(logits\)",
    ),
    "bins": (lambda: ops.calibration_bins(np.ones((1, 1)), np.array([0]), bins=0), "bins=0 must be at least 1"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors(name):
    call, message = ERRORS[name]
    with pytest.raises(UsageError, match=message):
        call()


def test_labels_out_of_range_in_a_compiled_program_are_wrong_answers():
    outputs, labels = jnp.array([[0.2, 0.8], [0.9, 0.1]]), jnp.array([2, -7])
    assert not np.any(jax.jit(functools.partial(ops.in_top_k, k=2))(outputs, labels))
    bins = jax.jit(ops.calibration_bins)(outputs, labels)
    assert (bins.total.sum(), bins.correct.sum()) == (2, 0)
