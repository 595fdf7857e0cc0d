"""Compiled steps and evaluations against plain NumPy on a linear model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import train
from cnn_jax.data.batches import batch_indices

N, BATCH, RATE = 23, 4, 0.1


def problem() -> dict[str, jax.Array]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N, 3)).astype(np.float32)
    return {"x": jnp.asarray(x), "y": jnp.asarray(x @ [1.0, -2.0, 0.5], jnp.float32)}


def loss(params, model_state, batch, key):
    errors = (batch["x"] @ params["w"] - batch["y"]) ** 2
    metrics = {"loss": (errors.sum(), jnp.float32(errors.size)), "noise": (jax.random.normal(key), jnp.ones(()))}
    return errors.mean(), (metrics, {"seen": model_state["seen"] + errors.size})


def evaluate(state, batch):
    errors = (batch["x"] @ state.params["w"] - batch["y"]) ** 2
    return {"loss": ((errors * batch["mask"]).sum(), batch["mask"].sum())}


def start() -> train.TrainState:
    return train.create_state(jax.random.key(1), {"w": jnp.zeros(3)}, {"seen": jnp.int32(0)}, optax.sgd(RATE))


def scanned(longest: int = 7):
    step = train.make_step(loss, optax.sgd(RATE))
    return train.make_scanned_steps(step, batch_size=BATCH, num_examples=N, longest=longest)


def test_scanned_steps_are_gradient_descent_on_the_announced_batches() -> None:
    data = problem()
    state, metrics = scanned()(start(), data, 7)
    order = np.asarray(
        batch_indices(train.stream_key(jax.random.key(1), "order"), 0, 7, num_examples=N, batch_size=BATCH)
    )
    w, losses = np.zeros(3), []
    for rows in order:
        x, y = (np.asarray(data[name], float)[rows] for name in ("x", "y"))
        losses.append(((x @ w - y) ** 2).mean())
        w = w - RATE * 2 * x.T @ (x @ w - y) / BATCH
    np.testing.assert_allclose(state.params["w"], w, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"][0] / metrics["loss"][1], losses, rtol=1e-5)
    assert int(state.step) == 7
    assert int(state.model_state["seen"]) == 7 * BATCH


def test_steps_and_their_sums_do_not_depend_on_the_length_of_calls() -> None:
    data, steps = problem(), scanned()

    def end(counts: list[int]) -> tuple[str, dict[str, tuple[float, float]]]:
        state, totals = start(), {}
        for count in counts:
            state, metrics = steps(state, data, count)
            totals = train.added(totals, metrics, count)
        return train.digest(state), totals

    assert end([6]) == end([3, 3])  # from a state that is not yet committed to a device, and from one that is
    programs = steps._cache_size()
    assert end([1, 4, 1]) == end([6])
    assert steps._cache_size() == programs, "one program for calls of any length"


def test_each_step_draws_other_random_numbers() -> None:
    _, metrics = scanned()(start(), problem(), 5)
    assert len(set(np.asarray(metrics["noise"][0])[:5].tolist())) == 5


@pytest.mark.parametrize("batch_size", [1, 4, 23, 50])
def test_evaluation_is_exact_whatever_the_batch_size(batch_size: int) -> None:
    data = problem()
    state = start()
    scores = train.make_evaluations(evaluate, {"test": data}, batch_size=batch_size)(state)
    assert scores["test/loss"] == pytest.approx((np.asarray(data["y"], float) ** 2).mean(), rel=1e-5)


def test_streams_are_independent_and_the_same_in_every_process() -> None:
    root = jax.random.key(0)
    # The CRC-32 of b"order"; Python's own hash() would differ from process to process.
    expected = jax.random.fold_in(jax.random.fold_in(root, 0xF5299398), 2)
    assert train.stream_key(root, "order", 2) == expected
    draws = [jax.random.normal(train.stream_key(root, name, step), (1000,)) for name in ("a", "b") for step in (0, 1)]
    correlations = np.corrcoef(np.stack(draws))[np.triu_indices(4, k=1)]
    assert np.abs(correlations).max() < 0.15


def test_digest_depends_on_names_shapes_types_and_bits() -> None:
    base = {"w": np.zeros((2, 3), np.float32)}
    others = [
        {"v": np.zeros((2, 3), np.float32)},
        {"w": np.zeros((3, 2), np.float32)},
        {"w": np.zeros((2, 3), np.int32)},
        {"w": -np.zeros((2, 3), np.float32)},
    ]
    assert len({train.digest(tree) for tree in [base, *others]}) == 5
