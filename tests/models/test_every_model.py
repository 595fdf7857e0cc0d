"""Properties of every network: forward and backward passes, deterministic evaluation, and overfitting of 32 images.

Most of the time is compilation. For some networks creation, training and evaluation are one program with a variable
number of steps; the others are trained layer by layer. A new family in the registry needs an entry in ``SMALL``.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image
from sklearn.datasets import load_digits

from cnn_jax import models, nn, ops
from tests.compiled import compiled
from tests.models import creation

he_normal = jax.nn.initializers.he_normal()  # the papers' Gaussian of 0.01 is too small for few channels
# Options of the small network, by the beginning of its name; the longest match is used.
SMALL = {
    "airbench": {"width": 1 / 8},
    "conv_encoder": {"width": 1 / 4, "input_shape": (8, 8, 1)},
    "conv_stack": {},
    "alexnet": {"width": 1 / 16, "input_shape": (67, 67, 3), "kernel_init": he_normal},
    "alexnet_batch_norm": {"width": 1 / 16, "input_shape": (195, 195, 3)},
    "dcgan_generator": {"width": 1 / 16, "input_shape": (64,), "image_size": (8, 8)},
    "fcn": {"width": 1 / 32, "input_shape": (32, 32, 3)},
    "googlenet": {"width": 1 / 16, "input_shape": (64, 64, 3), "auxiliary_heads": False},
    "inception_naive": {"width": 1 / 16, "input_shape": (64, 64, 3), "auxiliary_heads": False},
    "inception_resnet": {"width": 1 / 16, "input_shape": (96, 96, 3)},
    "lenet": {},
    "logistic_regression": {"input_shape": (8, 8, 1)},
    "mlp": {"input_shape": (8, 8, 1)},
    "neocognitron": {"width": 1 / 3},
    "fcn_series": {"width": 1 / 8, "input_shape": (32, 1)},
    "resnet": {"width": 1 / 4, "input_shape": (32, 32, 3)},
    "resnet_18_3d": {"width": 1 / 16, "input_shape": (8, 8, 8, 1)},
    "resnet_series": {"width": 1 / 8, "input_shape": (32, 1)},
    "segnet": {"width": 1 / 16, "input_shape": (32, 32, 3)},
    "small_cnn": {"width": 1 / 4},
    "small_cnn_3d": {"width": 1 / 4, "input_shape": (8, 8, 8, 1)},
    "sound_cnn": {"width": 1 / 4, "input_shape": (512, 1), "n_fft": 32, "hop_length": 16, "num_mels": 8},
    "text_cnn": {"width": 1 / 4, "input_shape": (64,), "features": 16, "vocabulary_size": 20},
    "u_net": {"width": 1 / 16, "input_shape": (28, 28, 1), "depth": 1},
    "vgg": {"width": 1 / 16, "input_shape": (32, 32, 3), "kernel_init": he_normal},
    "voxel_classifier": {"input_shape": (12, 12, 1)},
    "zfnet": {"width": 1 / 16, "input_shape": (64, 64, 3), "kernel_init": he_normal},
}
# The learning rate of Adam and the number of steps, also by the beginning of the name.
LEARNING = {
    "": (0.003, 60),
    "alexnet": (0.002, 250),
    "fcn_series": (0.003, 600),  # whose running statistics are those of a hundred steps, as in Keras
    "resnet_series": (0.003, 600),
    "googlenet": (0.003, 200),
    "inception_naive": (0.003, 100),
    "logistic_regression": (0.03, 300),
    "mlp_two_neurons": (0.003, 10_000),
    "vgg_d": (0.001, 150),
    "vgg_e": (0.001, 150),
}
# Their outputs are scores of every pixel; here the mean over the pixels is that of the image.
MAPS = ("fcn_8s", "fcn_16s", "fcn_32s", "segnet", "u_net", "u_net_padded", "voxel_classifier")
# Compiled as one program.
COMPILED = ("alexnet", "lenet_1989", "lenet_5", "logistic_regression", "mlp_two_neurons", "vgg_a_bn", *MAPS)
# Their outputs are bounded and their gradients vanish; they have their own learning rule, with its own tests.
NOT_BY_GRADIENTS = ("neocognitron",)
# Their outputs are images, boxes or words; the tests of their tasks train them.
OTHER_OUTPUTS = ("captioner", "conv_autoencoder", "dcgan_generator", "detector", "localizer", "resnet_generator")

# Networks with the same layers as others; tests/models/test_published.py checks their tables. Traced in the slow run.
RELATIVES = (
    *("alexnet_ungrouped", "zfnet_wide", "googlenet_torchvision", "inception_naive", "inception_resnet_v1"),
    *("vgg_a", "vgg_a_lrn_bn", "vgg_b", "vgg_b_bn", "vgg_c_bn", "vgg_d", "vgg_d_bn", "vgg_e", "vgg_e_bn"),
    *("small_cnn_1d", "small_cnn_3d", "resnet_18_3d"),
    *("resnet_32", "resnet_34", "resnet_44", "resnet_50", "resnet_56", "resnet_101", "resnet_110", "resnet_152"),
    *("fcn_16s", "fcn_32s"),
)
# Trained by default, which includes tracing.
LEARNED = (*(name for name in COMPILED if name not in MAPS), "resnet_20")


def entry(table: dict, name: str):
    return table[max((key for key in table if name.startswith(key)), key=len)]


def small(name: str) -> dict:
    """The options of the small network."""
    return {"num_classes": 10, **entry(SMALL, name)}


def digits(name: str):
    """32 images of the input size of the small network, and their labels."""
    shape = small(name).get("input_shape", models.variant(name).input_shape)
    images, labels = load_digits(return_X_y=True)
    if len(shape) == 1:
        return images[:32].astype(np.int32)[:, : shape[0]] + 1, labels[:32]  # grey values as words
    if len(shape) == 2:
        lines = [np.interp(np.linspace(0, 63, shape[0]), np.arange(64), line) for line in images[:32] / 8 - 1]
        return np.stack(lines).astype(np.float32)[..., None], labels[:32]
    images = images[:32].reshape(32, 8, 8).astype(np.float32) / 8 - 1
    size = shape[-2:-4:-1]
    images = np.stack([Image.fromarray(image).resize(size, Image.Resampling.BILINEAR) for image in images])
    if len(shape) == 4:
        return images[:, None].repeat(shape[0], axis=1)[..., None], labels[:32]
    return images[..., None].repeat(shape[2], axis=-1), labels[:32]


def of_image(name: str, output):
    """The logits of an image."""
    return output.mean(axis=tuple(range(1, output.ndim - 1))) if name in MAPS else output


def task(name: str):
    """A function that creates the small network, the abstract network, its loss, and the images."""
    x, y = digits(name)

    def create(key):
        return models.create(name, rngs=nnx.Rngs(key), **small(name))

    abstract = nnx.split(nnx.eval_shape(lambda: create(jax.random.key(0))), nnx.Param, ...)
    graph = abstract[0]

    def loss(params, rest, key):
        model = nnx.merge(graph, params, rest)
        logits = of_image(name, model(x, train=True, rngs=key))
        return ops.softmax_cross_entropy(logits, y).mean(), nnx.state(model, nnx.Not(nnx.Param))

    return create, abstract, loss, x


def program(name: str):
    """A function of (steps, images) that returns the loss, two evaluations and the parameters."""
    create, (graph, *_), loss, _ = task(name)
    optimizer = optax.adam(entry(LEARNING, name)[0])

    def step(index, carry):
        params, rest, state, _ = carry
        key = jax.random.fold_in(jax.random.key(1), index)
        (value, rest), gradients = jax.value_and_grad(loss, has_aux=True)(params, rest, key)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), rest, state, value

    def run(steps, x):
        _, params, rest = nnx.split(create(jax.random.key(0)), nnx.Param, ...)
        carry = (params, rest, optimizer.init(params), jnp.zeros(()))
        params, rest, _, value = jax.lax.fori_loop(0, steps, step, carry)
        network = nnx.merge(graph, params, rest)
        return value, of_image(name, network(x)), of_image(name, network(x, rngs=jax.random.key(2))), params

    return compiled(run)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in RELATIVES else ())
        for name in models.available()
        if name not in (*LEARNED, *OTHER_OUTPUTS)
    ],
)
def test_forward_and_backward_can_be_traced(name: str) -> None:
    _, (graph, params, rest), loss, x = task(name)
    gradients, statistics = jax.eval_shape(jax.grad(loss, has_aux=True), params, rest, jax.random.key(0))
    assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, params)
    output = jax.eval_shape(lambda params, rest: of_image(name, nnx.merge(graph, params, rest)(x)), params, statistics)
    assert output.shape == (32, 10)
    assert output.dtype == jnp.float32


def learned_as_one_program(name: str):
    """The loss, two evaluations and the parameters, before and after training."""
    run, (x, _) = program(name), digits(name)
    return run(0, x), run(entry(LEARNING, name)[1], x)


def learned_layer_by_layer(name: str):
    """The same by the chain rule over the outermost layers, which are compiled separately; equal blocks share programs.

    A hundred layers are then compiled as fast as twenty.
    """
    x, y = digits(name)
    model = creation.create(name, **small(name))
    learning_rate, steps = entry(LEARNING, name)
    optimizer = optax.adam(learning_rate)
    parts = [nnx.split(nn.Sequence({"only": model.layer(layer)}), nnx.Param, ...) for layer in model.names]
    graphs = [graph for graph, *_ in parts]
    params, rests = [params for _, params, _ in parts], [rest for *_, rest in parts]
    states = [optimizer.init(each) for each in params]

    def called(graph, train, params, rest, x, key):
        layer = nnx.merge(graph, params, rest)
        return layer(x, train=train, rngs=key), nnx.state(layer, nnx.Not(nnx.Param))

    forward = compiled(called, static_argnums=(0, 1))

    @functools.partial(compiled, static_argnums=0)
    def backward(graph, params, rest, state, x, key, dy):
        _, pull, _ = jax.vjp(lambda params, x: called(graph, True, params, rest, x, key), params, x, has_aux=True)
        gradients, dx = pull(dy)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, dx

    @compiled
    def loss(logits):
        return jax.value_and_grad(lambda logits: ops.softmax_cross_entropy(logits, y).mean())(logits)

    def evaluated(key=None):
        output = x
        for graph, param, rest in zip(graphs, params, rests, strict=True):
            output, _ = forward(graph, False, param, rest, output, key)
        return output

    value = np.nan
    before = value, evaluated(), evaluated(jax.random.key(2)), list(params)
    for key in jax.random.split(jax.random.key(1), steps):
        keys = list(jax.random.split(key, len(graphs)))
        inputs, used, output = [], list(rests), x
        for index, graph in enumerate(graphs):
            inputs.append(output)
            output, rests[index] = forward(graph, True, params[index], rests[index], output, keys[index])
        value, dy = loss(output)
        for index in reversed(range(len(graphs))):
            params[index], states[index], dy = backward(
                graphs[index], params[index], used[index], states[index], inputs[index], keys[index], dy
            )
    return before, (value, evaluated(), evaluated(jax.random.key(2)), params)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in LEARNED else pytest.mark.slow)
        for name in models.available()
        if name not in (*NOT_BY_GRADIENTS, *OTHER_OUTPUTS)
    ],
)
def test_overfits_32_images(name: str) -> None:
    learn = learned_as_one_program if name in COMPILED else learned_layer_by_layer
    (_, output, again, start), (loss, learned_output, learned_again, end) = learn(name)
    assert np.isfinite(output).all()
    np.testing.assert_array_equal(output, again)
    np.testing.assert_array_equal(learned_output, learned_again)
    _, y = digits(name)
    right = learned_output.argmax(axis=-1) == y
    assert right.all(), f"{right.sum()} right, loss {loss}"
    still = [
        path
        for (path, before), after in zip(jax.tree_util.tree_leaves_with_path(start), jax.tree.leaves(end), strict=True)
        if (before == after).all()
    ]
    assert not still, "parameters without a gradient"
