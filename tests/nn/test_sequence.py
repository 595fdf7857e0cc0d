"""Sequences of named layers: activations, nesting, training, random numbers, and use as a pytree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import nn, ops
from cnn_jax.errors import UsageError
from tests.compiled import compiled


def network(rngs):
    return nn.Sequence(
        {
            "conv": nn.Conv(1, 4, (3, 3), rngs=rngs),
            "norm": nn.BatchNorm(4, rngs=rngs),
            "relu": ops.relu,
            "pool": nn.MaxPool((2, 2)),
            "block": nn.Residual(
                {"conv": nn.Conv(4, 6, (3, 3), rngs=rngs), "drop": nn.Dropout(0.5)},
                shortcut={"conv": nn.Conv(4, 6, (1, 1), rngs=rngs)},
            ),
            "mixed": nn.Parallel({"same": nn.Sequence({"tanh": jnp.tanh}), "half": lambda x: x / 2}),
            "mean": ops.global_avg_pool,
            "output": nn.Linear(12, 3, rngs=rngs),
        }
    )


X = np.random.default_rng(0).standard_normal((2, 8, 8, 1)).astype(np.float32)


def test_activations_by_name_and_in_order():
    model = network(nnx.Rngs(0))
    both = compiled(lambda x: (model(x, train=False, return_activations=True), model(x, train=False)))
    (output, activations), plain = both(X)
    assert list(activations) == [
        *("conv", "norm", "relu", "pool"),
        *("block/branch/conv", "block/branch/drop", "block/shortcut/conv", "block/add"),
        *("mixed/same/tanh", "mixed/half", "mixed/concatenate", "mean", "output"),
    ]
    np.testing.assert_array_equal(output, activations["output"])
    np.testing.assert_allclose(plain, output, rtol=1e-6)  # fused differently, so the last bits may differ
    total = activations["block/branch/drop"] + activations["block/shortcut/conv"]
    np.testing.assert_allclose(activations["block/add"], total, rtol=1e-6)
    joint = jnp.concatenate([jnp.tanh(total), total / 2], axis=-1)
    np.testing.assert_allclose(activations["mixed/concatenate"], joint, rtol=1e-5)
    assert all(callable(model.layer(name)) for name in activations)
    assert model.layer("block/branch/conv") is model.block.branch.conv
    assert model.layer("mixed/same/tanh") is jnp.tanh


def test_activations_are_observed_and_replaced():
    model = nn.Sequence(
        {
            "double": lambda x: 2 * x,
            "block": nn.Residual({"tanh": jnp.tanh}, shortcut={"half": lambda x: x / 2}),
            "mixed": nn.Parallel({"same": nn.Sequence({"root": jnp.sqrt}), "square": jnp.square}),
        }
    )
    x, seen = jnp.full((1, 1), 3.0), []
    names = ["double", "block/branch/tanh", "block/shortcut/half", "block/add", "mixed/same/root", "mixed/square"]
    plain, activations = model(x, return_activations=True)
    observed = model(x, intercept=dict.fromkeys([*names, "mixed/concatenate"], seen.append))
    np.testing.assert_array_equal(observed, plain)
    assert [array.tolist() for array in seen] == [array.tolist() for array in activations.values()]
    for name in names:
        output, changed = model(x, return_activations=True, intercept={name: lambda _: jnp.full((1, 1), 4.0)})
        assert changed[name].item() == 4, name
        before = list(activations).index(name)
        assert list(changed.values())[:before] == list(activations.values())[:before]
        np.testing.assert_array_equal(output, changed["mixed/concatenate"])
        assert (output != plain).any(), name
    output = model(x, intercept={"block/shortcut/half": lambda _: 4 - jnp.tanh(2 * x), "mixed/square": lambda y: -y})
    np.testing.assert_allclose(output, [[2.0, -16.0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conf", "no activation is called 'conf'; did you mean 'conv'"),
        ("block/brunch/conv", "layer 'block': no activation is called 'brunch/conv'; did you mean 'branch'"),
        ("block", "'block' is no activation but consists of layers"),
        ("conv/kernel", "no activation is called 'conv/kernel'; layer 'conv' has none inside"),
        ("mixed/third", "layer 'mixed': no activation is called 'third'"),
        ("aux/fc", "layer 'aux': activation 'fc' is computed in training only; pass train=True"),
    ],
)
def test_an_activation_that_does_not_exist_is_not_intercepted(name, message):
    layers = {
        "conv": jnp.tanh,
        "block": nn.Residual({"conv": jnp.tanh}),
        "mixed": nn.Parallel({"same": jnp.tanh}),
        "aux": nn.Auxiliary({"fc": jnp.tanh}),
    }
    with pytest.raises(UsageError, match=message):
        nn.Sequence(layers)(jnp.ones((1, 2)), train=False, intercept={name: lambda array: array})


def test_a_training_step_through_split_and_merge():
    graph, params, rest = nnx.split(network(nnx.Rngs(0)), nnx.Param, ...)

    def run(params, rest, key):
        model = nnx.merge(graph, params, rest)
        output = model(X, train=True, rngs=nnx.Rngs(dropout=key))
        return (output**2).sum(), (output, nnx.state(model, nnx.Not(nnx.Param)))

    step = compiled(jax.grad(run, has_aux=True))
    keys = jax.random.split(jax.random.key(0))
    gradients, (output, new_rest) = step(params, rest, keys[0])
    assert jax.tree.structure(gradients) == jax.tree.structure(params)
    assert jax.tree.structure(new_rest) == jax.tree.structure(rest)
    conv = nnx.merge(graph, params, rest).conv(X)
    np.testing.assert_allclose(new_rest["norm"]["mean"][...], 0.01 * conv.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(new_rest["norm"]["var"][...], 0.99 + 0.01 * conv.var((0, 1, 2)), rtol=1e-5)
    # The input state is unchanged; the same key gives the same numbers, another key gives others.
    np.testing.assert_array_equal(rest["norm"]["mean"][...], np.zeros(4))
    np.testing.assert_array_equal(step(params, rest, keys[0])[1][0], output)
    assert (step(params, rest, keys[1])[1][0] != output).any()


def test_keys_belong_to_names():
    # The random numbers of a layer depend on its name, not on its position.
    x = jnp.ones((4, 50))
    alone = nn.Sequence({"drop": nn.Dropout(0.5)})
    later = nn.Sequence({"first": nn.Dropout(0.3), "undo": lambda y: x, "drop": nn.Dropout(0.5)})
    key = jax.random.key(0)
    np.testing.assert_array_equal(alone(x, train=True, rngs=key), later(x, train=True, rngs=key))
    _, activations = later(x, train=True, rngs=key, return_activations=True)
    assert ((activations["first"] == 0) != (activations["drop"] == 0)).any()
    np.testing.assert_array_equal(later(x, train=False), x)


def test_tree_mode():
    with nnx.set_graph_mode(False):  # modules as trees instead of graphs
        graph, params, rest = nnx.split(network(nnx.Rngs(0)), nnx.Param, ...)

        def run(params, rest):
            model = nnx.merge(graph, params, rest)
            return model(X, train=True, rngs=jax.random.key(0)).sum(), nnx.state(model, nnx.Not(nnx.Param))

        gradients, new_rest = jax.eval_shape(jax.grad(run, has_aux=True), params, rest)
    assert jax.tree.structure(gradients) == jax.tree.structure(params)
    assert jax.tree.structure(new_rest) == jax.tree.structure(rest)


BAD = {
    "no layers": (lambda: nn.Sequence({}), "layers is empty"),
    "slash": (lambda: nn.Sequence({"a/b": jnp.tanh}), "layer name 'a/b' must be a string without '/'"),
    "taken": (lambda: nn.Sequence({"layer": jnp.tanh}), "layer name 'layer' is an attribute of Sequence"),
    "not callable": (lambda: nn.Sequence({"a": 3}), "layer 'a' is 3, which is not callable"),
    "unknown layer": (
        lambda: nn.Sequence({"conv": jnp.tanh}).layer("con"),
        "no layer is called 'con'; did you mean 'conv'",
    ),
    "unknown part": (lambda: nn.Residual({"a": jnp.tanh}).layer("shortcut/a"), "no layer is called 'shortcut/a'"),
    "error in a layer": (
        lambda: network(nnx.Rngs(0))(X[..., :0]),
        "layer 'conv': Conv: inputs of shape .* have 0 channels",
    ),
    "shortcut": (
        lambda: nn.Residual({"a": nn.Conv(1, 2, (1, 1), rngs=nnx.Rngs(0))})(X),
        "the branch gives (2, 8, 8, 2), but the shortcut gives (2, 8, 8, 1)",
    ),
    "branches": (
        lambda: nn.Parallel({"a": jnp.tanh, "b": nn.MaxPool((2, 2))})(X),
        "branches differ in more than channels",
    ),
    "dropout without key": (
        lambda: nn.Dropout(0.5)(X, train=True),
        "Dropout: training needs random numbers; pass rngs=",
    ),
    "dropout rate": (lambda: nn.Dropout(1.5), "Dropout: rate=1.5 must be a number in [0, 1]"),
    "norm channels": (lambda: nn.BatchNorm(4, rngs=nnx.Rngs(0))(X), "inputs of shape (2, 8, 8, 1) have 1 channels"),
    "norm momentum": (lambda: nn.BatchNorm(4, momentum=2, rngs=nnx.Rngs(0)), "momentum=2 must be between 0 and 1"),
    "linear features": (lambda: nn.Linear(5, 2, rngs=nnx.Rngs(0))(X), "have 1 features, but in_features=5"),
    "pool window": (lambda: nn.MaxPool((2, 0)), "MaxPool: window_shape=(2, 0) must be at least 1 on every axis"),
    "pool strides": (
        lambda: nn.AvgPool((2, 2), strides=(1,)),
        "AvgPool: strides=(1,) has 1 entries for 2 spatial axes",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_use(name):
    call, expected = BAD[name]
    with pytest.raises(UsageError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    position = 0
    for part in expected.split(" .* "):
        position = message.find(part, position)
        assert position >= 0, message
