"""Shapes of layers, lists and networks, computed without arrays."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from cnn_jax import geometry, nn, ops
from cnn_jax.errors import UsageError


def conv(inputs: int, outputs: int) -> nn.Conv:
    return nn.Conv(inputs, outputs, (5, 5), padding="VALID", rngs=nnx.Rngs(0))


def test_modules_functions_mappings_and_lists() -> None:
    layers = {"conv": conv(3, 4), "tanh": jnp.tanh, "pool": nn.MaxPool((2, 2)), "mean": ops.global_avg_pool}
    for given in (layers, list(layers.values()), nn.Sequence(layers)):
        assert geometry.output_shape(given, (32, 24, 3)) == (4,)
    assert geometry.output_shape(layers["conv"], [32, 24, 3]) == (28, 20, 4)
    assert geometry.output_shape(jnp.tanh, (5,)) == (5,)
    assert geometry.output_shape({}, (5, 4)) == (5, 4)


def test_abstract_layers_and_layers_inside_a_trace() -> None:
    layers = nnx.eval_shape(lambda: nn.Sequence({"conv": conv(3, 4)}))
    assert geometry.output_shape(layers, (9, 9, 3)) == (5, 5, 4)
    shapes = []
    jax.eval_shape(lambda: shapes.append(geometry.output_shape({"conv": conv(3, 4)}, (9, 9, 3))))
    assert shapes == [(5, 5, 4)]


@pytest.mark.parametrize("as_list", [True, False])
def test_the_layer_that_does_not_fit_is_named(as_list: bool) -> None:
    layers = {"c1": conv(3, 4), "c2": conv(4, 4)}
    given = list(layers.values()) if as_list else layers
    with pytest.raises(UsageError, match="layer " + ("1" if as_list else "'c2'") + ".*5x5.*2x2"):
        geometry.output_shape(given, (6, 6, 3))
