"""Optimisers and schedules against those that torch.optim also has."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from cnn_jax.train import create_optimizer, learning_rate_schedule
from tests.parity.test_pool import draw

RATE, MOMENTUM, STEPS = 0.05, 0.8, 6
BETAS = {"betas": (MOMENTUM, 0.999)}
THEIRS = {
    "sgd": (torch.optim.SGD, {"momentum": MOMENTUM}),
    "nesterov": (torch.optim.SGD, {"momentum": MOMENTUM, "nesterov": True}),
    "adagrad": (torch.optim.Adagrad, {}),
    "rmsprop": (torch.optim.RMSprop, {"alpha": 0.9, "momentum": MOMENTUM}),
    "adam": (torch.optim.Adam, BETAS),
    "adamw": (torch.optim.AdamW, BETAS),
}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("name", THEIRS)
def test_optimizer(name: str, weight_decay: float) -> None:
    ours = create_optimizer(name, RATE, momentum=MOMENTUM, weight_decay=weight_decay)
    params = jnp.asarray(draw((3, 4), 99))
    kind, options = THEIRS[name]
    theirs = torch.nn.Parameter(torch.tensor(np.asarray(params)))
    optimizer = kind([theirs], lr=RATE, weight_decay=weight_decay, **options)
    state, update = ours.init(params), jax.jit(ours.update)
    for seed in range(STEPS):
        gradient = draw((3, 4), seed)
        updates, state = update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
    np.testing.assert_allclose(params, theirs.detach().numpy(), rtol=2e-5, atol=2e-6)


def rates_of(make) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler, rates = make(optimizer), []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


SCHEDULERS = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    ("options", "make"),
    [
        ({"name": "cosine"}, lambda optimizer: SCHEDULERS.CosineAnnealingLR(optimizer, 40)),
        ({"name": "step", "drops": (10, 25)}, lambda optimizer: SCHEDULERS.MultiStepLR(optimizer, [10, 25])),
        # PyTorch reaches the end one step earlier: its last of n + 1 steps is our end after n.
        (
            {"name": "one_cycle", "warmup_steps": 12, "end_factor": 1 / 25 / 1e4},
            lambda optimizer: SCHEDULERS.OneCycleLR(optimizer, 2.0, total_steps=41, pct_start=13 / 41),
        ),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_schedule(options: dict, make) -> None:
    schedule = learning_rate_schedule(peak=2.0, total_steps=40, **options)
    np.testing.assert_allclose([schedule(step) for step in range(40)], rates_of(make), rtol=1e-4, atol=1e-5)
