"""Every public op and layer without ``jit``: it compiles once, and supports forward mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core.primitives import convert_element_type_p
from jax.interpreters import ad

from cnn_jax import models, nn, ops
from cnn_jax.errors import UsageError
from tests.compiled import compiled
from tests.every_layer import OPS, PROGRAMS, outputs_and_gradients

# These have only a gradient; forward mode raises an error.
GRADIENTS_ALONE = {"relu, deconvnet", "relu, guided"}
COMPILED: list[str] = []
SLOW = pytest.mark.slow
# One of each mechanism: outside jit a gradient is compiled operation by operation, which is slow.
OF_EACH_KIND = {
    "conv, strided",
    "conv by fft",
    "max_pool",
    "avg_pool",
    "local_response_norm",
    "ConvTranspose",
    "BatchNorm",
}


@pytest.fixture(scope="module", autouse=True)
def counted():
    """Counts the programs that XLA compiles in this process."""

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            COMPILED.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)


def compilations(function, *arguments):
    before = len(COMPILED)
    jax.block_until_ready(function(*arguments))
    return len(COMPILED) - before


def test_compilations_are_seen():
    assert compilations(lambda x: jax.jit(lambda x: x + 1.5)(x), jnp.ones(3)) == 1


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_is_compiled_again_outside_jit(name):
    program = PROGRAMS[name]()
    inputs = program.batch(2)
    program.function(inputs, program.weights)
    assert compilations(program.function, inputs, program.weights) == 0


@pytest.mark.parametrize(
    "name", [name if name in OF_EACH_KIND else pytest.param(name, marks=SLOW) for name in PROGRAMS]
)
def test_nothing_is_compiled_again_for_a_gradient_outside_jit(name):
    program = PROGRAMS[name]()
    inputs = program.batch(2)
    run = outputs_and_gradients(program)
    run(inputs, program.weights)
    assert compilations(run, inputs, program.weights) == 0


@pytest.mark.parametrize(("ours", "stock"), [(nn.Conv, nnx.Conv), (nn.ConvTranspose, nnx.ConvTranspose)])
def test_a_gradient_outside_jit_differentiates_no_more_conversions_than_stock_layers(ours, stock, monkeypatch):
    """Outside jit a conversion to the same dtype is also differentiated, and takes as long as any other operation."""
    rule, seen = ad.primitive_jvps[convert_element_type_p], []

    def counting(*arguments, **options):
        seen.append(options)
        return rule(*arguments, **options)

    monkeypatch.setitem(ad.primitive_jvps, convert_element_type_p, counting)

    def conversions(layer):
        seen.clear()
        jax.grad(lambda x: layer(3, 4, (3, 3), rngs=nnx.Rngs(0))(x).sum())(jnp.ones((1, 8, 8, 3)))
        return len(seen)

    assert conversions(ours) <= conversions(stock)


def test_a_network_compiles_nothing_again_outside_jit():
    model = models.create("resnet_20", num_classes=10, input_shape=(16, 16, 3), width=0.25, rngs=nnx.Rngs(0))
    x = jnp.ones((2, 16, 16, 3))
    model(x)
    assert compilations(model, x) == 0


@pytest.mark.parametrize("name", PROGRAMS)
def test_forward_mode_can_be_traced(name):
    """Tangents, Hessian-vector products and linearisation with respect to inputs and weights are only traced."""
    program = PROGRAMS[name]()
    inputs = program.batch(2)

    def loss(inputs, weights):
        leaves = jax.tree.leaves(program.function(inputs, weights))
        return sum(jnp.square(y).sum() for y in leaves if jnp.issubdtype(y.dtype, jnp.floating))

    def everything(inputs, weights):
        point = (inputs, weights)
        tangent = jax.jvp(loss, point, point)
        product = jax.jvp(jax.grad(loss, (0, 1)), point, point)
        return tangent, product, jax.linearize(loss, *point)[1](*point)

    if name in GRADIENTS_ALONE:
        with pytest.raises(UsageError, match=r"relu: rule='\w+' changes only gradients .* use jax.grad"):
            jax.jit(everything).lower(inputs, program.weights)
    else:
        jax.eval_shape(everything, inputs, program.weights)


@pytest.mark.parametrize("name", ["lenet_5", "alexnet", "googlenet", "resnet_18", "lenet_1989"])
def test_forward_mode_through_a_network(name):
    shapes = {"lenet_5": (32, 32, 1), "lenet_1989": (16, 16, 1), "alexnet": (67, 67, 3), "googlenet": (224, 224, 3)}
    shape = shapes.get(name, (64, 64, 3))
    abstract = nnx.eval_shape(lambda: models.create(name, num_classes=3, input_shape=shape, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(abstract)
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    y, tangent = jax.eval_shape(lambda state, x: jax.jvp(lambda x: nnx.merge(graph, state)(x), (x,), (x,)), state, x)
    assert (y.shape, tangent.shape) == ((1, 3), (1, 3))


def test_tangents_are_the_transposes_of_gradients():
    """<J d, w> = <d, J' w> for ops with custom derivative rules, some of which are nonlinear."""
    names = ["conv, strided", "max_pool", "max_pool, split ties", "lp_pool", "local_response_norm", "conv_transpose"]

    def both():
        for name in names:
            program = OPS[name]()
            point = (program.batch(2), program.weights)
            direction = jax.tree.map(jnp.cos, point)
            y, tangent = jax.jvp(program.function, point, direction)
            y, tangent = jax.tree.leaves(y)[0], jax.tree.leaves(tangent)[0]
            _, pull = jax.vjp(lambda *point, f=program.function: jax.tree.leaves(f(*point))[0], *point)
            back = pull(jnp.sin(y))
            pairs = zip(jax.tree.leaves(direction), jax.tree.leaves(back), strict=True)
            yield jnp.vdot(tangent, jnp.sin(y)), sum(jnp.vdot(a, b) for a, b in pairs)

    for name, (forward, reverse) in zip(names, compiled(lambda: list(both()))(), strict=True):
        np.testing.assert_allclose(forward, reverse, rtol=2e-4, err_msg=name)


def test_without_jit_and_with_jit_disabled_agree():
    x, kernel = jnp.ones((1, 6, 6, 2)), jnp.ones((3, 3, 2, 2))
    with jax.disable_jit():
        y = ops.max_pool(ops.conv(x, kernel), (2, 2))
    np.testing.assert_array_equal(y, ops.max_pool(ops.conv(x, kernel), (2, 2)))
