"""The LeNets: forward passes against NumPy, connection tables and codes, and the lecture's counts."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx

from cnn_jax import geometry, models
from cnn_jax.errors import UsageError
from tests.compiled import compiled
from tests.models.creation import create

SHAPE = (32, 32, 1)


def lenet(**options) -> nnx.Module:
    return create("lenet_5_modern", **{"num_classes": 10, "input_shape": SHAPE, **options})


def test_table_has_the_published_counts() -> None:
    rows = geometry.trace(lenet(), SHAPE)
    assert geometry.parameter_count(lenet()) == 61_706
    counts = {row.name: row.parameters for row in rows if row.parameters}
    assert counts == {"c1": 156, "c3": 2_416, "c5": 48_120, "f6": 10_164, "output": 850}
    shapes = {row.name: row.output_shape for row in rows}
    assert shapes["c1"] == shapes["c1_tanh"] == (28, 28, 6)
    assert [shapes[name] for name in ("s2", "c3", "s4", "flatten", "c5", "f6", "output")] == [
        (14, 14, 6), (10, 10, 16), (5, 5, 16), (400,), (120,), (84,), (10,),
    ]  # fmt: skip


def test_table_needs_no_arrays() -> None:
    abstract = nnx.eval_shape(lambda: models.create("lenet_5_modern", rngs=nnx.Rngs(0)))
    assert geometry.trace(abstract, SHAPE) == geometry.trace(lenet(), SHAPE)


def tanh(x: np.ndarray) -> np.ndarray:
    return 1.7159 * np.tanh(2 * x / 3)


def params(layer: nnx.Module, *names: str) -> list[np.ndarray]:
    return [np.asarray(getattr(layer, name)[...], float) for name in names]


def conv(x: np.ndarray, layer: nnx.Module, *, stride: int = 1, table: list | None = None) -> np.ndarray:
    """A 5x5 convolution; with a table, the kernel contains only the existing connections, output by output."""
    kernel, bias = params(layer, "kernel", "bias")
    if table is not None:
        full = np.zeros((5, 5, x.shape[-1], len(table)))
        connections = [(channel, output) for output, inputs in enumerate(table) for channel in inputs]
        for index, (channel, output) in enumerate(connections):
            full[..., channel, output] = kernel[..., index]
        kernel = full
    size = (x.shape[0] - 5) // stride + 1
    out = np.zeros((size, size, kernel.shape[-1])) + bias
    for i in range(size):
        for j in range(size):
            out[i, j] += np.tensordot(x[i * stride : i * stride + 5, j * stride : j * stride + 5], kernel, 3)
    return out


def sums(x: np.ndarray) -> np.ndarray:
    return x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]


def subsample(x: np.ndarray, layer: nnx.Module) -> np.ndarray:
    coefficient, bias = params(layer, "coefficient", "bias")
    return sums(x) * coefficient + bias


def dense(x: np.ndarray, layer: nnx.Module) -> np.ndarray:
    kernel, bias = params(layer, "kernel", "bias")
    return x.reshape(-1) @ kernel + bias


def lenet_1989(x: np.ndarray, model: nnx.Module) -> np.ndarray:
    def background(x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((2, 1), (2, 1), (0, 0)), constant_values=-1)

    low, middle, high = range(4), range(4, 8), range(8, 12)
    table = [[*low, *middle]] * 4 + [[*middle, *high]] * 4 + [[*low, *high]] * 4
    x = tanh(conv(background(x), model.h1, stride=2, table=[[0]] * 12))
    x = tanh(conv(background(x), model.h2, stride=2, table=table))
    return tanh(dense(tanh(dense(x, model.h3)), model.output))


def lenet_1(x: np.ndarray, model: nnx.Module) -> np.ndarray:
    rows = ["###.##......", ".#####......", "......###.##", ".......#####"]  # the paper's table 1
    table = [[row for row in range(4) if rows[row][column] == "#"] for column in range(12)]
    x = tanh(subsample(tanh(conv(x, model.h1)), model.h2))
    x = tanh(subsample(tanh(conv(x, model.h3, table=table)), model.h4))
    return tanh(dense(x, model.output))


def lenet_5(x: np.ndarray, model: nnx.Module) -> np.ndarray:
    rows = [  # the paper's table I
        "#...###..####.##",
        "##...###..####.#",
        "###...###..#.###",
        ".###..####..#.##",
        "..###..####.##.#",
        "...###..####.###",
    ]
    table = [[row for row in range(6) if rows[row][column] == "#"] for column in range(16)]
    x = tanh(subsample(tanh(conv(x, model.c1)), model.s2))
    x = tanh(subsample(tanh(conv(x, model.c3, table=table)), model.s4))
    x = tanh(dense(tanh(conv(x, model.c5)), model.f6))
    (centers,) = params(model.output, "centers")
    return -np.array([((x - center) ** 2).sum() for center in centers])


def lenet_5_modern(x: np.ndarray, model: nnx.Module) -> np.ndarray:
    x = sums(np.tanh(conv(x, model.c1))) / 4
    x = sums(np.tanh(conv(x, model.c3))) / 4
    return dense(np.tanh(dense(np.tanh(dense(x, model.c5)), model.f6)), model.output)


@pytest.mark.parametrize("forward", [lenet_1989, lenet_1, lenet_5, lenet_5_modern])
def test_forward_pass_is_the_one_written_down_in_numpy(forward) -> None:
    model = create(forward.__name__)
    random = np.random.default_rng(0)
    for name in model.names:  # biases start at zero, which would hide a wrong position
        bias = getattr(model.layer(name), "bias", None)
        if bias is not None:
            bias[...] = jax.numpy.asarray(random.normal(size=bias.shape), bias.dtype)
    image = random.normal(size=models.variant(forward.__name__).input_shape)
    output = compiled(lambda x: model(x))(jax.numpy.asarray(image[None], "float32"))
    np.testing.assert_allclose(output[0], forward(image, model), rtol=2e-4, atol=2e-5)


def test_every_map_of_1989_is_seen_equally_often() -> None:
    model = create("lenet_1989")
    seen = np.bincount(np.concatenate([np.array(inputs) for inputs in model.h2.table]))
    assert (seen == 8).all()


def test_codes_are_pictures_of_the_digits() -> None:
    codes = np.asarray(create("lenet_5").output.centers[...])
    assert codes.shape == (10, 84)
    assert set(codes.ravel()) == {-1.0, 1.0}
    apart = (codes[:, None] != codes[None]).sum(-1)
    assert apart[np.triu_indices(10, 1)].min() >= 8
    eight = (codes[8].reshape(12, 7) > 0).astype(int)
    np.testing.assert_array_equal(eight[:10].sum(1), [5, 4, 4, 4, 5, 4, 4, 4, 4, 5])
    other = create("lenet_5", num_classes=26).output.centers[...]
    assert other.shape == (26, 84)
    assert set(np.unique(other)) == {-1.0, 1.0}
    assert len(np.unique(other, axis=0)) == 26


def test_codes_are_not_trained() -> None:
    params = nnx.state(create("lenet_5"), nnx.Param)
    assert "output" not in params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 60_000


def test_scaled_tables_leave_no_map_blind() -> None:
    for width in (0.1, 0.4, 1.5):

        def build(width=width):
            return models.create("lenet_5", width=width, rngs=nnx.Rngs(0))

        model = nnx.eval_shape(build)
        assert len(model.c3.table) == max(1, round(16 * width))
        assert all(model.c3.table)
        assert model.f6.kernel.shape[-1] == 84
    published = create("lenet_5").c3.table
    wide = create("lenet_5", width=2.0).c3.table
    assert wide[0] == wide[1] == (0, 1, 2, 3, 4, 5)  # maps 0, 1, 2, each twice
    assert [len(inputs) for inputs in wide[::2]] == [2 * len(inputs) for inputs in published]


def test_initial_weights_of_1989_are_within_their_fan_in() -> None:
    model = create("lenet_1989")
    for layer, fan_in in ((model.h1, 25), (model.h2, 200), (model.h3, 192), (model.output, 30)):
        kernel = np.asarray(layer.kernel[...]) * fan_in / 2.4
        assert 0.9 < np.abs(kernel).max() <= 1
        assert not np.asarray(layer.bias[...]).any()


def test_activations_keep_their_order_through_jit() -> None:
    model = lenet()
    output, activations = compiled(lambda x: model(x, return_activations=True))(jax.numpy.ones((1, *SHAPE)))
    np.testing.assert_array_equal(activations["output"], output)
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
    """NNX_GRAPH_MODE=false will become Flax's default."""
    program = (
        "import jax, jax.numpy as jnp; from flax import nnx; from cnn_jax import models;"
        "m = models.create('lenet_5_modern', num_classes=3, input_shape=(32, 32, 1), rngs=nnx.Rngs(0));"
        "g, s = nnx.split(m); print(jax.jit(lambda x: nnx.merge(g, s)(x))(jnp.ones((2, 32, 32, 1))).shape)"
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
