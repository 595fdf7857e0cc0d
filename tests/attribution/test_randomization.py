"""The test of methods by shuffled parameters: order, cascade and correlations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import nn
from cnn_jax.attribution import gradient, randomization_test
from cnn_jax.errors import UsageError

X = jax.random.normal(jax.random.key(0), (2, 2, 3, 2))


class Stock(nnx.Module):
    """A network whose attributes are not in the order in which its layers run."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.last = nnx.Linear(6, 4, rngs=rngs)
        self.body = nnx.List([nnx.Linear(12, 6, rngs=rngs)])

    def __call__(self, x):
        return self.last(jnp.tanh(self.body[0](x.reshape(len(x), -1))))


def ours():
    rngs = nnx.Rngs(0)
    body = {"fc": nn.Linear(12, 6, rngs=rngs), "tanh": jnp.tanh}
    return nn.Sequence({"flatten": nn.flatten, "body": nn.Sequence(body), "last": nn.Linear(6, 4, rngs=rngs)})


def weights(model, x, target):
    """A method that returns the weights themselves."""
    every = [jnp.ravel(leaf) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))]
    return jnp.tile(jnp.concatenate(every), (len(x), 1))


def test_layers_are_shuffled_from_the_top_and_stay_shuffled():
    model = Stock()
    stages = list(randomization_test(weights, model, X, 0))
    assert [stage.layer for stage in stages] == ["", "last", "body/0"]
    trained, top, both = (np.asarray(stage.result[0]) for stage in stages)
    first = slice(0, 6 + 72)  # the parameters of the lower layer come first in the sorted state
    np.testing.assert_array_equal(trained, weights(model, X, 0)[0])
    np.testing.assert_array_equal(top[first], trained[first])
    assert (top != trained).any()
    np.testing.assert_array_equal(np.sort(top), np.sort(trained))
    assert (both[first] != trained[first]).any()
    np.testing.assert_array_equal(both[78:], top[78:])


def test_correlations_are_those_of_the_ranks():
    def rank(values):
        return np.argsort(np.argsort(values.ravel()))

    stages = list(randomization_test(gradient, ours(), X, 3, key=jax.random.key(5)))
    assert [stage.layer for stage in stages] == ["", "last", "body/fc"]
    np.testing.assert_allclose(stages[0].correlation, [1, 1])
    for stage in stages:
        for kind, change in (("correlation", np.asarray), ("absolute_correlation", np.abs)):
            pairs = zip(change(stages[0].result), change(stage.result), strict=True)
            expected = [np.corrcoef(rank(a), rank(b))[0, 1] for a, b in pairs]
            np.testing.assert_allclose(getattr(stage, kind), expected, rtol=1e-6)
    assert (np.abs(stages[-1].correlation) < 0.9).all()


def test_a_method_that_ignores_the_network_is_unmasked():
    def edges(model, x, target):
        return x * jnp.array([1, 0])[:, None, None, None]

    for stage in randomization_test(edges, Stock(), X, 0):
        np.testing.assert_allclose(stage.correlation, [1, np.nan])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: x, "model is a function, but parameters are shuffled in an nnx.Module"),
        (nn.Sequence({"tanh": jnp.tanh}), "Sequence has no parameters to shuffle"),
        (nn.Sequence({"norm": nn.BatchNorm(2, rngs=nnx.Rngs(0))}), "is in training mode"),
    ],
)
def test_mistakes_are_said_in_one_line(model, message):
    with pytest.raises(UsageError, match=f"randomization_test: .*{message}"):
        randomization_test(gradient, model, X, 0)
