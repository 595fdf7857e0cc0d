"""Creating networks by name: defaults, options, and error messages of one line."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from cnn_jax import models
from cnn_jax.errors import UsageError
from tests.models.creation import create


def test_options_are_those_of_the_family() -> None:
    assert models.variant("mlp").options() == ("hidden_sizes", "activation")
    assert models.variant("lenet_5").options() == ()
    assert "dropout_rate" in models.variant("vgg_d").options()
    assert "table" not in models.variant("vgg_d").options()


def test_options_change_the_network() -> None:
    model = models.create("mlp", hidden_sizes=(3, 2), activation="relu", rngs=nnx.Rngs(0))
    assert model.names == ("flatten", "fc1", "fc1_relu", "fc2", "fc2_relu", "output")
    assert model.fc2.kernel.shape == (3, 2)
    model = nnx.eval_shape(lambda: models.create("zfnet", width=0.1, dropout_rate=0.1, rngs=nnx.Rngs(0)))
    assert model.fc6_dropout.rate == 0.1


def test_parameters_are_float32_and_layers_compute_in_dtype() -> None:
    for name in ("alexnet", "lenet_1", "lenet_1989", "mlp", "neocognitron", "vgg_a_bn"):
        small = {"alexnet": (67, 67, 3), "vgg_a_bn": (32, 32, 3)}.get(name)
        options = {"input_shape": small, "width": 0.1} if small else {}

        def output(name=name, options=options):
            model = models.create(name, dtype=jnp.bfloat16, rngs=nnx.Rngs(0), **options)
            shape = options.get("input_shape", models.variant(name).input_shape)
            return nnx.state(model, nnx.Param), model(jnp.ones((1, *shape), jnp.bfloat16))

        params, y = nnx.eval_shape(output)
        assert y.dtype == jnp.bfloat16, name
        assert {leaf.dtype for leaf in nnx.to_flat_state(params).leaves} == {jnp.dtype("float32")}, name


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("vgg_f", {}, ["model.name='vgg_f'", "'vgg_"]),
        ("vgg16", {}, ["model.name='vgg16'", "its name here is 'vgg_d'"]),
        ("lenet_5", {"width": float("nan")}, ["width=nan must be a positive number"]),
        ("lenet_5", {"dtype": "float33"}, ["dtype='float33' must be one of bfloat16"]),
        ("lenet_5", {"dtype": int}, ["dtype=<class 'int'>"]),
        ("mlp", {"hidden_size": (3,)}, ["mlp has no option 'hidden_size'", "'hidden_sizes'"]),
        ("lenet_5", {"dropout_rate": 0.5}, ["lenet_5 has no option 'dropout_rate'", "it has no options"]),
        ("mlp", {"hidden_sizes": (3, 0)}, ["hidden_sizes=(3, 0)", "at least 1"]),
        ("mlp", {"activation": "rely"}, ["activation='rely'", "'relu'"]),
        ("alexnet", {"num_classes": 0}, ["num_classes=0"]),
        ("alexnet", {"width": -1.0}, ["width=-1.0"]),
        ("alexnet", {"width": 0.01, "dropout_rate": 1.5}, ["1.5"]),
        ("alexnet", {"input_shape": (3, 227, 227)}, ["channels-first", "(227, 227, 3)"]),
        ("lenet_1", {"input_shape": (1, 28, 28)}, ["channels-first", "(28, 28, 1)"]),
        ("alexnet", {"input_shape": (227, 227)}, ["(height, width, channels)"]),
        ("alexnet", {"input_shape": (60, 60, 3), "width": 0.1}, ["alexnet", "60x60x3", "'pool5'", "3x3", "2x2"]),
        ("vgg_d", {"input_shape": (16, 16, 3), "width": 0.1}, ["vgg_d", "16x16x3", "'pool5'", "2x2", "1x1"]),
        ("zfnet", {"input_shape": (4, 64, 3), "width": 0.1}, ["zfnet", "'conv1'", "7x7"]),
        ("lenet_1989", {"input_shape": (2, 16, 1)}, ["lenet_1989", "2x16x1", "'h2'"]),
        ("neocognitron", {"input_shape": (4, 4, 1)}, ["neocognitron", "'s3'", "5x5"]),
    ],
)
def test_mistakes_are_named(name: str, options: dict, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        nnx.eval_shape(lambda: models.create(name, rngs=nnx.Rngs(0), **options))
    line = str(caught.value)
    assert all(part in line for part in parts), line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "shape", "parts"),
    [
        ("logistic_regression", (2, 1, 28, 28), ["'flatten'", "channels-first", "(batch, 28, 28, 1)"]),
        ("mlp_two_neurons", (2, 32, 32, 1), ["'flatten'", "(batch, 28, 28, 1)"]),
        ("lenet_5_modern", (2, 1, 32, 32), ["'c1'", "channels-first"]),
        ("lenet_5", (2, 40, 40, 1), ["'flatten'", "(batch, 1, 1, 120)"]),
    ],
)
def test_inputs_of_another_shape_are_named(name: str, shape: tuple[int, ...], parts: list[str]) -> None:
    model = create(name)
    with pytest.raises(UsageError) as caught:
        jax.eval_shape(model, jnp.zeros(shape))
    assert all(part in str(caught.value) for part in parts), caught.value
