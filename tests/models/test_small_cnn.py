"""The small network against hand counts."""

from cnn_jax import geometry
from tests.models.traced import abstract


def test_parameters_are_those_of_its_table() -> None:
    convolutions = 9 * (1 * 32 + 32 * 64 + 64 * 64)
    norms = 2 * (32 + 64 + 64)
    full = 7 * 7 * 64 * 128 + 128 + 128 * 10 + 10
    assert geometry.parameter_count(abstract("small_cnn")) == convolutions + norms + full == 458_730
