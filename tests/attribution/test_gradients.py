"""Gradients, integrated, smoothed and multiplied by the input, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnn_jax.attribution import gradient, input_times_gradient, integrated_gradients, saliency, smooth_gradient
from cnn_jax.errors import UsageError
from tests.compiled import compiled

X = jnp.array([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]])


def added(y):
    return y.sum(1)


def test_saliency_takes_the_absolute_value_first_and_then_the_maximum():
    colours = jnp.array([1.0, -3.0, 2.0])
    found = saliency(lambda x: x * colours, jnp.ones((1, 1, 1, 3)), lambda y: y.sum((1, 2, 3)))
    assert found.tolist() == [[[[3.0]]]]


def test_a_rectifier_has_no_gradient_at_zero():
    x = jnp.array([[1.0, 2.0, 3.0, 0.0, -1.0, 7.0]])
    assert gradient(lambda x: 1 - jax.nn.relu(1 - x), x, added).tolist() == [[0, 0, 0, 1, 1, 0]]


def test_a_loop_of_unknown_length_is_refused():
    def looped(x):
        return lax.while_loop(lambda x: x.sum() < 3, lambda x: x + 1, x)

    with pytest.raises(UsageError, match=r"gradient: the function has no gradient: Reverse-mode"):
        gradient(looped, X, added)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jax.nn.relu(jax.nn.relu(x[:, 0]) - 1 - jax.nn.relu(x[:, 1])),
        lambda x: jax.nn.relu(jax.nn.relu(x[:, 0] - 1) - jax.nn.relu(x[:, 1])),
    ],
)
def test_integrated_gradients_are_complete_and_do_not_depend_on_the_implementation(function):
    found, error = integrated_gradients(function, jnp.array([[3.0, 1.0]]), lambda y: y, return_error=True)
    np.testing.assert_allclose(found, [[1.5, -0.5]], atol=1e-6)
    np.testing.assert_allclose(error, [0], atol=1e-6)


def test_the_completeness_error_is_that_of_the_midpoint_rule():
    x = np.array([[2.0, 1.0], [-1.0, 3.0]])
    found, error = integrated_gradients(lambda x: x**3, x, added, steps=1, baseline=np.ones(2), return_error=True)
    expected = (x - 1) * 3 * ((x + 1) / 2) ** 2
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(error, (expected - (x**3 - 1)).sum(1), rtol=1e-5)
    _, error = integrated_gradients(lambda x: x**3, x, lambda y: y.sum(), steps=1, baseline=1.0, return_error=True)
    np.testing.assert_allclose(error, (expected - (x**3 - 1)).sum(), rtol=1e-5)


def test_the_smooth_gradient_of_a_cube_has_the_variance_of_the_noise_in_it():
    run = compiled(lambda x, key: smooth_gradient(lambda x: x**3, x, added, samples=20_000, noise=0.2, key=key))
    found = run(X, jax.random.key(0))
    deviation = 0.2 * (np.max(X, 1, keepdims=True) - np.min(X, 1, keepdims=True))
    np.testing.assert_allclose(found, 3 * (np.square(X) + deviation**2), atol=0.25)
    assert (run(X, jax.random.key(1)) != found).all()
    # The noise of an image does not depend on its place in the batch.
    np.testing.assert_allclose(run(X[::-1], jax.random.key(0))[::-1], found, rtol=1e-5)


def test_input_times_gradient():
    np.testing.assert_allclose(input_times_gradient(lambda x: x**2, X, added), 2 * np.square(X), rtol=1e-6)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            integrated_gradients,
            {"baseline": np.zeros(2)},
            r"baseline of shape \(2,\) must be one number, one per",
        ),
        (integrated_gradients, {"steps": 0}, "steps=0 must be at least 1"),
        (smooth_gradient, {"samples": 0}, "samples=0 must be at least 1"),
        (smooth_gradient, {"noise": -0.1}, "noise=-0.1 must be at least 0"),
    ],
)
def test_mistakes_are_said_in_one_line(method, options, message):
    with pytest.raises(UsageError, match=f"{method.__name__}: {message}"):
        method(lambda x: x, X, added, **options)
