"""Labels that mean "not labelled", as a config states them: digits of which some labels are missing."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from cnn_jax import data, train
from cnn_jax.data import augment
from cnn_jax.errors import UsageError
from cnn_jax.tasks import default_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks.sets import known_examples

DIGITS = data.load("digits", "test")
MISSING = np.random.default_rng(0).random(len(DIGITS)) < 0.3


def config(path: Path, labels: np.ndarray, **overrides) -> ConfigDict:
    np.savez(path / "digits.npz", images=DIGITS.images, labels=labels)
    settings = default_config()
    settings.update({"model": {"name": "logistic_regression"}, "input_shape": (8, 8, 1), **overrides})
    settings.data.update({"name": f"npz:{path / 'digits.npz'}", "train": "all", "validation": "", "test": "all"})
    return settings


@pytest.mark.parametrize(("number", "stated"), [(255, {"ignore_label": 255}), (-1, {})], ids=["255", "-1"])
def test_digits_without_labels_have_no_loss_no_metric_and_no_gradient(
    number: int, stated: dict, tmp_path: Path
) -> None:
    settings = config(tmp_path, np.where(MISSING, number, DIGITS.labels), **stated)
    run = runs.prepare(settings, tmp_path)
    found, network = run.sets["train"], run.network(settings)
    missing = found.labels == number  # a file without parts is read in another order
    assert missing.sum() == MISSING.sum()
    assert found.class_names == DIGITS.class_names
    assert known_examples(found).class_counts == tuple(np.bincount(DIGITS.labels[~MISSING]))
    state = jax.jit(lambda: network.init(jax.random.key(0), train.create_optimizer("sgd", 0.1)))()

    def results(chosen: np.ndarray) -> tuple[dict, dict]:
        batch = {name: jnp.asarray(array[chosen]) for name, array in found.fields.items()}
        gradient = jax.grad(lambda params: network.loss(params, state.model_state, batch, jax.random.key(1))[0])
        scores = network.scores(train.averages(train.added({}, jax.jit(network.evaluate)(state, batch))))
        return jax.tree.leaves(jax.jit(gradient)(state.params)), scores

    of_all, of_labelled = results(np.arange(len(found))), results(np.flatnonzero(~missing))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), of_all, of_labelled)
    assert any(np.abs(leaf).max() > 1e-3 for leaf in of_all[0])
    targets = network.task.targets({"label": found.labels, "index": np.arange(len(found))})
    assert [target["label"] == "" for target in targets] == missing.tolist()


def test_a_class_can_be_ignored(tmp_path: Path) -> None:
    found = runs.prepare(config(tmp_path, DIGITS.labels, ignore_label=3), tmp_path).sets["train"]
    assert found.num_classes == 10
    counts = np.bincount(DIGITS.labels)
    counts[3] = 0
    assert known_examples(found).class_counts == tuple(counts)


@pytest.mark.parametrize(
    ("number", "stated", "message"),
    [
        (-7, {}, r"labels from -7 to 9; give class numbers from 0 upwards, and set ignore_label=-7 if -7 means not"),
        (-7, {"ignore_label": 255}, r"labels from -7 to 9; give class numbers from 0 upwards"),
    ],
    ids=["none stated", "another stated"],
)
def test_any_other_label_is_named(number: int, stated: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        runs.prepare(config(tmp_path, np.where(MISSING, number, DIGITS.labels), **stated), tmp_path)


def test_a_label_out_of_range_on_disk_is_named_when_it_is_read() -> None:
    stored = data.as_records(DIGITS)

    def reader(indices: list[int]) -> list[dict]:
        return [{**example, "label": 12} for example in stored.reader(indices)]

    wrong = data.Records("mine", "train", reader, 2, stored.spec, "identity")
    with pytest.raises(UsageError, match="Records 'mine': label: class numbers from 12 to 12, but 10 class_names"):
        wrong.take([0])


def test_a_number_is_stated_for_fields_with_classes_only(tmp_path: Path) -> None:
    numbers = np.zeros(20, np.float32)
    images = np.zeros((20, 8, 8, 1), np.uint8)
    tags = np.tile(np.array([[1, 0, 255]], np.uint8), (20, 1))
    for field, kind, values in (("size", "target", numbers), ("tags", "labels", np.minimum(tags, 1))):
        data.save_npz(
            tmp_path / f"{field}.npz",
            {"all": data.Dataset("mine", "all", {"image": images, field: values}, {"image": "image", field: kind})},
        )
    with np.load(tmp_path / "tags.npz") as stored:
        np.savez(tmp_path / "tags.npz", **{**stored, "tags": tags})
    assert data.open_set(f"npz:{tmp_path / 'tags.npz'}", "all", ignore_label=255).spec["tags"].ignored == 255
    with pytest.raises(UsageError, match="values from 0 to 255"):
        data.open_set(f"npz:{tmp_path / 'tags.npz'}", "all")
    with pytest.raises(UsageError, match="ignore_label=255, but it has no labels"):
        data.open_set(f"npz:{tmp_path / 'size.npz'}", "all", ignore_label=255)


def test_mixing_leaves_out_an_ignored_class() -> None:
    spec = {"image": data.Field("image"), "label": data.Field("label", class_names=("a", "b"), ignored=1)}
    mixup = augment.Augmentation(("mixup(alpha=1.0)",), spec=spec)
    batch = {"image": jnp.zeros((2, 4, 4, 1)), "label": jnp.array([1, 1]), "index": jnp.arange(2)}
    assert not np.any(mixup(jax.random.key(0), batch, step=0, epoch=0)["label"])


def test_chosen_classes_cannot_be_ignored() -> None:
    fields = {"image": DIGITS.images, "label": DIGITS.labels}
    spec = {"image": "image", "label": data.Field("label", class_names=DIGITS.class_names, ignored=3)}
    found = data.Dataset("digits", "all", fields, spec)
    assert found.of_classes((1, 2)).spec["label"].ignored is None
    with pytest.raises(UsageError, match="class 3 is ignored"):
        found.of_classes((2, 3))
