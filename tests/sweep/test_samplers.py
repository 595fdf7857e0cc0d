"""Samplers: the same points for the same seed, and better points from samplers that learn."""

import itertools
import json
import random
from typing import Any

import numpy as np
import optuna
import pytest
from ml_collections import ConfigDict

from cnn_jax.errors import UsageError
from cnn_jax.sweep import samplers, space
from cnn_jax.sweep.samplers import Proposal, Sampler
from cnn_jax.sweep.settings import Sweep
from tests.sweep import trivial

SPACE = space.product(
    space.sweep("kind", ["a", "b"]),
    space.uniform("x", 0.0, 1.0),
    space.when("kind", "b", space.log_uniform("y", 0.01, 1.0)),
)


def sweep(sampler: str, part: space.Part = SPACE, **options: Any) -> Sweep:
    config = ConfigDict({"seed": options.pop("seed", 0), "kind": "a", "x": 0.5, "y": 0.5})
    return Sweep(config, part, train="", metric=trivial.METRIC, points=50, sampler=sampler, **options)


def score(overrides: dict[str, Any]) -> float:
    return -((overrides.get("x", 0.5) - 0.3) ** 2) - (overrides.get("y", 0.5) - 0.2) ** 2


def finished(proposal: Proposal) -> optuna.trial.FrozenTrial:
    kept = {key: getattr(proposal, key) for key in ("params", "distributions", "system_attrs")}
    return optuna.create_trial(value=score(proposal.overrides), **kept)


def running(proposal: Proposal) -> optuna.trial.FrozenTrial:
    kept = {key: getattr(proposal, key) for key in ("params", "distributions", "system_attrs")}
    return optuna.create_trial(state=optuna.trial.TrialState.RUNNING, **kept)


def points(described: Sweep, count: int, *, order: random.Random | None = None) -> list[dict[str, Any]]:
    """The first points of a sweep. With ``order``, results arrive late and in random order, as from several workers."""
    sampler, proposals, known = Sampler(described), [], []
    while len(proposals) < count:
        proposal = sampler.propose(len(proposals), known)
        if proposal is not None:
            proposals.append(proposal)
            known.append(running(proposal) if order else finished(proposal))
            continue
        assert order is not None
        number = order.choice([k for k, trial in enumerate(known) if not trial.state.is_finished()])
        known[number] = finished(proposals[number])
        sampler = Sampler(described)  # as in another process
    return [proposal.overrides for proposal in proposals]


@pytest.mark.parametrize("sampler", ["sobol", "halton", "tpe", "cmaes"])
def test_points_depend_on_the_seed_alone(sampler: str) -> None:
    first = points(sweep(sampler), 16)
    assert points(sweep(sampler), 16) == first
    assert points(sweep(sampler, seed=1), 16) != first


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_order_in_which_trials_finish_does_not_matter(sampler: str) -> None:
    described = sweep(sampler, ahead=4)
    found = [points(described, 20, order=random.Random(seed)) for seed in range(3)]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_results_change_what_comes_next(sampler: str) -> None:
    part = space.product(space.uniform("x", 0.0, 1.0), space.uniform("y", 0.0, 1.0))
    found = points(sweep(sampler, part), 40)
    even = points(sweep("sobol", part), 40)
    assert np.mean([score(point) for point in found[-15:]]) > np.mean([score(point) for point in even[-15:]]) + 0.05


@pytest.mark.parametrize("sampler", ["sobol", "halton", "random"])
def test_sequences_are_more_even_than_independent_draws(sampler: str) -> None:
    """Compares SciPy's discrepancy of a sequence and of independent draws."""
    from scipy.stats import qmc

    part = space.product(space.uniform("x", 0.0, 1.0), space.uniform("y", 0.0, 1.0))
    of_sequence = qmc.discrepancy(np.array([[p["x"], p["y"]] for p in points(sweep(sampler, part), 33)[1:]]))
    of_draws = [qmc.discrepancy(np.random.default_rng(seed).random((32, 2))) for seed in range(20)]
    assert of_sequence < min(of_draws)


def test_sequence_is_even_under_a_condition() -> None:
    found = [point["y"] for point in points(sweep("sobol"), 65)[1:] if point["kind"] == "b"]
    assert len(found) == pytest.approx(32, abs=2)
    halves = np.mean(np.array(found) < 0.1)  # the logarithmic middle of 0.01 to 1
    assert halves == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("sampler", ["grid", "sobol", "tpe"])
def test_conditions_within_conditions(sampler: str) -> None:
    inner = space.when("x", 1.0, space.sweep("y", [0.1, 0.2]))
    part = space.product(space.sweep("kind", ["a", "b"]), space.when("kind", "b", space.sweep("x", [0.0, 1.0]), inner))
    part = space.from_json(json.loads(json.dumps(space.to_json(part))))
    space.check(part, sweep(sampler).config)
    found = {tuple(point.values()) for point in points(sweep(sampler, part), 4 if sampler == "grid" else 24)}
    assert found == {("a",), ("b", 0.0), ("b", 1.0, 0.1), ("b", 1.0, 0.2)}


def test_grid_is_in_the_order_of_a_product() -> None:
    part = space.product(space.sweep("kind", ["a", "b"]), space.sweep("x", [0.0, 0.5, 1.0]))
    expected = [{"kind": kind, "x": x} for kind, x in itertools.product("ab", [0.0, 0.5, 1.0])]
    assert points(sweep("grid", part), 6) == expected


def test_adaptive_sampler_waits_for_the_results_it_depends_on() -> None:
    sampler, known = Sampler(sweep("tpe", ahead=2)), []
    for number in range(2):
        proposal = sampler.propose(number, known)
        assert proposal is not None
        known.append(running(proposal))
    assert sampler.propose(2, known) is None
    known[0] = finished(proposal)
    assert sampler.propose(2, known) is not None


@pytest.mark.parametrize(
    ("sampler", "pruner", "expected"),
    [("tpee", "none", "'tpe'"), ("tpe", "halfing", "'halving'"), ("grid", "none", "")],
)
def test_unknown_names(sampler: str, pruner: str, expected: str) -> None:
    if not expected:
        samplers.check(sampler, pruner)
        return
    with pytest.raises(UsageError, match=expected):
        samplers.check(sampler, pruner)


@pytest.mark.parametrize(("module", "sampler"), [("torch", "gp"), ("cmaes", "cmaes"), ("optuna", "tpe")])
def test_missing_package_is_named(module: str, sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(UsageError, match=rf" needs {module}: pip install -e '.\[(sweep|torch)\]'"):
        samplers.check(sampler, "none")
