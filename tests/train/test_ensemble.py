"""Members of an ensemble against the same networks trained alone."""

import jax
import numpy as np
import optax
import pytest

from cnn_jax import train
from cnn_jax.data.batches import batch_indices
from cnn_jax.train.ensemble import member_key
from tests.train.test_step import BATCH, RATE, N, loss, problem

OPTIMIZER = optax.sgd(RATE, momentum=0.5)


def init(key: jax.Array) -> train.TrainState:
    params = {"w": jax.random.normal(train.stream_key(key, "params"), (3,))}
    return train.create_state(key, params, {"seen": jax.numpy.int32(0)}, OPTIMIZER, ema=True)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])  # one member after the other, and all with vmap
def test_each_member_is_trained_as_if_it_were_alone(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    root, data = jax.random.key(4), problem()
    step = train.make_step(loss, OPTIMIZER, ema_decay=0.5)
    together = train.make_scanned_steps(train.ensemble_step(step), batch_size=BATCH, num_examples=N, longest=2)
    state, metrics = together(train.ensemble_init(init, 3)(root), data, 2)
    assert int(state.step) == 2
    root = jax.random.key(4)  # the first key was donated with the state
    rows = np.asarray(batch_indices(train.stream_key(root, "order"), 0, 2, num_examples=N, batch_size=BATCH))
    total = np.zeros(2)
    for number in range(3):
        alone = init(member_key(root, number))
        for index in range(2):
            alone, one = jax.jit(step)(alone, {name: array[rows[index]] for name, array in data.items()})
            total[index] += float(one["loss"][0])
        have = train.member(state, number)
        for name in ("params", "opt_state", "ema", "model_state"):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), getattr(have, name), getattr(alone, name)
            )
        assert have.key == alone.key
    np.testing.assert_allclose(metrics["loss"][0], total, rtol=1e-6)
    np.testing.assert_array_equal(metrics["loss"][1], [3 * BATCH] * 2)
