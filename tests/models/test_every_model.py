"""What holds for every network: it runs forward and backward, repeats itself when it is evaluated, and can learn 32
real images by heart.

Creation, training and evaluation are one compiled program with a free number of steps, because compiling is what takes
the time. A family that is added to the registry needs an entry in ``SMALL``.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from sklearn.datasets import load_digits

from cnn_jax import models, ops
from tests.compiled import compiled

he_normal = jax.nn.initializers.he_normal()  # the papers' Gaussian of 0.01 is too small for few channels
# What makes a network small, by the beginning of its name; the longest that fits is meant.
SMALL = {
    "airbench": {"width": 1 / 8},
    "conv_stack": {},
    "alexnet": {"width": 1 / 16, "input_shape": (67, 67, 3), "kernel_init": he_normal},
    "alexnet_batch_norm": {"width": 1 / 16, "input_shape": (195, 195, 3)},
    "googlenet": {"width": 1 / 16, "input_shape": (64, 64, 3), "auxiliary_heads": False},
    "inception_naive": {"width": 1 / 16, "input_shape": (64, 64, 3), "auxiliary_heads": False},
    "inception_resnet": {"width": 1 / 16, "input_shape": (96, 96, 3)},
    "lenet": {},
    "logistic_regression": {"input_shape": (8, 8, 1)},
    "mlp": {"input_shape": (8, 8, 1)},
    "neocognitron": {"width": 1 / 3},
    "resnet": {"width": 1 / 4, "input_shape": (32, 32, 3)},
    "small_cnn": {"width": 1 / 4},
    "vgg": {"width": 1 / 16, "input_shape": (32, 32, 3), "kernel_init": he_normal},
    "zfnet": {"width": 1 / 16, "input_shape": (64, 64, 3), "kernel_init": he_normal},
}
# How the images are learnt, likewise: the learning rate of Adam, and the number of steps.
LEARNING = {
    "": (0.003, 60),
    "alexnet": (0.003, 150),
    "logistic_regression": (0.03, 300),
    "mlp_two_neurons": (0.003, 10_000),
}
# Compiled by default; the others are traced, which finds all but errors of the compiler, and compiled in the slow run.
COMPILED = ("alexnet", "lenet_1989", "lenet_5", "logistic_regression", "mlp_two_neurons", "vgg_a_bn")
# Their outputs are bounded and their gradients vanish; they learn by a rule of their own, which has tests of its own.
NOT_BY_GRADIENTS = ("neocognitron",)

# Longer relatives of others; they are traced in the slow run, and not compiled, which takes many minutes.
DEEP = ("resnet_32", "resnet_44", "resnet_56", "resnet_101", "resnet_110", "resnet_152")


def entry(table: dict, name: str):
    return table[max((key for key in table if name.startswith(key)), key=len)]


def task(name: str):
    """The small network: how to create it, its abstract self, the loss of it, and the images and labels."""
    options = {"num_classes": 10, **entry(SMALL, name)}
    shape = options.get("input_shape", models.variant(name).input_shape)
    images, labels = load_digits(return_X_y=True)
    images = images[:32].reshape(32, 8, 8, 1).astype(np.float32) / 8 - 1
    x = np.array(jax.image.resize(images, (32, *shape[:2], 1), "linear").repeat(shape[2], axis=-1))
    y = labels[:32]

    def create(key):
        return models.create(name, rngs=nnx.Rngs(key), **options)

    abstract = nnx.split(nnx.eval_shape(lambda: create(jax.random.key(0))), nnx.Param, ...)
    graph = abstract[0]

    def loss(params, rest, key):
        model = nnx.merge(graph, params, rest)
        logits = model(x, train=True, rngs=key)
        return ops.softmax_cross_entropy(logits, y).mean(), nnx.state(model, nnx.Not(nnx.Param))

    return create, abstract, loss, x, y


def program(name: str):
    """A function from (steps, images) to the loss, two evaluations and the parameters, and the images and labels."""
    create, (graph, *_), loss, x, y = task(name)
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
        return value, network(x), network(x, rngs=jax.random.key(2)), params

    return run, x, y


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in DEEP else ())
        for name in models.available()
        if name not in COMPILED
    ],
)
def test_forward_and_backward_can_be_traced(name: str) -> None:
    _, (graph, params, rest), loss, x, _ = task(name)
    gradients, statistics = jax.eval_shape(jax.grad(loss, has_aux=True), params, rest, jax.random.key(0))
    assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, params)
    output = jax.eval_shape(lambda params, rest: nnx.merge(graph, params, rest)(x), params, statistics)
    assert output.shape == (32, 10)
    assert output.dtype == jnp.float32


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in COMPILED else pytest.mark.slow)
        for name in models.available()
        if name not in NOT_BY_GRADIENTS + DEEP
    ],
)
def test_learns_32_images_by_heart(name: str) -> None:
    run, x, y = program(name)
    run = compiled(run)
    _, output, again, start = run(0, x)
    assert np.isfinite(output).all()
    np.testing.assert_array_equal(output, again)
    loss, output, again, learned = run(entry(LEARNING, name)[1], x)
    np.testing.assert_array_equal(output, again)
    assert (output.argmax(axis=-1) == y).all(), f"{(output.argmax(axis=-1) == y).sum()} right, loss {loss}"
    still = [
        path
        for (path, before), after in zip(
            jax.tree_util.tree_leaves_with_path(start), jax.tree.leaves(learned), strict=True
        )
        if (before == after).all()
    ]
    assert not still, "parameters without a gradient"
