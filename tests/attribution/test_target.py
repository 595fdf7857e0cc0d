"""Targets: classes, units and functions of the output, and the errors for those that do not exist."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import nn
from cnn_jax.attribution import gradient, objective, saliency
from cnn_jax.errors import UsageError
from tests.compiled import compiled

# Without convolutions, which are slow to compile.
MODEL = nn.Sequence({"tanh": jnp.tanh, "flatten": nn.flatten, "logits": nn.Linear(36, 5, rngs=nnx.Rngs(0))})
X = jax.random.normal(jax.random.key(1), (3, 2, 3, 6))


def numbers(target, function=MODEL, **options):
    return objective("test", function, target, **options)(X)


def test_a_class_is_its_score_or_its_probability():
    scores = MODEL(X)
    np.testing.assert_array_equal(numbers(2), scores[:, 2])
    np.testing.assert_array_equal(numbers(jnp.array([4, 0, 1])), jnp.array([scores[0, 4], scores[1, 0], scores[2, 1]]))
    exponentials = np.exp(np.asarray(scores, np.float64))
    expected = exponentials[:, 2] / exponentials.sum(axis=1)
    np.testing.assert_allclose(numbers(2, of="probability"), expected, rtol=1e-5)


def test_a_unit_is_one_entry_of_an_activation():
    _, activations = MODEL(X, return_activations=True)
    tanh = np.asarray(activations["tanh"])
    np.testing.assert_array_equal(numbers(("tanh", (1, 0), 3)), tanh[:, 1, 0, 3])
    np.testing.assert_array_equal(numbers(("flatten", (), 7)), activations["flatten"][:, 7])
    np.testing.assert_allclose(numbers(("tanh", None, 3)), tanh[..., 3].mean((1, 2)), rtol=1e-6)
    unit = ("tanh", (jnp.array([0, 1, 1]), 2), np.array([3, 0, 5]))
    np.testing.assert_array_equal(numbers(unit), [tanh[0, 0, 2, 3], tanh[1, 1, 2, 0], tanh[2, 1, 2, 5]])


def test_a_unit_of_the_output_needs_no_named_activations():
    np.testing.assert_array_equal(numbers((None, (1, 2), 0), lambda x: 2 * x), 2 * X[:, 1, 2, 0])


def test_a_function_of_the_output_may_return_one_number_per_example_or_one_for_all():
    def margin(scores):
        return scores[:, 1] - scores[:, 0]

    x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    for target in (margin, lambda scores: margin(scores).sum()):
        np.testing.assert_array_equal(gradient(lambda x: x**2, x, target), [[-2, 4], [-6, 8]])


def test_an_image_has_the_same_result_alone_in_a_batch_under_jit_and_vmap():
    graph, state = nnx.split(MODEL)

    @compiled
    def run(state, x):
        model = nnx.merge(graph, state)
        together = saliency(model, x, 1), saliency(model, x, ("tanh", (1, 1), 0))
        return together, jax.vmap(lambda image: saliency(model, image[None], 1)[0])(x)

    (of_class, of_unit), one_by_one = run(state, X)
    np.testing.assert_allclose(one_by_one, of_class, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(saliency(MODEL, X[1:2], 1)[0], of_class[1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(saliency(MODEL, X[1:2], ("tanh", (1, 1), 0))[0], of_unit[1], rtol=1e-5, atol=1e-7)


def test_targets_may_be_traced():
    run = compiled(lambda x, target: gradient(lambda x: x**2, x, target))
    x = np.arange(1.0, 7.0, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(run(x, np.array([2, 0])), [[0, 0, 6], [8, 0, 0]])
    assert not run(x, np.array([2, 3]))[1].any(), "a class that does not exist has no gradient"


def test_float64_and_half_precision_are_kept():
    assert gradient(lambda x: x**2, jnp.ones((2, 3), jnp.bfloat16), 0).dtype == jnp.bfloat16
    with jax.enable_x64(True):
        assert gradient(lambda x: x**2, np.ones((2, 3)), 0).dtype == np.float64


DROPPING = nn.Sequence({"block": nn.Sequence({"drop": nn.Dropout(0.5, rngs=nnx.Rngs(0))})})
ABSTRACT = nnx.eval_shape(lambda: nn.Sequence({"logits": nn.Linear(36, 5, rngs=nnx.Rngs(0))}))


@pytest.mark.parametrize(
    ("function", "x", "target", "of", "message"),
    [
        (MODEL, X, 5, "score", "target 5 is out of range; there are 5, from 0 to 4"),
        (MODEL, X, -1, "score", "target -1 is out of range"),
        (MODEL, X, np.array([0, 1]), "score", r"integers of shape \(3,\), one per example"),
        (MODEL, X, 1.0, "score", "target=1.0 must be the number of a class, a unit or a function"),
        (MODEL, X, "tanh", "score", "target='tanh' must be"),
        (MODEL, X, True, "score", "target=True must be"),
        (MODEL, X, ("tanh", 3), "score", r"must be a class, a unit \(activation, position, channel\)"),
        (MODEL, X, ("tan", (0, 0), 0), "score", "no activation is called 'tan'; did you mean 'tanh'"),
        (MODEL, X, ("tanh", (0,), 0), "score", "one index for each of the 2 spatial axes of 'tanh'"),
        (MODEL, X, ("tanh", (0, 3), 0), "score", "position of axis 1 of 'tanh' 3 is out of range; there are 3"),
        (MODEL, X, ("tanh", (0, 0), 6), "score", "channel of 'tanh' 6 is out of range; there are 6, from 0 to 5"),
        (MODEL, X, ("tanh", None, 1.5), "score", "channel of 'tanh' 1.5 must be an int"),
        (lambda x: x, X, ("tanh", None, 1), "score", "the function has no named activations"),
        (lambda x: x, X, 1, "score", r"the output is float32 of shape \(3, 2, 3, 6\)"),
        (lambda x: (x, x), X, 1, "score", "the output is a tuple"),
        (MODEL, X, lambda scores: scores, "score", r"the target returns float32 of shape \(3, 5\), but must return"),
        (MODEL, X, lambda scores: scores.argmax(1), "score", r"the target returns int32 of shape \(3,\)"),
        (MODEL, X, 1, "logit", "unknown of='logit'; known: 'probability', 'score'"),
        (MODEL, X, ("tanh", None, 1), "probability", "of='probability' is for classes"),
        (MODEL, X.astype(jnp.uint8), 1, "score", r"x has dtype uint8, .*astype\('float32'\) / 255"),
        (MODEL, jnp.float32(1), 1, "score", "x is one number; give a batch"),
        (MODEL, X[..., :1], 1, "score", "layer 'logits'"),
        (lambda x: x @ jnp.ones((3, 5)), X, 1, "score", r"the function fails for x of shape \(3, 2, 3, 6\): "),
        (DROPPING, X, 1, "score", r"Sequence is in training mode \(layer 'block/drop'\); call model.eval\(\)"),
        (ABSTRACT, X, 1, "score", "Sequence has no weights, only their shapes"),
    ],
)
def test_mistakes_are_said_in_one_line(function, x, target, of, message):
    with pytest.raises(UsageError, match=message) as raised:
        gradient(function, x, target, of=of)
    assert "\n" not in str(raised.value)
    assert re.match("gradient: ", str(raised.value))
