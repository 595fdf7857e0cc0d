"""Deconvnet and guided backpropagation against loops in NumPy, with ReLUs anywhere in a jaxpr."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from cnn_jax import nn, ops
from cnn_jax.attribution import deconvnet, gradient, guided_backpropagation
from cnn_jax.errors import UsageError
from tests.compiled import compiled

METHODS = {"standard": gradient, "deconvnet": deconvnet, "guided": guided_backpropagation}
X = jnp.array([[5.0, 0.0, -5.0, 10.0]])


def added(y):
    return y.sum(1)


# --- a network with a convolution, a max pool and dense layers, in float64 ---

RANDOM = np.random.default_rng(0)
SHAPES = {"conv": (3, 3, 2, 3), "conv_bias": (3,), "fc": (2, 12, 12), "fc_bias": (2, 12), "out": (12, 4)}
WEIGHTS = {name: RANDOM.standard_normal(shape) / 2 for name, shape in SHAPES.items()}
IMAGES = RANDOM.standard_normal((3, 6, 6, 2))
CLASSES = np.array([0, 3, 1])


def backward_relu(rule, dy, x):
    passes = {"standard": x > 0, "deconvnet": dy > 0, "guided": (x > 0) & (dy > 0)}[rule]
    return np.where(passes, dy, 0.0)


def by_hand(rule, image, label):
    """The gradient of one score for one image, computed backwards through every layer."""
    kernel = WEIGHTS["conv"]
    maps = np.zeros((4, 4, 3))
    for i, j, c in np.ndindex(maps.shape):
        maps[i, j, c] = (image[i : i + 3, j : j + 3] * kernel[..., c]).sum() + WEIGHTS["conv_bias"][c]
    active, pooled, winners = np.maximum(maps, 0), np.zeros((2, 2, 3)), {}
    for i, j, c in np.ndindex(pooled.shape):
        entries = [(2 * i + a, 2 * j + b, c) for a in range(2) for b in range(2)]
        winners[i, j, c] = max(entries, key=lambda entry: active[entry])  # the first of several
        pooled[i, j, c] = active[winners[i, j, c]]
    inputs, sums = [pooled.ravel()], []
    for weights, bias in zip(WEIGHTS["fc"], WEIGHTS["fc_bias"], strict=True):
        sums.append(inputs[-1] @ weights + bias)
        inputs.append(np.maximum(sums[-1], 0))
    d = WEIGHTS["out"][:, label]
    for weights, total in zip(WEIGHTS["fc"][::-1], sums[::-1], strict=True):
        d = weights @ backward_relu(rule, d, total)
    unpooled = np.zeros_like(maps)
    for place, value in np.ndenumerate(d.reshape(pooled.shape)):
        unpooled[winners[place]] += value
    found = np.zeros_like(image)
    for (i, j, c), value in np.ndenumerate(backward_relu(rule, unpooled, maps)):
        found[i : i + 3, j : j + 3] += value * kernel[..., c]
    return found


def ours():
    rngs = nnx.Rngs(0)
    layers = {
        "conv": nn.Conv(2, 3, (3, 3), padding="VALID", rngs=rngs),
        "relu": ops.relu,
        "pool": nn.MaxPool((2, 2)),
        "flatten": nn.flatten,
        "fc0": nn.Linear(12, 12, rngs=rngs),
        "relu0": ops.relu,
        "fc1": nn.Linear(12, 12, rngs=rngs),
        "relu1": ops.relu,
        "out": nn.Linear(12, 4, use_bias=False, rngs=rngs),
    }
    return with_weights(nn.Sequence(layers))


class Stock(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(2, 3, (3, 3), padding="VALID", rngs=rngs)
        self.fc0, self.fc1 = nnx.Linear(12, 12, rngs=rngs), nnx.Linear(12, 12, rngs=rngs)
        self.out = nnx.Linear(12, 4, use_bias=False, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.conv(x)), (2, 2), strides=(2, 2))
        return self.out(nnx.relu(self.fc1(nnx.relu(self.fc0(x.reshape(len(x), -1))))))


def with_weights(model):
    weights = {name: jnp.asarray(array) for name, array in WEIGHTS.items()}
    model.conv.kernel, model.conv.bias = nnx.Param(weights["conv"]), nnx.Param(weights["conv_bias"])
    model.out.kernel = nnx.Param(weights["out"])
    for index, layer in enumerate((model.fc0, model.fc1)):
        layer.kernel, layer.bias = nnx.Param(weights["fc"][index]), nnx.Param(weights["fc_bias"][index])
    return model


def features(x):
    x = lax.conv_general_dilated(x, WEIGHTS["conv"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jax.nn.relu(x + WEIGHTS["conv_bias"])
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID").reshape(len(x), -1)


def plain(x):
    x = features(x)
    for weights, bias in zip(WEIGHTS["fc"], WEIGHTS["fc_bias"], strict=True):
        x = jax.nn.relu(x @ weights + bias)
    return x @ WEIGHTS["out"]


@jax.jit
def nested(x):
    def step(x, layer):
        return jax.nn.relu(x @ layer[0] + layer[1]), None

    x, _ = lax.scan(jax.checkpoint(step), jax.checkpoint(features)(x), (WEIGHTS["fc"], WEIGHTS["fc_bias"]))
    return x @ WEIGHTS["out"]


@pytest.mark.parametrize("create", [ours, lambda: with_weights(Stock()), lambda: plain, lambda: nested], ids=range(4))
def test_a_network_written_four_ways_gives_what_loops_give(create):
    with jax.enable_x64(True):
        function = create()
        run = compiled(lambda x: {rule: method(function, x, CLASSES) for rule, method in METHODS.items()})
        for rule, found in run(IMAGES).items():
            expected = [by_hand(rule, image, label) for image, label in zip(IMAGES, CLASSES, strict=True)]
            assert found.dtype == np.float64
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=rule)
            # The backward pass ends with a convolution, so there are negative values, which are kept.
            assert (np.asarray(found) < 0).any()


# --- published cases ---


@pytest.mark.parametrize(
    ("function", "also", "expected"),
    [
        (lambda x: -(jax.nn.relu(x) ** 2), (), {"standard": [-10, 0, 0, -20], "deconvnet": [0] * 4, "guided": [0] * 4}),
        (
            lambda x: 10 * jax.nn.relu(x),
            (),
            {"standard": [10, 0, 0, 10], "deconvnet": [10] * 4, "guided": [10, 0, 0, 10]},
        ),
        # Capped at 3: guided passes nothing above the cap.
        (lambda x: (jax.nn.relu6(2 * x) / 2) ** 2, (), {"deconvnet": [6, 0, 0, 6], "guided": [0] * 4}),
        (lambda x: jnp.clip(x, 0, 3) ** 2, ("clip",), {"deconvnet": [6, 0, 0, 6], "guided": [0] * 4}),
        (lambda x: lax.clamp(0.0, x, 3.0) ** 2, "clip", {"deconvnet": [6, 0, 0, 6]}),
    ],
)
def test_published_values(function, also, expected):
    for rule, values in expected.items():
        options = {} if rule == "standard" else {"also": also}
        assert METHODS[rule](function, X, added, **options).tolist() == [values], rule


# --- where rectifiers are found ---

SCALES = jnp.array([[2.0, 3.0, 4.0, -5.0]])


def with_custom_jvp(x):
    @jax.custom_jvp
    def inner(x):
        return jax.nn.relu(x) * SCALES

    inner.defjvp(lambda primals, tangents: (inner(*primals), 100 * tangents[0]))
    return inner(x)


def with_custom_vjp(x):
    @jax.custom_vjp
    def inner(x):
        return jax.nn.relu(x) * SCALES

    inner.defvjp(lambda x: (inner(x), None), lambda _, dy: (100 * dy,))
    return inner(x)


PLACES = {
    "plain": lambda x: jax.nn.relu(x) * SCALES,
    "ours": lambda x: ops.relu(x) * SCALES,
    "ours with a rule of its own": lambda x: ops.relu(x, rule="deconvnet") * SCALES,
    "jit": lambda x: jax.jit(lambda x: jax.nn.relu(x) * SCALES)(x),
    "checkpoint": lambda x: jax.checkpoint(lambda x: jax.nn.relu(x) * SCALES)(x),
    "custom_jvp": with_custom_jvp,
    "custom_vjp": with_custom_vjp,
    "scan": lambda x: lax.scan(lambda _, row: (None, jax.nn.relu(row) * SCALES[0]), None, x)[1],
    "fori_loop": lambda x: lax.fori_loop(0, 1, lambda _, x: jax.nn.relu(x) * SCALES, x),
    "cond": lambda x: lax.cond(x.sum() > 0, lambda x: jax.nn.relu(x) * SCALES, lambda x: x, x),
    "vmap": lambda x: jax.vmap(jax.vmap(lambda x, scale: jax.nn.relu(x) * scale))(x, SCALES),
    "map in jit in checkpoint": lambda x: jax.checkpoint(jax.jit(lambda x: lax.map(jax.nn.relu, x)))(x) * SCALES,
    "maximum": lambda x: jnp.maximum(x, 0) * SCALES,
    "maximum with the zero first": lambda x: jnp.maximum(jnp.zeros(()), x) * SCALES,
    "where": lambda x: jnp.where(x > 0, x, 0) * SCALES,
    "where of the opposite": lambda x: jnp.where(x <= 0, 0.0, x) * SCALES,
    "where in jit": lambda x: jax.jit(lambda x: jnp.where(0 < x, x, 0))(x) * SCALES,  # noqa: SIM300
}


@pytest.mark.parametrize("place", PLACES)
def test_rectifiers_are_found_wherever_they_are(place):
    also = ("where", "maximum") if place.startswith(("where", "maximum")) else ()
    found, receipt = guided_backpropagation(PLACES[place], X, added, also=also, return_receipt=True)
    assert found.tolist() == [[2, 0, 0, 0]]
    assert deconvnet(PLACES[place], X, added, also=also).tolist() == [[2, 3, 4, 0]]
    (entry,) = receipt.replaced
    assert entry.kind == (place.split()[0] if also else "relu")
    assert "test_backpropagation.py:" in entry.source
    assert len(receipt.opened) == (place in ("custom_jvp", "custom_vjp"))
    assert not receipt.left_alone


@pytest.mark.parametrize(
    "function",
    [
        *(jax.nn.leaky_relu, jax.nn.softplus, jax.nn.gelu, jax.nn.elu, jax.nn.hard_sigmoid, jax.nn.hard_swish),
        *(jax.nn.softmax, jax.nn.selu, jnp.abs, lambda x: jnp.maximum(x, 1), lambda x: jnp.where(x > 0, 0, x)),
    ],
)
def test_other_functions_stay_as_they_are(function):
    everything = ("maximum", "where", "clip")
    with pytest.raises(UsageError, match="guided_backpropagation: no rectifier between x and the target"):
        guided_backpropagation(lambda x: function(x) + x, X, added, also=everything)
    both = lambda x: function(jax.nn.relu(x))  # noqa: E731
    found, receipt = deconvnet(both, X, added, also=everything, return_receipt=True)
    assert len(receipt.replaced) == 1
    passed = jax.grad(lambda x: function(x).sum())(jax.nn.relu(X))
    np.testing.assert_allclose(found, jax.nn.relu(passed), rtol=1e-6)


def test_the_receipt_names_layers_lines_and_lookalikes():
    rngs = nnx.Rngs(0)
    inner = {"fc": nn.Linear(4, 4, rngs=rngs), "norm": nnx.LayerNorm(4, rngs=rngs), "relu": ops.relu}
    model = nn.Sequence({"block": nn.Residual(inner), "batchnorm": nn.BatchNorm(4, rngs=rngs), "last": nnx.relu})
    model.eval()
    found, receipt = guided_backpropagation(model, X, 0, return_receipt=True)
    assert [entry.layer for entry in receipt.replaced] == ["block/branch/relu", "last"]
    assert [(entry.kind, entry.layer) for entry in receipt.left_alone] == [("maximum", "block/branch/norm")]
    assert "normalization.py" in receipt.left_alone[0].source
    assert str(receipt).startswith("guided: 2 rectifiers replaced, 1 look-alikes left alone")
    # Rectifiers that the target does not depend on are not counted.
    _, early = guided_backpropagation(model, X, ("block/branch/relu", (), 1), return_receipt=True)
    assert [entry.layer for entry in early.replaced] == ["block/branch/relu"]
    again = guided_backpropagation(lambda x: model(x), X, 0)
    np.testing.assert_array_equal(again, found)


def test_runs_are_counted_in_loops():
    def function(x):
        return lax.scan(lambda x, _: (lax.fori_loop(0, 3, lambda _, x: jax.nn.relu(x), x), None), x, length=2)[0]

    _, receipt = guided_backpropagation(function, X, added, return_receipt=True)
    assert [entry.runs for entry in receipt.replaced] == [6]


def test_it_is_the_gradient_of_relu_with_the_rule():
    model = lambda rule: lambda x: jnp.sin(ops.relu(jnp.cos(x), rule=rule)) * SCALES  # noqa: E731
    for rule, method in METHODS.items():
        np.testing.assert_allclose(
            method(model("standard"), X, added), gradient(model(rule), X, added), rtol=1e-6, err_msg=rule
        )


def looped(x):
    return lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, jax.nn.relu(c[1])), (0, x))[1]


@pytest.mark.parametrize(
    ("function", "also", "message"),
    [
        (lambda x: 2 * x, (), "no rectifier between x and the target; use gradient"),
        (lambda x: jnp.maximum(x, 0), (), r"only maximum at .*test_backpropagation.py:\d+ .*pass also=\('maximum',\)"),
        (lambda x: x * jax.nn.relu(SCALES), (), "no rectifier between x and the target"),
        (looped, (), "is in a loop of unknown length"),
        (jax.nn.relu, ("maximun",), "unknown also='maximun'; did you mean 'maximum'"),
    ],
)
def test_mistakes_are_said_in_one_line(function, also, message):
    with pytest.raises(UsageError, match=message) as raised:
        deconvnet(function, X, added, also=also)
    assert "\n" not in str(raised.value)
