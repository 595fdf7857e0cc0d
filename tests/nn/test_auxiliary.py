"""Auxiliary classifiers, and the data flow of composite layers."""

import jax
import numpy as np
from flax import nnx

from cnn_jax import nn

X = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)


def network() -> nn.Sequence:
    rngs = nnx.Rngs(0)
    head = nn.Auxiliary({"hidden": nn.Linear(5, 4, rngs=rngs), "dropout": nn.Dropout(0.5), "logits": nn.Scale(2.0)})
    return nn.Sequence({"below": nn.Linear(6, 5, rngs=rngs), "aux": head, "above": nn.Linear(5, 3, rngs=rngs)})


def test_a_head_leaves_the_network_as_it_is() -> None:
    model = network()
    without = nn.Sequence({"below": model.below, "above": model.above})
    np.testing.assert_array_equal(model(X), without(X))
    np.testing.assert_array_equal(model(X, train=True, rngs=jax.random.key(0)), without(X))
    output, activations = model(X, train=True, rngs=jax.random.key(0), return_activations=True)
    np.testing.assert_array_equal(output, without(X))
    assert list(activations) == ["below", "aux/hidden", "aux/dropout", "aux/logits", "above"]
    np.testing.assert_array_equal(activations["aux/logits"], 2 * activations["aux/dropout"])
    assert model.layer("aux/hidden") is model.aux.hidden


def test_a_head_needs_nothing_where_it_is_not_run() -> None:
    """Its dropout would require random numbers."""
    model = network()
    assert list(model(X, train=False, return_activations=True)[1]) == ["below", "above"]
    model.eval()
    assert list(model(X, return_activations=True)[1]) == ["below", "above"]
    model.train()
    assert "aux/logits" in model(X, rngs=jax.random.key(0), return_activations=True)[1]


def test_the_loss_of_a_head_reaches_what_is_below_and_nothing_above() -> None:
    graph, params = nnx.split(network())

    def loss(params: nnx.State) -> jax.Array:
        model = nnx.merge(graph, params)
        _, activations = model(X, train=True, rngs=jax.random.key(0), return_activations=True)
        return (activations["aux/logits"] ** 2).sum()

    gradients = jax.jit(jax.grad(loss))(params)
    reached = {name: any(map(np.any, jax.tree.leaves(gradients[name]))) for name in ("below", "aux", "above")}
    assert reached == {"below": True, "aux": True, "above": False}


def test_things_flow_as_arrays_do() -> None:
    """Strings of names pass through every branch that an array passes through."""
    model = nn.Sequence(
        {
            "a": abs,
            "par": nn.Parallel({"b": abs, "c": nn.Sequence({"d": abs, "e": abs})}),
            "aux": nn.Auxiliary({"f": abs}),
            "res": nn.Residual({"g": abs}),
            "pro": nn.Residual({"h": abs}, {"i": abs}),
        }
    )

    def visit(name: str, layer: object, x: str) -> str:
        return layer.flow(x, visit=visit, join=join) if hasattr(layer, "flow") else x + name

    def join(name: str, paths: list[str]) -> str:
        return f"{name}({','.join(paths)})"

    entered = "concatenate(ab,ade)"
    summed = f"add({entered}g,{entered})"
    assert model.flow("", visit=visit, join=join) == f"add({summed}h,{summed}i)"
