"""Each optimiser against its paper's formula in a NumPy loop; the schedules against their closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax.errors import UsageError
from cnn_jax.train import create_optimizer, learning_rate_schedule

RATE, MOMENTUM, DECAY, STEPS = 0.1, 0.8, 0.01, 5
NAMES = ["sgd", "nesterov", "adagrad", "adadelta", "rmsprop", "adam", "adamw", "lars", "muon"]
SHAPES = {"kernel": (2, 2, 3, 4), "bias": (4,)}


def draw(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.normal(size=shape) for name, shape in SHAPES.items()}


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


class Textbook:
    """One parameter with one update rule, in float64."""

    def __init__(self, name: str, weight_decay: float) -> None:
        self.name, self.decay, self.t, self.m, self.v = name, weight_decay, 0, 0.0, 0.0

    def step(self, w: np.ndarray, g: np.ndarray) -> np.ndarray:
        self.t += 1
        name, kernel = self.name, w.ndim > 1
        decay = self.decay if kernel else 0.0
        if name not in ("adamw", "muon"):
            g = g + decay * w
            decay = 0.0
        if name in ("sgd", "nesterov"):
            self.m = MOMENTUM * self.m + g
            direction = g + MOMENTUM * self.m if name == "nesterov" else self.m
        elif name == "adagrad":
            self.v = self.v + g * g
            direction = g / (np.sqrt(self.v) + 1e-10)
        elif name == "adadelta":
            self.v = MOMENTUM * self.v + (1 - MOMENTUM) * g * g
            direction = np.sqrt(self.m + 1e-6) / np.sqrt(self.v + 1e-6) * g
            self.m = MOMENTUM * self.m + (1 - MOMENTUM) * direction**2
        elif name == "rmsprop":
            self.v = 0.9 * self.v + 0.1 * g * g
            self.m = MOMENTUM * self.m + g / (np.sqrt(self.v) + 1e-8)
            direction = self.m
        elif name in ("adam", "adamw"):
            direction = self.adam(g, MOMENTUM)
        elif name == "lars":
            ratio = 0.001 * np.linalg.norm(w) / np.linalg.norm(g) if kernel else 1.0
            self.m = MOMENTUM * self.m + ratio * g
            direction = self.m
        elif kernel:
            self.m = MOMENTUM * self.m + (1 - MOMENTUM) * g
            nesterov = MOMENTUM * self.m / (1 - MOMENTUM ** (self.t + 1))
            nesterov = nesterov + (1 - MOMENTUM) * g / (1 - MOMENTUM**self.t)
            matrix = nesterov.reshape(-1, w.shape[-1])
            direction = newton_schulz(matrix.T).T.reshape(w.shape) * 0.2 * np.sqrt(max(matrix.shape))
        else:
            direction = self.adam(g, 0.9, nesterov=True)
        return w - RATE * (direction + decay * w)

    def adam(self, g: np.ndarray, b1: float, *, nesterov: bool = False) -> np.ndarray:
        self.m, self.v = b1 * self.m + (1 - b1) * g, 0.999 * self.v + 0.001 * g * g
        m = self.m / (1 - b1**self.t)
        if nesterov:
            m = b1 * self.m / (1 - b1 ** (self.t + 1)) + (1 - b1) * g / (1 - b1**self.t)
        return m / (np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)


def walk(optimizer: optax.GradientTransformation, steps: int = STEPS) -> list[dict[str, np.ndarray]]:
    """The parameters after each step."""
    return walk_with({}, lambda: optimizer, steps)


def walk_with(numbers: dict[str, float], make, steps: int = STEPS) -> list[dict[str, np.ndarray]]:
    """The parameters after each step of an optimiser whose options are arguments of the compiled step."""

    @jax.jit
    def step(params, state, gradient, numbers):
        updates, state = make(**numbers).update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params = jax.tree.map(jnp.asarray, draw(100))
    state, path = make(**numbers).init(params), []
    for seed in range(steps):
        params, state = step(params, state, jax.tree.map(jnp.asarray, draw(seed)), numbers)
        path.append(jax.device_get(params))
    return path


@pytest.mark.parametrize("weight_decay", [0.0, DECAY])
@pytest.mark.parametrize("name", NAMES)
def test_steps_follow_the_textbook(name: str, weight_decay: float) -> None:
    numbers = {"learning_rate": RATE, "momentum": MOMENTUM} | ({"weight_decay": weight_decay} if weight_decay else {})
    with jax.enable_x64(True):
        params = walk_with(numbers, functools.partial(create_optimizer, name))[-1]
    for parameter, start in draw(100).items():
        rule, w = Textbook(name, weight_decay), start
        for seed in range(STEPS):
            w = rule.step(w, draw(seed)[parameter])
        np.testing.assert_allclose(params[parameter], w, rtol=1e-6, atol=1e-9, err_msg=parameter)


def test_gradients_are_clipped_by_their_common_norm() -> None:
    first = walk(create_optimizer("sgd", 1.0, momentum=0.0, clip_norm=0.5), steps=1)[0]
    moved = np.concatenate([(draw(100)[name] - first[name]).ravel() for name in SHAPES])
    gradient = np.concatenate([draw(0)[name].ravel() for name in SHAPES])
    np.testing.assert_allclose(moved, 0.5 * gradient / np.linalg.norm(gradient), atol=1e-6)


def test_weights_into_a_unit_are_scaled_back_to_the_largest_norm() -> None:
    params = draw(100)
    options = {"max_norms": (("kernel", 1.5),), "params": params}
    for free, bounded in zip(
        walk(create_optimizer("sgd", 0.1), 1), walk(create_optimizer("sgd", 0.1, **options), 1), strict=True
    ):
        norms = np.sqrt(np.square(free["kernel"]).sum(axis=(0, 1, 2)))
        assert (norms > 1.5).any()
        np.testing.assert_allclose(bounded["kernel"], free["kernel"] * np.minimum(1, 1.5 / norms), rtol=1e-6)
        np.testing.assert_array_equal(bounded["bias"], free["bias"])
    with pytest.raises(UsageError, match="norms must be above 0"):
        create_optimizer("sgd", 0.1, max_norms=(("kernel", 0.0),), params=params)
    with pytest.raises(UsageError, match=r"optimizer\.max_norms='kernal' matches no parameter"):
        create_optimizer("sgd", 0.1, max_norms=(("kernal", 1.0),), params=params)


def test_lookahead_goes_half_the_way_back_every_third_step() -> None:
    path = walk(create_optimizer("sgd", RATE, momentum=0.0, lookahead=3), steps=7)
    fast = slow = draw(100)["kernel"]
    for step in range(7):
        fast = fast - RATE * draw(step)["kernel"]
        if step % 3 == 2:
            fast = slow = (slow + fast) / 2
        np.testing.assert_allclose(path[step]["kernel"], fast, rtol=1e-4, atol=1e-6)


def test_rate_factors_are_separate_learning_rates() -> None:
    shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, draw(100)))
    factors = [("bias", 3.0), ("*", 0.5)]  # the first match counts
    own = walk(create_optimizer("nesterov", RATE, weight_decay=DECAY, rate_factors=factors, params=shapes))[-1]
    for name, factor in (("bias", 3.0), ("kernel", 0.5)):
        alone = walk(create_optimizer("nesterov", factor * RATE, weight_decay=DECAY))[-1]
        np.testing.assert_allclose(own[name], alone[name], rtol=1e-5)


def test_lookahead_by_name_is_sgd_that_goes_back_every_fifth_step() -> None:
    path = walk(create_optimizer("lookahead", RATE, momentum=MOMENTUM), steps=6)
    rule, fast, slow = Textbook("sgd", 0.0), draw(100)["bias"], draw(100)["bias"]
    for step in range(6):
        fast = rule.step(fast, draw(step)["bias"])
        if step == 4:
            fast = (slow + fast) / 2
        np.testing.assert_allclose(path[step]["bias"], fast, rtol=1e-4, atol=1e-6)


def cosine(start: float, end: float):
    return lambda part: end + (start - end) * (1 + np.cos(np.pi * part)) / 2


@pytest.mark.parametrize(
    ("name", "decay"),
    [
        ("constant", lambda part: 1.0),
        ("linear", lambda part: 1 + part * (0.1 - 1)),
        ("cosine", cosine(1.0, 0.1)),
        ("one_cycle", cosine(1.0, 0.1)),
    ],
)
def test_schedules_follow_their_closed_forms(name: str, decay) -> None:
    schedule = learning_rate_schedule(name, 2.0, total_steps=110, warmup_steps=10, end_factor=0.1)
    rise = cosine(1 / 25, 1.0) if name == "one_cycle" else lambda part: part
    for step in range(10):
        assert schedule(step) == pytest.approx(2.0 * rise(step / 10), rel=1e-5)
    for step in range(10, 111, 10):
        assert schedule(step) == pytest.approx(2.0 * decay((step - 10) / 100), rel=1e-5)


def test_step_schedule_drops_at_the_given_times() -> None:
    schedule = learning_rate_schedule("step", 1.0, total_steps=90, warmup_steps=5, drops=(30, 60), drop_factor=0.5)
    rates = {0: 0.0, 4: 0.8, 5: 1.0, 29: 1.0, 30: 0.5, 59: 0.5, 60: 0.25, 89: 0.25}
    assert {step: round(float(schedule(step)), 6) for step in rates} == rates


PARAMS = {"c1": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "output": {"kernel": jnp.ones((2, 2))}}


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda: create_optimizer("adm", 0.1), ["'adm'", "'adam'"]),
        (lambda: create_optimizer("sgd", 0.1, momentum=1.0), ["momentum=1.0"]),
        (lambda: create_optimizer("sgd", 0.1, weight_decay=-0.1), ["weight_decay=-0.1"]),
        (lambda: create_optimizer("sgd", 0.1, clip_norm=-1.0), ["clip_norm=-1.0"]),
        (lambda: create_optimizer("sgd", 0.1, rate_factors=[("c2", 2.0)], params=PARAMS), ["'c2'", "'c1'"]),
        (lambda: learning_rate_schedule("cosin", 0.1, total_steps=3), ["'cosin'", "'cosine'"]),
        (lambda: learning_rate_schedule("cosine", -0.1, total_steps=3), ["learning_rate=-0.1"]),
        (lambda: learning_rate_schedule("cosine", 0.1, total_steps=3, warmup_steps=3), ["warm-up of 3", "run of 3"]),
        (lambda: learning_rate_schedule("step", 0.1, total_steps=9), ["'step'", "drops=()"]),
        (lambda: learning_rate_schedule("cosine", 0.1, total_steps=9, drops=(3,)), ["'cosine'", "drops=(3,)"]),
        (lambda: learning_rate_schedule("step", 0.1, total_steps=9, drops=(6, 3)), ["(6, 3)", "in order"]),
        (lambda: learning_rate_schedule("step", 0.1, total_steps=9, drops=(3, 9)), ["(3, 9)", "the end at 9"]),
    ],
)
def test_mistakes_are_named(call, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert all(part in str(caught.value) for part in parts), caught.value


@pytest.mark.parametrize("name", [*NAMES, "lookahead"])
def test_strict_promotion(name: str) -> None:
    """Works with JAX's strict type promotion, with which optax itself fails; updates have the parameters' dtypes."""
    params = {key: jnp.zeros(shape) for key, shape in SHAPES.items()}
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        rate = learning_rate_schedule("cosine", RATE, total_steps=9, warmup_steps=2)
        optimizer = create_optimizer(name, rate, weight_decay=DECAY, clip_norm=1.0)

        def updates(gradients):
            return optimizer.update(gradients, optimizer.init(params), params)[0]

        assert jax.eval_shape(updates, params) == jax.eval_shape(lambda: params)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "one_cycle", "step"])
def test_schedules_under_strict_promotion(name: str) -> None:
    schedule = learning_rate_schedule(name, RATE, total_steps=9, warmup_steps=2, drops=(5,) if name == "step" else ())
    expected = [float(schedule(step)) for step in (0, 3, 8)]
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        assert [float(schedule(jnp.int32(step))) for step in (0, 3, 8)] == pytest.approx(expected, rel=1e-6)
