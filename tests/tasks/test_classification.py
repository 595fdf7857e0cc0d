"""The dtype of a network's computations, and the predictions of an ensemble."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from scipy import ndimage
from sklearn.metrics import classification_report

from cnn_jax import data, nn, train
from cnn_jax.errors import UsageError
from cnn_jax.experiments import baselines, finetune
from cnn_jax.tasks import Classification, Examples, default_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks.network import TaskNetwork, make_network
from cnn_jax.tasks.sets import known_examples
from cnn_jax.tasks.task import Results

SHAPE = (28, 28, 1)
PREPROCESS = data.Preprocess(SHAPE, mean=(0.5,), std=(0.5,))


def config(**overrides) -> ConfigDict:
    result = default_config()
    result.input_shape = SHAPE
    result.model.width = 0.5
    result.update(overrides)
    return result


def batch() -> dict[str, jax.Array]:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (6, *SHAPE), dtype=np.uint8)
    return {"image": jnp.asarray(images), "label": jnp.arange(6) % 3, "mask": jnp.array([1, 1, 1, 1, 1, 0])}


def task(settings: ConfigDict, names: tuple[str, ...] = ("a", "b", "c")) -> Classification:
    return Classification(settings, Examples("mine", {"label": data.Field("label", class_names=names)}))


def network_of(settings: ConfigDict) -> TaskNetwork:
    return make_network(settings, task(settings), PREPROCESS)


def network_and_state(settings: ConfigDict) -> tuple[TaskNetwork, train.TrainState]:
    network = network_of(settings)
    optimizer = train.create_optimizer("sgd", 0.1)
    return network, jax.jit(lambda: network.init(jax.random.key(0), optimizer))()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_network_computes_in_its_dtype_and_learns_in_float32(dtype: str) -> None:
    network = network_of(config(dtype=dtype))
    optimizer = train.create_optimizer("sgd", 0.1)
    state = jax.eval_shape(lambda: network.init(jax.random.key(0), optimizer))
    step = network.step(optimizer, lambda step: 0.1, train.ONE_DEVICE)
    images = batch()["image"]
    logits, activations = jax.eval_shape(
        lambda state: network.apply(state.params, state.model_state, images, return_activations=True)[0], state
    )
    assert {name: array.dtype.name for name, array in activations.items()} == dict.fromkeys(activations, dtype)
    assert logits.dtype.name == dtype
    new, metrics = jax.eval_shape(step, state, batch())
    learned = jax.tree.leaves((new.params, new.model_state, new.opt_state, metrics))
    assert {leaf.dtype.name for leaf in learned if jnp.issubdtype(leaf.dtype, jnp.inexact)} == {"float32"}


def test_activations_can_be_drawn_whatever_the_network_computes_in() -> None:
    network, state = network_and_state(config(dtype="bfloat16"))
    activations = network.activations(state, np.asarray(batch()["image"][:1]))
    assert {array.dtype.name for array in activations.values()} == {"float32"}


def test_ensemble_averages_the_probabilities_of_its_members() -> None:
    network, state = network_and_state(config(ensemble=3))
    single = network_of(config())
    probability = jax.jit(lambda state, images: jax.nn.softmax(single.outputs(state, images)))
    each = np.stack([probability(train.member(state, number), batch()["image"]) for number in range(3)])
    assert np.abs(each[0] - each[1]).max() > 1e-3, "the members differ"
    average = each.mean(axis=0)
    labels, mask = np.asarray(batch()["label"]), np.asarray(batch()["mask"])
    metrics = network.scores(train.averages(train.added({}, jax.jit(network.evaluate)(state, batch()))))
    expected = {"accuracy": ((average.argmax(-1) == labels) * mask).sum() / 5}
    expected |= {f"accuracy_{n + 1}": ((each[n].argmax(-1) == labels) * mask).sum() / 5 for n in range(3)}
    expected |= {"loss": -(np.log(average[np.arange(6), labels]) * mask).sum() / 5}
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_views_of_a_network_of_squared_errors_are_averaged_as_they_are() -> None:
    network, state = network_and_state(config(loss="squared_error"))
    images = batch()["image"]
    both = jax.jit(lambda images: network.apply(state.params, state.model_state, images)[0])
    network.config.data.test_time = "mirror"
    expected = (both(images) + both(images[:, :, ::-1])) / 2
    np.testing.assert_allclose(jax.jit(network.outputs)(state, images), expected, rtol=1e-5, atol=1e-6)


def test_top_k_counts_the_classes_that_are_among_the_first() -> None:
    network = task(config(top_k=2))
    logits = jnp.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 0.0]])
    metrics = network.measure(logits, {"label": jnp.array([0, 1, 2, 1]), "mask": jnp.array([1, 1, 1, 0])})
    assert [float(number) for number in metrics["top_2_accuracy"]] == [2, 3]


IGNORED = data.Field("label", class_names=("a", "b", "c"), ignored=255)
LOGITS = np.random.default_rng(1).standard_normal((6, 3)).astype(np.float32)
LABELS = np.array([0, 255, 1, 2, 255, 1], np.int32)


def probabilities(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "sigmoid", "squared_error"])
def test_unlabelled_examples_have_no_loss_and_no_metric(loss: str) -> None:
    chosen = Classification(config(loss=loss, top_k=2), Examples("mine", {"label": IGNORED}))
    kept = LABELS != 255
    logits = np.where(kept[:, None], LOGITS, np.nan)
    plain = task(config(loss=loss, top_k=2))
    of_all = {"label": jnp.asarray(LABELS), "mask": jnp.array([1, 1, 1, 1, 1, 0])}
    of_labelled = {"label": jnp.asarray(LABELS[kept]), "mask": jnp.array([1, 1, 1, 0])}
    both = jax.jit(lambda z, batch: (chosen.loss(z, batch), chosen.measure(z, batch)))(logits, of_all)
    expected = jax.jit(lambda z, batch: (plain.loss(z, batch), plain.measure(z, batch)))(LOGITS[kept], of_labelled)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), both, expected)
    gradient = jax.jit(jax.grad(chosen.loss))(logits, of_all)
    assert not np.any(gradient[~kept])
    assert np.isfinite(gradient).all()
    none = {"label": jnp.full(6, 255)}
    assert float(jax.jit(chosen.loss)(LOGITS, none)) == 0
    assert [target["label"] for target in chosen.targets({"label": LABELS})] == ["a", "", "b", "c", "", "b"]


def test_losses_of_images_that_are_mixed_with_unlabelled_ones() -> None:
    chosen = Classification(config(), Examples("mine", {"label": IGNORED}))
    mixed = jnp.array([[0.3, 0.0, 0.0], [0.0, 0.0, 0.0]])
    losses = chosen.example_losses(jnp.asarray(LOGITS[:2]), mixed, label_smoothing=0.1)
    expected = -0.3 * (np.log(probabilities(LOGITS[0])) @ [0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3])
    np.testing.assert_allclose(losses, [expected, 0], rtol=1e-6)
    assert [float(number) for number in chosen.measure(jnp.asarray(LOGITS[:2]), {"label": mixed})["loss"]][1] == 1


def test_each_loss_is_its_definition() -> None:
    labels = np.array([0, 1, 2, 1, 0, 0])
    p = probabilities(LOGITS)[np.arange(6), labels]
    sigmoid = 1 / (1 + np.exp(-LOGITS))
    independent = -np.where(np.eye(3)[labels] == 1, np.log(sigmoid), np.log(1 - sigmoid)).sum(axis=-1)
    for overrides, expected in [
        ({}, -np.log(p)),
        ({"class_weights": (1.0, 2.0, 0.5)}, -np.array([1, 2, 0.5])[labels] * np.log(p)),
        ({"balanced": True}, -np.array([6 / (3 * 3), 6 / (3 * 2), 6 / (3 * 1)])[labels] * np.log(p)),
        ({"loss": "focal", "focal_gamma": 1.5}, -((1 - p) ** 1.5) * np.log(p)),
        ({"loss": "sigmoid"}, independent),
    ]:
        spec = {"label": data.Field("label", class_names=("a", "b", "c"))}
        chosen = Classification(config(**overrides), Examples("mine", spec, tuple(np.bincount(labels).tolist())))
        actual = jax.jit(chosen.loss)(LOGITS, {"label": jnp.asarray(labels)})
        np.testing.assert_allclose(actual, expected.mean(), rtol=1e-5, err_msg=str(overrides))
    np.testing.assert_allclose(chosen.predict(jnp.asarray(LOGITS)), sigmoid, rtol=1e-5)


def test_a_config_of_an_earlier_version_has_no_class_weights() -> None:
    old = config().unlock()
    for key in ("class_weights", "balanced", "focal_gamma"):
        del old[key]
    batch = {"label": jnp.zeros(6, int)}
    assert task(old).loss(jnp.asarray(LOGITS), batch) == task(config()).loss(jnp.asarray(LOGITS), batch)


def test_classes_are_counted_in_the_training_set() -> None:
    images, labels = np.zeros((5, 8, 8, 1), np.uint8), np.array([0, 255, 2, 2, 0], np.int32)
    found = data.Dataset("mine", "train", {"image": images, "label": labels}, {"image": "image", "label": IGNORED})
    assert known_examples(found).class_counts == (2, 0, 2)
    assert known_examples(data.as_records(found)).class_counts == ()
    chosen = Classification(config(balanced=True), known_examples(data.as_records(found)))
    with pytest.raises(UsageError, match=r"balanced=True .* set data.loading='memory', or give class_weights"):
        chosen.loss(jnp.asarray(LOGITS), {"label": jnp.zeros(6, int)})


def test_report_of_a_classification_ignores_unlabelled_examples() -> None:
    """The table is compared with scikit-learn's report, the calibration error with a loop."""
    images = np.zeros((6, 8, 8, 1), np.uint8)
    spec = {"image": data.Field("image"), "label": IGNORED}
    test_set = data.Dataset("mine", "test", {"image": images, "label": LABELS}, spec)
    predictions, scores = probabilities(3 * LOGITS), {"test/accuracy": 0.5}
    chosen = Classification(config(), known_examples(test_set))
    results = Results(config(), test_set, 6, predictions, scores)
    found = {section.title: section for section in chosen.sections(results)}
    assert list(found) == ["Confusion matrix", "Classes", "Calibration", "Worst mistakes"]
    kept = LABELS != 255
    predicted = predictions.argmax(axis=-1)[kept]
    reference = classification_report(LABELS[kept], predicted, labels=range(3), output_dict=True, zero_division=0)
    for row, name in zip(found["Classes"].table.rows, ("0", "1", "2", "macro avg"), strict=True):
        expected = reference[name]
        numbers = [f"{expected[score]:.2%}" for score in ("precision", "recall", "f1-score")]
        assert row[1:] == [*numbers, f"{expected['support']:.0f}"]
    confidence, right = predictions.max(axis=-1)[kept], predicted == LABELS[kept]
    places = np.ceil(confidence * 15).astype(int)
    error = sum(abs((right[places == b] - confidence[places == b]).sum()) for b in range(16)) / kept.sum()
    assert f"error {error:.2%} (15 bins)" in found["Calibration"].caption
    assert "labelled" in chosen.headlines(results)[0].note
    unlabelled = data.Dataset("mine", "test", {"image": images, "label": np.full(6, 255, np.int32)}, spec)
    assert chosen.sections(Results(config(), unlabelled, 6, predictions, scores)) == []


