"""Networks that are trained against each other: turns against closed forms, exact resume, and pix2pix's losses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnn_jax import data, geometry, train
from cnn_jax.errors import UsageError
from cnn_jax.models.patch_gan import patch_gan
from cnn_jax.tasks import Examples, Pix2Pix, default_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks.saved import load_run
from cnn_jax.train.state import create_state
from tests.tasks.interrupted import train_interrupted

D = nnx.PathContains("d")
TURNS = {"critic": D, "network": nnx.Not(D)}


def turn(loss):
    """The step of one turn of a game of two numbers, d and g."""

    def of_own(own, given, batch, key):
        params = nnx.merge_state(own, given[0])
        value = loss(params["d"]["w"].get_value(), params["g"]["w"].get_value())
        return value, ({"loss": (value, jnp.ones(()))}, given)

    return train.make_step(of_own, optax.adam(0.1), ema_decay=0.9)


def test_each_turn_trains_its_own_parameters_with_its_own_optimizer_state_on_what_the_turn_before_left():
    params = nnx.State({name: {"w": nnx.Param(jnp.array(value))} for name, value in (("d", 1.0), ("g", 3.0))})
    state = create_state(
        jax.random.key(0), params, nnx.State({}), train.optimizer_in_turns(optax.adam(0.1), TURNS), ema=True
    )
    losses = {"critic": lambda d, g: jnp.square(d - g), "network": lambda d, g: d * g + g**2}
    step = jax.jit(train.in_turns({name: (TURNS[name], turn(losses[name])) for name in TURNS}))
    d, g = 1.0, 3.0
    moments = {"d": (0.0, 0.0), "g": (0.0, 0.0)}

    def adam(name, gradient, count):
        m, v = moments[name]
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        moments[name] = m, v
        return -0.1 * (m / (1 - 0.9**count)) / (np.sqrt(v / (1 - 0.999**count)) + 1e-8)

    average = {"d": 1.0, "g": 3.0}
    for count in (1, 2, 3):
        state, metrics = step(state, {})
        d += adam("d", 2 * (d - g), count)
        assert float(metrics["loss"][0]) == pytest.approx(d * g + g**2, rel=1e-5), "the critic has moved before"
        g += adam("g", d + 2 * g, count)
        weight = min(0.9, count / (9 + count))
        average = {name: weight * average[name] + (1 - weight) * new for name, new in (("d", d), ("g", g))}
        found = [state.params[name]["w"].get_value() for name in ("d", "g")]
        np.testing.assert_allclose(found, [d, g], rtol=1e-5)
        assert {name: state.ema[0][name]["w"].get_value() for name in average} == pytest.approx(average, rel=1e-5)
    assert int(state.step) == 3
    assert {"critic_loss", "critic_gradient_norm", "gradient_norm"} <= set(metrics)


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_a_patch_gan_judges_patches_of_the_published_size(layers, patch):
    model = nnx.eval_shape(lambda: patch_gan(6, layers=layers, width=1 / 16, rngs=nnx.Rngs(0)))
    assert geometry.receptive_field(model, (256, 256)).size == (patch, patch)


SIDE = 16
SPEC = {name: data.Field("image", (SIDE, SIDE, 1), "uint8") for name in ("image", "truth")}


def task(**changes):
    config = default_config("pix2pix")
    config.input_shape = (SIDE, SIDE, 1)
    config.update_from_flattened_dict(changes)
    return Pix2Pix(config, Examples("mine", SPEC))


def test_the_losses_are_cross_entropies_of_the_scores_of_pairs():
    own = task(adversarial_weight=0.5)
    generator = np.random.default_rng(0)
    images, truth = generator.integers(0, 256, (2, 2, SIDE, SIDE, 1)).astype(np.uint8)
    outputs = jnp.asarray(generator.normal(size=images.shape), jnp.float32)
    batch, seen = {"image": jnp.asarray(images), "truth": jnp.asarray(truth)}, []

    def discriminate(pairs):
        seen.append(np.asarray(pairs))
        return pairs.mean(axis=(1, 2), keepdims=True).sum(axis=-1, keepdims=True)

    predicted = 1 / (1 + np.exp(-outputs))
    pairs = [2 * np.concatenate([images / 255, other], axis=-1) - 1 for other in (truth / 255, predicted)]
    real, generated = (pair.mean(axis=(1, 2)).sum(axis=-1) for pair in pairs)
    expected = (np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(generated)).mean()) / 2
    assert float(own.discriminator_loss(discriminate, outputs, batch)) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(seen[0], pairs[0], atol=1e-6)
    expected = 0.5 * np.log1p(np.exp(-generated)).mean()
    assert float(own.adversarial_loss(discriminate, outputs, batch)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UsageError, match=r"adversarial_weight=-1\.0 must be at least 0"):
        task(adversarial_weight=-1.0)


INVERTED = """
import jax
import numpy as np
from cnn_jax import data, models, nn

