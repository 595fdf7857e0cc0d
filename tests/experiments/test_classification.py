"""What a classifier computes in, and what an ensemble of them says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from cnn_jax import data, train
from cnn_jax.errors import UsageError
from experiments import classification

SHAPE = (28, 28, 1)
PREPROCESS = data.Preprocess(SHAPE, mean=(0.5,), std=(0.5,))


def config(**overrides) -> ConfigDict:
    result = classification.default_config()
    result.input_shape = SHAPE
    result.model.width = 0.5
    result.update(overrides)
    return result


def batch() -> dict[str, jax.Array]:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (6, *SHAPE), dtype=np.uint8)
    return {"image": jnp.asarray(images), "label": jnp.arange(6) % 3, "mask": jnp.array([1, 1, 1, 1, 1, 0])}


def classifier_and_state(settings: ConfigDict) -> tuple[classification.Classifier, train.TrainState]:
    classifier = classification.make_classifier(settings, PREPROCESS, ("a", "b", "c"))
    optimizer = train.create_optimizer("sgd", 0.1)
    return classifier, jax.jit(lambda: classifier.init(jax.random.key(0), optimizer))()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_network_computes_in_its_dtype_and_learns_in_float32(dtype: str) -> None:
    classifier = classification.make_classifier(config(dtype=dtype), PREPROCESS, ("a", "b", "c"))
    optimizer = train.create_optimizer("sgd", 0.1)
    state = jax.eval_shape(lambda: classifier.init(jax.random.key(0), optimizer))
    step = classifier.step(optimizer, train.ONE_DEVICE)
    images = batch()["image"]
    logits, activations = jax.eval_shape(
        lambda state: classifier.apply(state.params, state.model_state, images, return_activations=True)[0], state
    )
    assert {name: array.dtype.name for name, array in activations.items()} == dict.fromkeys(activations, dtype)
    assert logits.dtype.name == dtype
    new, metrics = jax.eval_shape(step, state, batch())
    learned = jax.tree.leaves((new.params, new.model_state, new.opt_state, metrics))
    assert {leaf.dtype.name for leaf in learned if jnp.issubdtype(leaf.dtype, jnp.inexact)} == {"float32"}


def test_ensemble_averages_the_probabilities_of_its_members() -> None:
    classifier, state = classifier_and_state(config(ensemble=3))
    single = classification.Classifier(config(), PREPROCESS, ("a", "b", "c"))
    probability = jax.jit(lambda state, images: jax.nn.softmax(single.logits(state, images)))
    each = np.stack([probability(train.member(state, number), batch()["image"]) for number in range(3)])
    assert np.abs(each[0] - each[1]).max() > 1e-3, "the members differ"
    average = each.mean(axis=0)
    labels, mask = np.asarray(batch()["label"]), np.asarray(batch()["mask"])
    metrics = {name: float(total) for name, (total, _) in jax.jit(classifier.evaluate)(state, batch()).items()}
    expected = {"accuracy": ((average.argmax(-1) == labels) * mask).sum()}
    expected |= {f"accuracy_{n + 1}": ((each[n].argmax(-1) == labels) * mask).sum() for n in range(3)}
    expected |= {"loss": -(np.log(average[np.arange(6), labels]) * mask).sum()}
    assert metrics == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"dtype": "bfloat"}, ["'bfloat'", "'bfloat16'"]),
        ({"ensemble": 0}, ["ensemble=0"]),
        ({"ensemble": 2, "loss": "squared_error"}, ["ensemble=2", "'squared_error'"]),
    ],
    ids=str,
)
def test_mistakes_are_named(overrides: dict, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        classification.make_classifier(config(**overrides), PREPROCESS, ("a", "b"))
    assert all(part in str(caught.value) for part in parts)
