"""New heads, frozen layers, and convolutionalized networks against networks applied to every window."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnn_jax import models, nn, ops
from cnn_jax.errors import UsageError
from tests.compiled import compiled
from tests.models.creation import create

RANDOM = np.random.default_rng(0)


def image(height: int, width: int, channels: int) -> jax.Array:
    return jnp.asarray(RANDOM.standard_normal((1, height, width, channels)), jnp.float32)


def vgg_like(*, pad: bool) -> nn.Sequence:
    """Two stages of VGG for 12x12 inputs, with biases, so that padding has an effect."""
    rngs, padding = nnx.Rngs(0), "SAME" if pad else "VALID"

    def conv(inputs, outputs):
        return nn.Conv(inputs, outputs, (3, 3), padding=padding, bias_init=nnx.initializers.normal(1.0), rngs=rngs)

    layers = {
        "conv1_1": conv(3, 4), "relu1_1": jax.nn.relu, "pool1": nn.MaxPool((2, 2)),
        "conv2_1": conv(4, 6), "relu2_1": jax.nn.relu, "pool2": nn.MaxPool((2, 2)),
    }  # fmt: skip
    side = 3 if pad else 1
    model = nn.Sequence(
        layers
        | {"flatten": nn.Flatten((side, side, 6)), "dropout": nn.Dropout(0.5)}
        | {"fc6": nn.Linear(side * side * 6, 8, rngs=rngs), "relu6": jax.nn.relu, "fc7": nn.Linear(8, 5, rngs=rngs)}
    )
    model.eval()
    return model


def slid(model, x: jax.Array, window: int, step: int) -> np.ndarray:
    """The model applied to every window of an image."""
    rows, columns = ((size - window) // step + 1 for size in x.shape[1:3])
    windows = [
        x[:, i * step : i * step + window, j * step : j * step + window] for i in range(rows) for j in range(columns)
    ]
    outputs = compiled(lambda x: model(x))(jnp.concatenate(windows))
    return np.asarray(outputs).reshape(1, rows, columns, -1)


@pytest.mark.parametrize(
    ("name", "options", "step"),
    [
        ("lenet_5_modern", {}, 4),
        ("lenet_5", {}, 4),
        ("lenet_1", {}, 4),
        ("mlp_two_neurons", {"input_shape": (9, 7, 2)}, 1),
        ("alexnet_batch_norm", {"width": 1 / 32, "input_shape": (195, 195, 3), "num_classes": 5}, 32),
    ],
)
def test_networks_without_padding_slide(name: str, options: dict, step: int) -> None:
    height, width, channels = options.get("input_shape", models.variant(name).input_shape)
    model = create(name, **options)
    x = image(height + 2 * step, width + step, channels)
    if name == "mlp_two_neurons":
        run = compiled(lambda x: model(x))
        expected = np.stack(
            [run(x[:, i : i + height, j : j + width]) for i in range(3) for j in range(2)],
            axis=1,
        ).reshape(1, 3, 2, -1)
    else:
        expected = slid(model, x, height, step)
    actual = compiled(lambda x: models.convolutionalize(model)(x))(x)
    assert actual.shape == expected.shape == (1, 3, 2, options.get("num_classes", models.variant(name).num_classes))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pad", [True, False])
def test_networks_with_padding_slide_with_the_image_around_windows(pad: bool) -> None:
    """Inside a large image the padding of a window is image content: the field is 12 + 2 + 2 * 2 pixels."""
    model, x = vgg_like(pad=pad), image(30, 26, 3)
    actual = np.asarray(compiled(models.convolutionalize(model))(x))
    if not pad:
        np.testing.assert_allclose(actual, slid(model, x, 10, 4), rtol=1e-4, atol=1e-5)
        return
    unpadded = vgg_like(pad=False)
    sliding = models.convolutionalize(model)
    for name in sliding.names:
        if isinstance(sliding.layer(name), nn.Conv):
            setattr(unpadded, name, nnx.clone(sliding.layer(name)))
            unpadded.layer(name).padding = "VALID"
    layers = {name: unpadded.layer(name) for name in sliding.names}
    seen = nn.Sequence(layers)
    assert jax.eval_shape(seen, x[:, :18, :18]).shape == (1, 1, 1, 5)
    inner = slid(lambda x: seen(x)[:, 0, 0], x[:, 1:, 1:], 18, 4)
    np.testing.assert_allclose(actual[:, 1 : 1 + inner.shape[1], 1 : 1 + inner.shape[2]], inner, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vgg_a_bn", {"width": 1 / 32, "input_shape": (64, 64, 3), "num_classes": 4}),
        ("zfnet", {"width": 1 / 32, "input_shape": (80, 80, 3), "num_classes": 4}),
        ("alexnet", {"width": 1 / 32, "input_shape": (99, 99, 3), "num_classes": 4}),
    ],
)
def test_images_of_the_models_size_give_the_models_output(name: str, options: dict) -> None:
    model = create(name, **options)
    x = image(*options["input_shape"])
    sliding = models.convolutionalize(model)
    expected, actual = compiled(lambda x: (model(x), sliding(x)))(x)
    assert actual.shape == (1, 1, 1, 4)
    np.testing.assert_allclose(actual[:, 0, 0], expected, rtol=1e-4, atol=1e-5)
    assert sliding.names == tuple(layer for layer in model.names if layer != "flatten")
    total = jax.tree.reduce(lambda total, leaf: total + leaf.size, nnx.state(model), 0)
    assert jax.tree.reduce(lambda total, leaf: total + leaf.size, nnx.state(sliding), 0) == total


def test_global_pools_get_their_window() -> None:
    rngs = nnx.Rngs(0)
    conv = nn.Conv(2, 3, (3, 3), padding="VALID", rngs=rngs)
    model = nn.Sequence({"conv": conv, "mean": ops.global_avg_pool, "output": nn.Linear(3, 4, rngs=rngs)})
    x = image(8, 7, 2)
    with pytest.raises(UsageError, match=r"'mean'.*input_shape"):
        models.convolutionalize(model)
    sliding = models.convolutionalize(model, (6, 6, 2))
    assert models.create("lenet_5_modern").input_shape == (32, 32, 1)
    model.input_shape = (6, 6, 2)  # as set by `create`
    assert jax.eval_shape(models.convolutionalize(model), x).shape == jax.eval_shape(sliding, x).shape
    np.testing.assert_allclose(compiled(sliding)(x), slid(model, x, 6, 1), rtol=1e-4, atol=1e-5)
    adaptive = nn.Sequence({"conv": conv, "pool": nn.AdaptiveAvgPool((4, 4)), "flatten": nn.Flatten((4, 4, 3))})
    assert models.convolutionalize(adaptive, (6, 6, 2)).names == ("conv",)
    with pytest.raises(UsageError, match=r"'pool'.*\(5, 5\).*\(4, 4\)"):
        models.convolutionalize(adaptive, (7, 7, 2))


def test_biases_of_positions_cannot_slide() -> None:
    with pytest.raises(UsageError, match="'h1' has a bias for every position"):
        models.convolutionalize(create("lenet_1989"))


def test_a_new_head_keeps_the_features() -> None:
    model = create("lenet_5_modern")
    changed = models.replace_head(model, 26, rngs=nnx.Rngs(1))
    x = image(32, 32, 1)
    (_, before), (output, after) = (
        compiled(lambda x, network=network: network(x, return_activations=True))(x) for network in (model, changed)
    )
    assert output.shape == (1, 26)
    assert jax.eval_shape(model, x).shape == (1, 10)
    assert list(before) == list(after)
    np.testing.assert_array_equal(before["f6_tanh"], after["f6_tanh"])
    changed.c1.bias[...] = changed.c1.bias[...] + 1
    assert not np.asarray(model.c1.bias[...]).any()


def test_heads_of_every_kind() -> None:
    assert models.replace_head(create("lenet_5"), 4, rngs=nnx.Rngs(0)).output.centers.shape == (4, 84)
    sliding = models.convolutionalize(create("lenet_5_modern"))
    assert jax.eval_shape(models.replace_head(sliding, 4, rngs=nnx.Rngs(0)), image(36, 32, 1)).shape == (1, 2, 1, 4)
    nested = nn.Sequence({"body": jnp.tanh, "head": nn.Sequence({"fc": nn.Linear(3, 2, rngs=nnx.Rngs(0))})})
    zero = models.replace_head(nested, 4, kernel_init=nnx.initializers.zeros, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(zero(jnp.ones((1, 3))), np.zeros((1, 4)))
    with pytest.raises(UsageError, match="num_classes=0"):
        models.replace_head(nested, 0, rngs=nnx.Rngs(0))
    with pytest.raises(UsageError, match="none of the layers tanh"):
        models.replace_head(nn.Sequence({"tanh": jnp.tanh}), 4, rngs=nnx.Rngs(0))


def test_heads_on_the_side_change_along_and_do_not_slide() -> None:
    side = nn.Auxiliary({"flatten": nn.Flatten((4, 4, 2)), "fc": nn.Linear(32, 3, rngs=nnx.Rngs(0))})
    end = {"flatten": nn.Flatten((4, 4, 2)), "fc": nn.Linear(32, 3, rngs=nnx.Rngs(1))}
    model = models.replace_head(nn.Sequence({"aux": side, **end}), 5)
    output, activations = model(image(4, 4, 2), train=True, return_activations=True)
    assert output.shape == activations["aux/fc"].shape == (1, 5)
    assert models.convolutionalize(model).names == ("fc",)


def test_only_named_parameters_are_trained() -> None:
    model = create("lenet_5_modern")
    graph, trained, frozen = nnx.split(model, models.trainable(model, ["output", "c*/bias"]), ...)
    paths = ["/".join(path) for path, _ in nnx.to_flat_state(trained)]
    assert paths == ["c1/bias", "c3/bias", "c5/bias", "output/bias", "output/kernel"]
    x, optimizer = image(32, 32, 1), optax.sgd(0.1)
    gradients = compiled(jax.grad(lambda trained: nnx.merge(graph, trained, frozen)(x).sum()))(trained)
    updates, _ = optimizer.update(gradients, optimizer.init(trained))
    after = nnx.merge(graph, optax.apply_updates(trained, updates), frozen)
    np.testing.assert_array_equal(after.f6.kernel[...], model.f6.kernel[...])
    assert (after.output.kernel[...] != model.output.kernel[...]).any()
    with pytest.raises(UsageError, match="patterns='fc8' matches no parameter"):
        models.trainable(model, "fc8")


def test_frozen_parameters_are_left_out_of_those_that_are_trained() -> None:
    model = create("lenet_5_modern")
    trained = nnx.state(model, models.trainable(model, ["c1", "output"], freeze="*/bias"))
    assert ["/".join(path) for path, _ in nnx.to_flat_state(trained)] == ["c1/kernel", "output/kernel"]
    with pytest.raises(UsageError, match=r"freeze='c2/\*' matches no parameter; known: 'c1'"):
        models.trainable(model, freeze=["c2/*"])
    with pytest.raises(UsageError, match="leaves no parameter to train"):
        models.trainable(model, freeze="*")