class WithAHead(TaskNetwork):
    """A linear network with a linear head on the side."""

    def create(self, key: jax.Array) -> nn.Sequence:
        rngs = nnx.Rngs(key)
        head = nn.Auxiliary({"flatten": nn.flatten, "logits": nn.Linear(784, 3, rngs=rngs)})
        return nn.Sequence({"aux": head, "flatten": nn.flatten, "output": nn.Linear(784, 3, rngs=rngs)})


def test_auxiliary_heads_add_their_losses_with_their_weight() -> None:
    settings = config(auxiliary_weight=0.25)
    network = WithAHead(settings, task(settings), PREPROCESS)
    assert network.auxiliary_heads == ["aux/logits"]
    state = network.init(jax.random.key(0), train.create_optimizer("sgd", 0.1))
    total, _ = network.loss(state.params, state.model_state, batch(), jax.random.key(0))
    pixels = np.asarray(PREPROCESS(batch()["image"])).reshape(6, -1)
    losses = []
    for layer in (state.params["output"], state.params["aux"]["logits"]):
        logits = pixels @ np.asarray(layer["kernel"][...])
        chosen = logits[np.arange(6), np.asarray(batch()["label"])]
        losses.append((np.log(np.exp(logits).sum(axis=1)) - chosen).mean())
    assert float(total) == pytest.approx(losses[0] + 0.25 * losses[1], rel=1e-5)


