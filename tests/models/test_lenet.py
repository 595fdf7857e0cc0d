"""LeNet-5 as the lecture lists it, against its published counts and an independent forward pass in NumPy."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx

from cnn_jax import geometry, models
from cnn_jax.errors import UsageError

SHAPE = (32, 32, 1)


def lenet(**options) -> nnx.Module:
    return models.create("lenet_5_modern", **{"num_classes": 10, "input_shape": SHAPE, "rngs": nnx.Rngs(0), **options})


def test_table_has_the_published_counts() -> None:
    rows = geometry.trace(lenet(), SHAPE)
    total = geometry.total(rows)
    assert (total.parameters, total.multiply_adds) == (61_706, 416_520)
    assert geometry.parameter_count(lenet()) == 61_706
    counts = {row.name: row.parameters for row in rows if row.parameters}
    assert counts == {"c1": 156, "c3": 2_416, "c5": 48_120, "f6": 10_164, "output": 850}
    shapes = {row.name: row.output_shape for row in rows}
    assert shapes["c1"] == shapes["c1_tanh"] == (28, 28, 6)
    assert [shapes[name] for name in ("s2", "c3", "s4", "flatten", "c5", "f6", "output")] == [
        (14, 14, 6), (10, 10, 16), (5, 5, 16), (400,), (120,), (84,), (10,),
    ]  # fmt: skip


def test_table_needs_no_arrays() -> None:
    abstract = nnx.eval_shape(lenet)
    assert geometry.trace(abstract, SHAPE) == geometry.trace(lenet(), SHAPE)


def test_forward_pass_is_the_one_written_down_in_numpy() -> None:
    model = lenet()
    image = np.random.default_rng(0).normal(size=SHAPE)

    def conv(x: np.ndarray, layer: nnx.Conv) -> np.ndarray:
        kernel, bias = np.asarray(layer.kernel[...], float), np.asarray(layer.bias[...], float)
        size = x.shape[0] - 4
        out = np.empty((size, size, kernel.shape[-1]))
        for i in range(size):
            for j in range(size):
                out[i, j] = np.tensordot(x[i : i + 5, j : j + 5], kernel, 3) + bias
        return out

    def pool(x: np.ndarray) -> np.ndarray:
        return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4

    def dense(x: np.ndarray, layer: nnx.Linear) -> np.ndarray:
        return x @ np.asarray(layer.kernel[...], float) + np.asarray(layer.bias[...], float)

    x = pool(np.tanh(conv(image, model.c1)))
    x = pool(np.tanh(conv(x, model.c3))).reshape(-1)
    x = np.tanh(dense(np.tanh(dense(x, model.c5)), model.f6))
    expected = dense(x, model.output)
    output, activations = model(image[None].astype(np.float32) + jax.numpy.zeros(()), return_activations=True)
    np.testing.assert_allclose(output[0], expected, rtol=1e-4, atol=1e-5)
    assert list(activations)[:3] == ["c1", "c1_tanh", "s2"]
    np.testing.assert_array_equal(activations["output"], output)


def test_activations_keep_their_order_through_jit() -> None:
    model = lenet()
    _, activations = jax.jit(lambda x: model(x, return_activations=True))(jax.numpy.ones((1, *SHAPE)))
    assert list(activations) == [row.name for row in geometry.trace(model, SHAPE)]


def test_width_scales_every_hidden_layer_and_no_output() -> None:
    shapes = {row.name: row.output_shape[-1] for row in geometry.trace(lenet(width=0.5), SHAPE)}
    assert [shapes[name] for name in ("c1", "c3", "c5", "f6", "output")] == [3, 8, 60, 42, 10]
    narrow = {row.name: row.output_shape[-1] for row in geometry.trace(lenet(width=0.01), SHAPE)}
    assert narrow["c1"] == 1


def test_initial_weights_have_lecuns_standard_deviation() -> None:
    kernel = np.asarray(lenet().c5.kernel[...])
    assert kernel.std() == pytest.approx(1 / np.sqrt(400), rel=0.02)


def test_works_in_flax_tree_mode() -> None:
    """NNX_GRAPH_MODE=false is to become Flax's default."""
    program = (
        "import jax.numpy as jnp; from flax import nnx; from cnn_jax import models;"
        "m = models.create('lenet_5_modern', num_classes=3, input_shape=(32, 32, 1), rngs=nnx.Rngs(0));"
        "g, s = nnx.split(m); print(nnx.merge(g, s)(jnp.ones((2, 32, 32, 1))).shape)"
    )
    environment = {**os.environ, "NNX_GRAPH_MODE": "false"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(2, 3)", done.stderr


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"num_classes": 0}, ["num_classes=0"]),
        ({"width": 0.0}, ["width=0.0"]),
        ({"input_shape": (32, 32)}, ["(height, width, channels)"]),
        ({"input_shape": (12, 12, 1)}, ["12x12x1", "'c3'", "5x5", "4x4"]),
        ({"input_shape": (4, 32, 1)}, ["4x32x1", "'c1'", "5x5"]),
    ],
)
def test_mistakes_are_named(options: dict, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        lenet(**options)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'lenet_5_modern'"):
        models.create("lenet5_modern", num_classes=10, input_shape=SHAPE, rngs=nnx.Rngs(0))
