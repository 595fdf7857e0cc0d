"""Accumulation, the moving average and skipped steps against NumPy on the linear model of test_step."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import train
from cnn_jax.data.batches import batch_indices
from cnn_jax.errors import UsageError
from tests.train.test_step import BATCH, RATE, N, loss, problem

STEPS = 6


def walk(w: np.ndarray, data: dict[str, jax.Array], *, skip: tuple[int, ...] = ()) -> list[np.ndarray]:
    """Gradient descent on the batches of the run, without the skipped steps."""
    key = train.stream_key(jax.random.key(1), "order")
    path = [w]
    for step, rows in enumerate(np.asarray(batch_indices(key, 0, STEPS, num_examples=N, batch_size=BATCH))):
        x, y = (np.asarray(data[name], float)[rows] for name in ("x", "y"))
        w = path[-1]
        path.append(w if step in skip else w - RATE * 2 * x.T @ (x @ w - y) / BATCH)
    return path


def run(data: dict[str, jax.Array], *, loss=loss, ema: bool = False, **options):
    optimizer = optax.sgd(RATE)
    step = train.make_step(loss, optimizer, **options)
    model_state = {"seen": jnp.int32(0)}
    state = train.create_state(jax.random.key(1), {"w": jnp.zeros(3)}, model_state, optimizer, ema=ema)
    return train.make_scanned_steps(step, batch_size=BATCH, num_examples=N, longest=STEPS)(state, data, STEPS)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(parts: int) -> None:
    data = problem()
    state, metrics = run(data, accumulate=parts)
    np.testing.assert_allclose(state.params["w"], walk(np.zeros(3), data)[-1], rtol=1e-5)
    assert int(state.model_state["seen"]) == STEPS * BATCH, "the state goes through the parts one after the other"
    np.testing.assert_array_equal(metrics["loss"][1], np.full(STEPS, BATCH))


def test_moving_average() -> None:
    data = problem()
    state, _ = run(data, ema=True, ema_decay=0.25)
    path = walk(np.zeros(3), data)
    average = path[0]
    for step, w in enumerate(path[1:]):
        decay = min(0.25, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * w
    np.testing.assert_allclose(state.ema[0]["w"], average, rtol=1e-5)
    np.testing.assert_allclose(state.params["w"], path[-1], rtol=1e-5)
    assert train.evaluated(state).params["w"] is state.ema[0]["w"]
    assert int(state.ema[1]["seen"]) == STEPS * BATCH, "counts are copied, not averaged"


def broken_when_told(params, model_state, batch, key):
    """The loss of test_step, but NaN for batches that contain example 3."""
    value, (metrics, model_state) = loss(params, model_state, batch, key)
    value = jnp.where((batch["number"] == 3).any(), jnp.nan, 1.0) * value
    return value, ({**metrics, "loss": (value * BATCH, metrics["loss"][1])}, model_state)


def test_steps_that_are_not_finite_are_skipped_and_counted() -> None:
    data = {**problem(), "number": jnp.arange(N)}
    key = train.stream_key(jax.random.key(1), "order")
    rows = np.asarray(batch_indices(key, 0, STEPS, num_examples=N, batch_size=BATCH))
    broken = tuple(int(step) for step in range(STEPS) if 3 in rows[step])
    assert 0 < len(broken) < STEPS
    state, metrics = run(data, loss=broken_when_told, on_nonfinite="skip")
    np.testing.assert_allclose(state.params["w"], walk(np.zeros(3), data, skip=broken)[-1], rtol=1e-5)
    assert tuple(np.flatnonzero(metrics["skipped"][0])) == broken
    assert int(state.step) == STEPS
    assert int(state.model_state["seen"]) == BATCH * (STEPS - len(broken))
    counted = train.averages(train.added({}, metrics))
    assert np.isfinite(counted["loss"])
    assert counted["skipped"] == pytest.approx(len(broken) / STEPS)


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"on_nonfinite": "skip"}], ids=str)
def test_each_step_measures_the_gradient_and_the_new_parameters(options: dict) -> None:
    data = problem()
    _, metrics = run(data, **options)
    path = walk(np.zeros(3), data)
    gradients = [(before - after) / RATE for before, after in itertools.pairwise(path)]
    for name, vectors in {"gradient_norm": gradients, "parameter_norm": path[1:]}.items():
        np.testing.assert_allclose(metrics[name][0], [np.linalg.norm(vector) for vector in vectors], rtol=1e-5)
        np.testing.assert_array_equal(metrics[name][1], np.ones(STEPS))
    assert "learning_rate" not in metrics


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lars", "muon", "lookahead"])
def test_the_recorded_learning_rate_is_that_of_the_update_and_skipped_steps_do_not_count(name: str) -> None:
    """The schedule of an optimiser counts updates; a skipped step has none."""
    schedule = train.learning_rate_schedule("linear", 1.0, total_steps=10)
    optimizer = train.create_optimizer(name, schedule, clip_norm=1.0)
    params = {"w": jnp.ones((2, 2))}

    def of_one(params, model_state, batch, key):
        value = (params["w"] * batch["x"][:, None]).sum()
        return value, ({"loss": (value, jnp.ones(()))}, model_state)

    step = jax.jit(train.make_step(of_one, optimizer, on_nonfinite="skip", learning_rate=schedule))
    state = train.create_state(jax.random.key(0), params, {}, optimizer)
    found = []
    for x in (1.0, np.nan, 1.0, 1.0):
        state, metrics = step(state, {"x": jnp.full(2, x)})
        totals = train.added({}, jax.tree.map(lambda leaf: leaf[None], metrics), 1)
        found.append(train.averages(totals).get("learning_rate"))
    assert found == [1.0, None, pytest.approx(0.9), pytest.approx(0.8)]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"accumulate": 0}, ["accumulate=0"]),
        ({"ema_decay": 1.0}, ["ema_decay=1.0"]),
        ({"on_nonfinite": "skp"}, ["'skp'", "'skip'"]),
        ({"accumulate": 3}, ["accumulate=3", "4 examples"]),
    ],
    ids=str,
)
def test_mistakes_are_named(options: dict, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        run(problem(), **options)
    assert all(part in str(caught.value) for part in parts)
