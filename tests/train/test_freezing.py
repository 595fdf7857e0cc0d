"""A network with a frozen layer against a NumPy loop that trains the other layer on fixed features."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from cnn_jax import models, nn, train
from cnn_jax.data.batches import batch_indices
from tests.train.test_step import BATCH, RATE, N, problem

STEPS = 5


def test_frozen_layer_is_not_differentiated_and_has_no_optimiser_state() -> None:
    rngs = nnx.Rngs(0)
    model = nn.Sequence({"first": nn.Linear(3, 4, rngs=rngs), "second": nn.Linear(4, 1, rngs=rngs)})
    graph, params, rest = nnx.split(model, models.trainable(model, freeze="first"), ...)
    optimizer = optax.sgd(RATE, momentum=0.9)

    def loss(params, model_state, batch, key):
        errors = (nnx.merge(graph, params, model_state)(batch["x"])[:, 0] - batch["y"]) ** 2
        return errors.mean(), ({"loss": (errors.sum(), jnp.float32(errors.size))}, model_state)

    state = train.create_state(jax.random.key(1), params, rest, optimizer)
    assert {leaf.shape for leaf in jax.tree.leaves(state.opt_state)} == {(4, 1), (1,)}
    step = train.make_step(loss, optimizer)
    data = problem()
    batch = {name: array[:BATCH] for name, array in data.items()}
    products = str(jax.make_jaxpr(step)(state, batch)).count("dot_general")
    assert products == 3, "of the two layers, and of the second one's kernel; none for the first one's gradient"

    frozen = {
        name: np.asarray(value[...], float)
        for name, value in (("kernel", model.first.kernel), ("bias", model.first.bias))
    }
    kernel, bias = np.asarray(model.second.kernel[...], float)[:, 0], float(model.second.bias[0])
    velocity = [np.zeros(4), 0.0]
    order = batch_indices(train.stream_key(jax.random.key(1), "order"), 0, STEPS, num_examples=N, batch_size=BATCH)
    for rows in np.asarray(order):
        x, y = (np.asarray(data[name], float)[rows] for name in ("x", "y"))
        features = x @ frozen["kernel"] + frozen["bias"]
        errors = features @ kernel + bias - y
        velocity = [0.9 * velocity[0] + 2 * features.T @ errors / BATCH, 0.9 * velocity[1] + 2 * errors.mean()]
        kernel, bias = kernel - RATE * velocity[0], bias - RATE * velocity[1]
    before = train.digest(rest)
    state, _ = train.make_scanned_steps(step, batch_size=BATCH, num_examples=N, longest=STEPS)(state, data, STEPS)
    assert train.digest(state.model_state) == before
    np.testing.assert_allclose(state.params["second"]["kernel"][...][:, 0], kernel, rtol=1e-4)
    np.testing.assert_allclose(state.params["second"]["bias"][...], [bias], rtol=1e-4)