class Linear(TaskNetwork):
    """The outputs are sums over the pixels."""

    def create(self, key: jax.Array) -> nn.Sequence:
        return nn.Sequence({"flatten": nn.flatten, "output": nn.Linear(784, 3, rngs=nnx.Rngs(key))})


def test_rotated_pairs_add_the_squared_distance_of_their_outputs() -> None:
    """The outputs of a linear network for a rotated line are those of SciPy's; for a round blob they do not change."""
    pairs = {"weight": 0.5, "rotation": 90.0}
    settings = config(rotated_pairs=pairs)
    network, plain = (Linear(one, task(one), PREPROCESS) for one in (settings, config()))
    state = network.init(jax.random.key(0), train.create_optimizer("sgd", 0.1))
    kernel = np.asarray(state.params["output"]["kernel"][...])
    key = jax.random.key(3)

    def added(images: np.ndarray) -> float:
        given = {**batch(), "image": jnp.asarray(images)}
        both = [one.loss(state.params, state.model_state, given, key)[0] for one in (network, plain)]
        return float(both[0] - both[1])

    rows, columns = np.mgrid[:28, :28] - 13.5
    blob = 255 * np.exp(-(rows**2 + columns**2) / 50)
    blobs = np.repeat(blob.round().astype(np.uint8)[None, ..., None], 6, axis=0)
    lines = np.zeros_like(blobs)
    lines[:, 4:24, 12:14] = 255  # a vertical line
    # Every angle is one of the 181 whole ones, but for half a degree.
    line = lines[0, ..., 0] / 255
    turned = [ndimage.rotate(line, angle, reshape=False, order=1) for angle in range(-90, 91)]
    moved = np.stack([(np.ravel(one - line) / np.asarray(PREPROCESS.std)) @ kernel for one in turned])
    distances = np.square(moved).sum(axis=1)
    assert 0.5 * distances.min() < added(lines) < 0.5 * distances.max()
    assert added(blobs) < 0.05 * added(lines)
    float_images = (lines / 255).astype(np.float32)
    assert added(float_images) == pytest.approx(added(lines), rel=1e-4)


