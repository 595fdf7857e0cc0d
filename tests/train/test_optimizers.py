"""Each optimiser against its textbook formula in a NumPy loop; the schedules against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.errors import UsageError
from cnn_jax.train import create_optimizer, learning_rate_schedule

RATE, MOMENTUM, DECAY, STEPS = 0.1, 0.8, 0.01, 5


def gradients() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(STEPS, 2, 3))


def textbook(name: str, weight_decay: float) -> np.ndarray:
    """The parameters after STEPS steps from ones, in float64."""
    w = np.ones((2, 3))
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients(), start=1):
        if name in ("sgd", "nesterov"):
            g = g + weight_decay * w
            m = MOMENTUM * m + g
            direction = g + MOMENTUM * m if name == "nesterov" else m
        elif name == "adam":
            m, v = MOMENTUM * m + (1 - MOMENTUM) * g, 0.999 * v + 0.001 * g * g
            direction = (m / (1 - MOMENTUM**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + weight_decay * w
        elif name == "rmsprop":
            v = 0.9 * v + 0.1 * g * g
            m = MOMENTUM * m + g / np.sqrt(v + 1e-8)
            direction = m + weight_decay * w
        elif name == "adagrad":
            v = v + g * g
            direction = g / np.sqrt(v + 0.1 + 1e-7) + weight_decay * w
        w = w - RATE * direction
    return w


@pytest.mark.parametrize("weight_decay", [0.0, DECAY])
@pytest.mark.parametrize("name", ["sgd", "nesterov", "adam", "rmsprop", "adagrad"])
def test_steps_follow_the_textbook(name: str, weight_decay: float) -> None:
    with jax.enable_x64(True):
        optimizer = create_optimizer(name, RATE, momentum=MOMENTUM, weight_decay=weight_decay)
        params = jnp.ones((2, 3))
        state = optimizer.init(params)
        for gradient in gradients():
            updates, state = optimizer.update(jnp.asarray(gradient), state, params)
            params = params + updates
    np.testing.assert_allclose(params, textbook(name, weight_decay), rtol=1e-6)


def test_weight_decay_spares_biases() -> None:
    optimizer = create_optimizer("sgd", 1.0, momentum=0.0, weight_decay=0.5)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.5)
    np.testing.assert_allclose(updates["bias"], 0.0)


@pytest.mark.parametrize(
    ("name", "decay"),
    [
        ("constant", lambda part: 1.0),
        ("linear", lambda part: 1 + part * (0.1 - 1)),
        ("cosine", lambda part: 0.1 + 0.9 * (1 + np.cos(np.pi * part)) / 2),
    ],
)
def test_schedules_follow_their_closed_forms(name: str, decay) -> None:
    schedule = learning_rate_schedule(name, 2.0, total_steps=110, warmup_steps=10, end_factor=0.1)
    for step in range(10):
        assert schedule(step) == pytest.approx(2.0 * step / 10)
    for step in range(10, 111, 10):
        assert schedule(step) == pytest.approx(2.0 * decay((step - 10) / 100), rel=1e-5)


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: create_optimizer("admw", 0.1), ["'admw'", "'adam'"]),
        (lambda: create_optimizer("sgd", 0.1, momentum=1.0), ["momentum=1.0"]),
        (lambda: create_optimizer("sgd", 0.1, weight_decay=-0.1), ["weight_decay=-0.1"]),
        (lambda: learning_rate_schedule("cosin", 0.1, total_steps=3), ["'cosin'", "'cosine'"]),
        (lambda: learning_rate_schedule("cosine", 0.1, total_steps=3, warmup_steps=3), ["warm-up of 3", "run of 3"]),
    ],
)
def test_mistakes_are_named(call, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert all(part in str(caught.value) for part in parts)
