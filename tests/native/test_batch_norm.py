"""Batch normalisation in training with addend and ReLU by the native kernels, alone and in networks."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnn_jax import native, nn, ops
from cnn_jax.errors import UsageError
from tests.compiled import compiled

pytestmark = pytest.mark.usefixtures("kernels")
CALL = "cnn_jax_batch_norm"


def formula(x, scale, bias, addend, weights, relu):
    """The result, and the gradients of its product with ``weights``, in float64."""
    x, scale, bias, weights = (np.asarray(array, np.float64) for array in (x, scale, bias, weights))
    axes = tuple(range(x.ndim - 1))
    deviation = np.sqrt(x.var(axes) + 1e-5)
    n = (x - x.mean(axes)) / deviation
    y = n * scale + bias + (0 if addend is None else np.asarray(addend, np.float64))
    dy = np.where(y > 0, weights, 0) if relu else weights
    y = np.maximum(y, 0) if relu else y
    dn = dy * scale
    dx = (dn - dn.mean(axes) - n * (n * dn).mean(axes)) / deviation
    return y, [dx, (dy * n).sum(axes), dy.sum(axes), dy]


# Few and many channels, rows that are merged and rows that cannot be, one position, and several pieces.
SHAPES = [(8, 5, 6, 16), (3, 7, 7, 24), (64, 3), (5, 100), (2, 3, 1, 1, 130), (2, 40, 48, 33)]


@pytest.mark.parametrize(("shape", "mean"), [*((shape, 0.0) for shape in SHAPES), (SHAPES[0], 1e4)])
def test_it_is_the_formula(shape, mean):
    rng = np.random.default_rng(0)
    x, addend, weights = (rng.standard_normal(shape, np.float32) for _ in range(3))
    scale, bias = (rng.standard_normal(shape[-1:], np.float32) for _ in range(2))
    x += np.float32(mean)

    def both(x, scale, bias, addend, weights):
        results = []
        for add, relu in itertools.product([False, True], repeat=2):

            def loss(x, scale, bias, addend, add=add, relu=relu):
                other = addend if add else None
                y, mean, variance = ops.normalize_by_batch(x, scale=scale, bias=bias, addend=other, relu=relu)
                return (y * weights).sum(), (y, mean, variance)

            results.append(jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True)(x, scale, bias, addend))
        return results

    program = jax.jit(both).lower(x, scale, bias, addend, weights)
    assert program.as_text().count(f'"{CALL}"') + program.as_text().count(f"@{CALL}(") == 4
    found = program.compile()(x, scale, bias, addend, weights)
    for (add, relu), ((_, (y, average, variance)), gradients) in zip(
        itertools.product([False, True], repeat=2), found, strict=True
    ):
        wanted, wanted_gradients = formula(x, scale, bias, addend if add else None, weights, relu)
        near = 1e-5
        axes = tuple(range(x.ndim - 1))
        np.testing.assert_allclose(average, x.mean(axes, dtype=np.float64), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(variance, x.var(axes, dtype=np.float64), rtol=1e-4)
        np.testing.assert_allclose(y, wanted, rtol=0, atol=near * np.abs(wanted).max())
        if not add:
            assert not np.any(gradients[3])
        for name, gradient, expected in zip(
            "xsba"[: 3 + add], gradients[: 3 + add], wanted_gradients[: 3 + add], strict=True
        ):
            edge = np.abs(wanted).ravel() < 1e-4 if relu else np.array([False])  # where rounding decides ReLU's side
            if not (edge & (wanted.ravel() != 0)).any():
                np.testing.assert_allclose(gradient, expected, rtol=0, atol=5e-4 * np.abs(expected).max(), err_msg=name)


def test_nan_stays_nan():
    x = np.random.default_rng(0).standard_normal((4, 3, 3, 5)).astype(np.float32)
    x[1, 2, 0, 3] = np.nan
    y, mean, variance = compiled(lambda x: ops.normalize_by_batch(x, relu=True))(x)
    channels = np.arange(5) == 3
    for array in (y, mean, variance):
        np.testing.assert_array_equal(np.isnan(array), np.broadcast_to(channels, array.shape))


def derivatives(x, scale, addend):
    """Modes and orders of differentiation, and vmap."""

    def loss(x, scale):
        y, mean, variance = ops.normalize_by_batch(x, scale=scale, addend=addend, relu=True)
        return (y**3).sum() + (mean * variance).sum()

    directions = jnp.cos(x), jnp.sin(scale)
    return {
        "gradients": jax.grad(loss, (0, 1))(x, scale),
        "jvp": jax.jvp(loss, (x, scale), directions),
        "forward over reverse": jax.jvp(jax.grad(loss, (0, 1)), (x, scale), directions),
        "reverse over reverse": jax.grad(lambda x, scale: (jax.grad(loss)(x, scale) ** 2).sum(), (0, 1))(x, scale),
        "vmap": jax.vmap(jax.grad(loss), (0, None))(jnp.stack([x, 2 * x]), scale),
        "remat": jax.grad(jax.checkpoint(loss))(x, scale),
    }


def test_every_mode_of_differentiation_is_that_without_kernels():
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in [(3, 4, 5, 6), (6,), (3, 4, 5, 6)]]
    program = jax.jit(derivatives).lower(*arrays)
    assert CALL in program.as_text()
    ours = program.compile()(*arrays)
    native.enable(False, environ={})
    jax.clear_caches()
    theirs = compiled(derivatives)(*arrays)
    for name, expected in theirs.items():
        for actual, wanted in zip(jax.tree.leaves(ours[name]), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max(), err_msg=name)


def network(rngs):
    norm = {"use_running_average": False}
    branch = {
        "conv1": nn.Conv(4, 6, (3, 3), strides=2, padding=1, use_bias=False, rngs=rngs),
        "bn1": nn.BatchNorm(6, **norm, rngs=rngs),
        "relu1": ops.relu,
        "conv2": nn.Conv(6, 6, (3, 3), padding=1, use_bias=False, rngs=rngs),
        "bn2": nn.BatchNorm(6, **norm, rngs=rngs),
    }
    shortcut = {
        "conv": nn.Conv(4, 6, (1, 1), strides=2, use_bias=False, rngs=rngs),
        "bn": nn.BatchNorm(6, **norm, rngs=rngs),
    }
    return nn.Sequence(
        {
            "conv": nn.Conv(1, 4, (3, 3), use_bias=False, rngs=rngs),
            "bn": nn.BatchNorm(4, **norm, rngs=rngs),
            "relu": jax.nn.relu,
            "block": nn.Residual(branch, shortcut),
            "block_relu": ops.relu,
            "mean": ops.global_avg_pool,
        }
    )


X = np.random.default_rng(0).standard_normal((4, 10, 10, 1)).astype(np.float32)
EVERY = [
    *("conv", "bn", "relu"),
    *(f"block/branch/{name}" for name in ("conv1", "bn1", "relu1", "conv2", "bn2")),
    *("block/shortcut/conv", "block/shortcut/bn", "block/add", "block_relu", "mean"),
]


def trained(calls):
    """Output, activations, running statistics and gradients of a training step; checks the number of kernels."""
    graph, params, rest = nnx.split(network(nnx.Rngs(0)), nnx.Param, ...)

    def run(params, rest, weights, ask):
        model = nnx.merge(graph, params, rest)
        result = model(X, train=True, return_activations=ask)
        output, activations = result if ask else (result, {})
        loss = (output**2).sum() + sum((activations[name] * weights).sum() for name in ("bn", "block/add") if ask)
        return loss, (output, activations, nnx.state(model, nnx.BatchStat))

    def both(params, rest, weights):
        step = jax.value_and_grad(run, has_aux=True)
        return step(params, rest, weights, False), step(params, rest, weights, True)

    program = jax.jit(both).lower(params, rest, 0.1)
    assert program.as_text().count(f"@{CALL}(") == calls
    return program.compile()(params, rest, 0.1)


def test_activations_of_a_network_are_there_and_equal():
    """With the loss on some of them, too: in training they are computed by the same operations, apart from rounding."""
    ours = trained(calls=2 * 4)
    native.enable(False, environ={})
    jax.clear_caches()
    theirs = trained(calls=0)
    assert list(ours[1][0][1][1]) == list(theirs[1][0][1][1]) == EVERY
    for actual, wanted in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max() + 1e-6)


def test_a_sequence_with_skip_connections_is_rectified_too():
    """Where the ReLU's output is what a skip connection keeps, but not where it is the normalisation's."""
    rngs = nnx.Rngs(0)
    norm = {"use_running_average": False}
    layers = {
        "conv": nn.Conv(1, 4, (3, 3), padding=1, rngs=rngs),
        "bn": nn.BatchNorm(4, **norm, rngs=rngs),
        "relu": ops.relu,
        "pool": nn.MaxPool((2, 2), return_indices=True),
        "bn2": nn.BatchNorm(4, **norm, rngs=rngs),
        "relu2": jax.nn.relu,
        "unpool": nn.MaxUnpool(strides=2),
        "both": nn.Concatenate(),
        "add": nn.Add(),
    }

    def results():
        found = []
        for source, calls in {"relu": 2, "bn": 1}.items():
            graph, state = nnx.split(nn.SkipSequence(layers, {"unpool": "pool", "both": source, "add": "both"}))

            def run(state, x, graph=graph):
                return nnx.merge(graph, state)(x, train=True, return_activations=True)

            program = jax.jit(run).lower(state, X)
            assert program.as_text().count("relu = true") == calls * native.is_wanted()
            found.append(program.compile()(state, X))
        return found

    ours = results()
    native.enable(False, environ={})
    jax.clear_caches()
    for (y, found), (expected, others) in zip(ours, results(), strict=True):
        np.testing.assert_allclose(y, expected, atol=1e-5)
        assert list(found) == list(others) == list(layers)
        for name, array in others.items():
            np.testing.assert_allclose(found[name], array, atol=1e-5, err_msg=name)


def test_replaced_activations_and_evaluation_are_as_without_kernels():
    model = network(nnx.Rngs(0))
    replaced = model(X, intercept={"block/branch/bn2": jnp.zeros_like}, return_activations=True)[1]
    np.testing.assert_array_equal(replaced["block/add"], replaced["block/shortcut/bn"])
    program = jax.jit(lambda x: model(x, train=False)).lower(X)
    assert CALL not in program.as_text()


def test_a_shortcut_of_another_shape_is_named():
    rngs = nnx.Rngs(0)
    block = nn.Residual({"conv": nn.Conv(4, 6, (1, 1), rngs=rngs), "bn": nn.BatchNorm(6, rngs=rngs)})
    with pytest.raises(UsageError, match=r"Residual: the branch gives \(1, 2, 2, 6\), but the shortcut gives"):
        nn.Sequence({"block": block, "relu": ops.relu})(jnp.ones((1, 2, 2, 4)), train=True)