def test_values_to_start_from_are_in_the_state_and_in_its_average() -> None:
    settings = config(input_shape=(32, 32, 3), ema_decay=0.9, model={"name": "airbench", "width": 1 / 16})
    network, optimizer = network_of(settings), train.create_optimizer("lookahead", 0.1)
    values = {"whiten/kernel": jnp.ones((2, 2, 3, 24)), "fc/kernel": jnp.full((16, 3), 2.0)}
    made = jax.jit(lambda: network.init(jax.random.key(0), optimizer, values))()
    for params, model_state in ((made.params, made.model_state), made.ema):
        np.testing.assert_array_equal(model_state["whiten"]["kernel"][...], 1)
        np.testing.assert_array_equal(params["fc"]["kernel"][...], 2)
    slow = [leaf for leaf in jax.tree.leaves(made.opt_state) if leaf.shape == (16, 3)]
    assert any(np.all(np.asarray(leaf) == 2) for leaf in slow), "the optimiser has a copy of what training starts from"
    drawn = jax.eval_shape(lambda: network.init(jax.random.key(0), optimizer))
    assert jax.tree.structure(made) == jax.tree.structure(drawn)


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"dtype": "bfloat"}, ["'bfloat'", "'bfloat16'"]),
        ({"ensemble": 0}, ["ensemble=0"]),
        ({"rotated_pairs": {"weight": -1.0}}, ["rotated_pairs.weight=-1.0", "at least 0"]),
        ({"rotated_pairs": {"weight": 1.0}, "input_shape": (28, 1)}, ["rotated_pairs", "(28, 1)", "weight=0"]),
        ({"top_k": 2}, ["top_k=2", "classes, 2"]),
        ({"ensemble": 2, "loss": "squared_error"}, ["ensemble=2", "'squared_error'"]),
        ({"ensemble": 2, "loss": "sigmoid"}, ["ensemble=2", "'sigmoid'"]),
        ({"loss": "focl"}, ["loss='focl'", "'focal'"]),
        ({"loss": "focal", "focal_gamma": -1.0}, ["focal_gamma=-1.0"]),
        ({"class_weights": (1.0,)}, ["class_weights has 1 numbers for 2 classes"]),
        ({"class_weights": (1.0, -1.0)}, ["class_weights=(1.0, -1.0)", "at least 0"]),
        ({"class_weights": (1.0, 1.0), "balanced": True}, ["class_weights and balanced=True"]),
        ({"balanced": True, "loss": "sigmoid"}, ["balanced=True", "'sigmoid'"]),
    ],
    ids=str,
)
def test_mistakes_are_named(overrides: dict, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        make_network(config(**overrides), task(config(**overrides), ("a", "b")), PREPROCESS)
    assert all(part in str(caught.value) for part in parts)


def test_the_table_of_a_network_needs_no_images(tmp_path, capsys) -> None:
    """The data set is neither prepared nor downloaded; the outputs are the chosen classes."""
    settings = config(data={"name": "cifar10", "data_dir": str(tmp_path), "classes": (8, 3)}, input_shape=(32, 32, 3))
    assert runs.untrained(settings).task.outputs == ("8", "3")  # TFDS stores the names with the images
    runs.summary(settings, output=str(tmp_path / "table.csv"))
    printed = capsys.readouterr().out
    assert printed.startswith("lenet_5_modern, input 32x32x3, 2 outputs")
    assert (tmp_path / "table.csv").read_text().splitlines()[1].startswith("c1,Conv,28x28x3,5x5")
    settings.data.classes = (10,)
    with pytest.raises(UsageError, match="class 10 is not one of 0 to 9"):
        runs.untrained(settings)


def test_a_series_has_the_table_of_each_network(tmp_path, capsys) -> None:
    settings = baselines.default_config()
    settings.networks = {"linear": {"model": {"name": "logistic_regression"}}, "two, 1": {"model": {"name": "mlp"}}}
    baselines.summary(settings, output=str(tmp_path / "table.md"))
    assert {path.name for path in tmp_path.iterdir()} == {"table-linear.md", "table-two-1.md"}
    settings = finetune.default_config()
    settings.source.update({"name": "digits", "classes": (0, 1, 2)})
    finetune.summary(settings)
    assert "lenet_5_modern, input 32x32x1, 3 outputs" in capsys.readouterr().out
