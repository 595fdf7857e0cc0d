"""Fields, products and parameters of random networks against brute force."""

import jax
import numpy as np
import pytest
from flax import nnx

from cnn_jax import geometry, nn
from tests.geometry.programs import CHANNELS, Generator, Network, Step, positive, products, seen

KINDS = sum(name.startswith("step_") for name in dir(Generator))


@pytest.mark.parametrize("seed", [*range(KINDS), *(pytest.param(n, marks=pytest.mark.slow) for n in range(KINDS, 200))])
def test_random_network(seed: int) -> None:
    """Each kind of step is the first step of one of the networks."""
    rank = 2 if seed % 5 == 4 else 1
    shape = (28, 24, CHANNELS) if rank == 2 else (96, CHANNELS)
    network = Generator(seed, rank).network(first=seed, steps=3)
    probe = Step([nnx.Conv(CHANNELS, 1, (1,) * rank, rngs=nnx.Rngs(0))], lambda x, conv: conv(x))
    network = Network([*network.steps, probe])
    rows = geometry.trace(network, shape)
    total = geometry.total(rows)
    assert total.multiply_adds == products(network, shape)
    assert total.parameters == sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
    check_field(network, shape, rows[-1].receptive_field)
    named = geometry.trace(nn.Sequence({f"step{index}": step for index, step in enumerate(network.steps)}), shape)
    assert geometry.total(named).multiply_adds == total.multiply_adds
    assert geometry.total(named).parameters == total.parameters
    assert named[-1].receptive_field == rows[-1].receptive_field


def check_field(network: Network, shape: tuple[int, ...], field: geometry.ReceptiveField) -> None:
    """Inside the image the fields are equal; near an edge the measured field may be smaller because of padding."""
    measured = seen(positive(network), shape)
    rank = len(shape) - 1
    middle = tuple(size // 2 for size in measured.shape[:rank])
    for axis in range(rank):
        others = tuple(other for other in range(rank) if other != axis)
        for number in range(measured.shape[axis]):
            unit = tuple(number if other == axis else middle[other] for other in range(rank))
            interval = field.interval(unit)
            positions = np.flatnonzero(measured[unit].any(axis=others))
            first, last = interval[axis]
            if not any(step.mirrors for step in network.steps):
                assert all(first <= position <= last for position in positions), (axis, unit)
            if abs(number - middle[axis]) > 3 or not all(
                size / 4 < first and last < 3 * size / 4 for size, (first, last) in zip(shape, interval, strict=False)
            ):
                continue
            expected = [first, last] if all(first <= last for first, last in interval) else []
            assert [*positions[:1], *positions[-1:]] == expected, (axis, unit)
