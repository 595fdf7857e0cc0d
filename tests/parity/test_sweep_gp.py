"""The one sampler of sweeps that needs PyTorch."""

from cnn_jax.sweep import samplers, space
from tests.sweep.test_samplers import points, score, sweep


def test_gaussian_process_finds_better_points_and_repeats_itself() -> None:
    samplers.check("gp", "none")
    described = sweep("gp", space.product(space.uniform("x", 0.0, 1.0), space.uniform("y", 0.0, 1.0)))
    found = points(described, 15)
    assert points(described, 12) == found[:12]
    assert max(map(score, found[10:])) > max(map(score, found[:10]))
    assert max(map(score, found)) > -0.005