def tiny(*, num_classes, input_shape, width, dtype, rngs):
    layers = {"conv": nn.Conv(1, 4, (3, 3), rngs=rngs), "bn": nn.BatchNorm(4, rngs=rngs), "relu": jax.nn.relu}
    return nn.Sequence({**layers, "dropout": nn.Dropout(0.5), "output": nn.Conv(4, num_classes, (1, 1), rngs=rngs)})

TINY = models.Variant(tiny, (16, 16, 1), 1)

def inverted(split, **_):
    images = np.random.default_rng(len(split)).integers(0, 256, (16, 16, 16, 1)).astype(np.uint8)
    fields = {"image": images, "truth": 255 - images}
    return data.Dataset("inverted", split, fields, dict.fromkeys(fields, "image"))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run to its end, and one that ends at its first evaluation and is continued.

    Its tests are slow; by default those of CycleGAN, in test_cyclegan.py, test the same of four networks.
    """
    folder = tmp_path_factory.mktemp("pix2pix")
    (folder / "inverted.py").write_text(INVERTED)
    config = default_config("pix2pix")
    config.data.name, config.input_shape = f"{folder / 'inverted.py'}:inverted", (16, 16, 1)
    config.data.validation, config.model.name = "", f"{folder / 'inverted.py'}:TINY"
    config.batch_size, config.duration, config.evaluate_every = 8, "6 steps", "3 steps"
    config.discriminator.width, config.optimizer.name, config.optimizer.learning_rate = 1 / 16, "adam", 0.01
    runs.train(config, folder / "whole", report=False)
    train_interrupted(config, folder / "killed")
    return config, folder


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(run):
    _, folder = run
    whole, killed = (json.loads((folder / name / "result.json").read_text()) for name in ("whole", "killed"))
    assert whole == killed


@pytest.mark.slow
def test_both_networks_are_trained_and_predictions_have_no_dropout(run):
    config, folder = run
    network, state = load_run(config, folder / "whole")
    first = network.create(train.stream_key(jax.random.key(0), "params"))
    before = dict(nnx.to_flat_state(nnx.state(first, nnx.Param)))
    after = dict(nnx.to_flat_state(state.params))
    assert any(path[0] == "discriminator" for path in after)
    assert before.keys() == after.keys()
    for path, value in after.items():
        assert not np.array_equal(value.get_value(), before[path].get_value()), path
    images = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 1)).astype(np.uint8)
    one, both = network.predict(state, images[:1]), network.predict(state, images)
    np.testing.assert_allclose(one, both[:1], atol=1e-6)


@pytest.mark.slow
def test_metrics_of_both_networks_are_recorded(run):
    rows = train.read_records(run[1] / "whole")
    recorded = {name for row in rows for name in row}
    assert {"loss", "adversarial_loss", "discriminator_loss", "discriminator_gradient_norm", "mae"} <= recorded


def test_a_mode_at_test_time_that_does_not_exist_is_told():
    with pytest.raises(UsageError, match=r"test_mode='train' is unknown; did you mean 'training'"):
        task(test_mode="train")


@pytest.mark.slow
def test_in_the_mode_of_training_predictions_have_the_dropout_of_the_seed_and_the_statistics_of_their_batch(run):
    config, folder = run
    own = config.copy_and_resolve_references()
    own.test_mode = "training"
    (network, state), (usual, _) = (load_run(one, folder / "whole") for one in (own, config))
    images = np.random.default_rng(1).integers(0, 256, (4, 16, 16, 1)).astype(np.uint8)
    both = network.predict(state, images)
    np.testing.assert_array_equal(both, network.predict(state, images))
    key = train.stream_key(state.key, "test")
    model = network.model(state.params, state.model_state)
    expected = jax.nn.sigmoid(model(network.preprocess(images), train=True, rngs=nnx.Rngs(key)))
    np.testing.assert_allclose(both, expected, atol=1e-5)
    assert not np.allclose(both[:2], network.predict(state, images[:2]), atol=1e-3), "statistics of another batch"
    assert not np.allclose(both, usual.predict(state, images), atol=1e-3)


@pytest.mark.slow
def test_a_step_computes_the_outputs_of_the_network_once(run):
    """Both turns need them, and the compiler finds that they are the same."""
    config, _ = run
    network = load_run(config, run[1] / "whole")[0]
    optimizer = optax.adam(0.01)
    state = network.init(jax.random.key(0), optimizer)
    batch = {name: jnp.zeros((8, 16, 16, 1), jnp.uint8) for name in ("image", "truth")}
    key = jax.random.key(1)

    def flops(function, *given):
        return jax.jit(function).lower(*given).compile().cost_analysis()["flops"]

    def gradient(loss):
        return flops(jax.grad(loss, has_aux=True), state.params, state.model_state, batch, key)

    step = flops(network.step(optimizer, optax.constant_schedule(0.01), train.ONE_DEVICE), state, batch)
    forward = flops(
        lambda state: network.apply(state.params, state.model_state, batch["image"], train=True, rngs=nnx.Rngs(key))[0],
        state,
    )
    update = 30 * sum(leaf.size for leaf in jax.tree.leaves(state.params))  # of Adam and the norms
    assert step < gradient(network.loss) + gradient(network.discriminator_loss) - forward + update
