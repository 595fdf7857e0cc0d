"""Several classes per image: losses and scores against scikit-learn, and a run with all modes."""

import csv
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn import metrics as reference

from cnn_jax import data, train
from cnn_jax.errors import UsageError
from cnn_jax.experiments import find
from cnn_jax.tasks import Examples, MultiLabel, default_config
from cnn_jax.tasks.task import Results
from tests.tasks.small import small_ensemble

NAMES = ("a", "b", "c")
GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.standard_normal((40, 3)).astype(np.float32)
LABELS = (GENERATOR.random((40, 3)) < 0.4).astype(np.float32)
PROBABILITIES = 1 / (1 + np.exp(-LOGITS))


def task(ignored: int | None = None, **overrides) -> MultiLabel:
    settings = default_config("multi_label")
    settings.update(overrides)
    spec = {"image": data.Field("image"), "tags": data.Field("labels", class_names=NAMES, ignored=ignored)}
    return MultiLabel(settings, Examples("mine", spec))


def scores(chosen: MultiLabel, labels: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    batch = {"tags": jnp.asarray(labels), "mask": jnp.asarray(mask)}
    return chosen.scores(train.averages(train.added({}, jax.jit(chosen.measure)(LOGITS, batch))))


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_scores_are_those_of_scikit_learn(threshold: float) -> None:
    mask = np.array([1] * 37 + [0] * 3)
    found = scores(task(threshold=threshold), LABELS, mask)
    true, predicted = LABELS[:37], PROBABILITIES[:37] > threshold
    assert found == pytest.approx(
        {
            "loss": reference.log_loss(true.ravel(), PROBABILITIES[:37].ravel()),
            "subset_accuracy": reference.accuracy_score(true, predicted),
            "macro_f1": reference.f1_score(true, predicted, average="macro"),
        },
        rel=1e-5,
    )


def test_unknown_labels_have_no_loss_no_gradient_and_no_score() -> None:
    """Labels of -1, and logits that would be NaN if they were used."""
    known = GENERATOR.random(LABELS.shape) < 0.7
    known[:2] = False
    labels, chosen = np.where(known, LABELS, -1), task(ignored=-1)
    logits = jnp.asarray(np.where(known, LOGITS, np.nan))
    loss, gradient = jax.jit(jax.value_and_grad(chosen.loss))(logits, {"tags": jnp.asarray(labels)})
    assert float(loss) == pytest.approx(reference.log_loss(LABELS[known], PROBABILITIES[known]), rel=1e-5)
    assert not np.any(gradient[~known])
    assert np.isfinite(gradient).all()
    found = scores(chosen, labels, np.ones(40))
    f1 = [reference.f1_score(LABELS[known[:, k], k], PROBABILITIES[known[:, k], k] > 0.5) for k in range(3)]
    right = ((PROBABILITIES > 0.5) == LABELS) | ~known
    assert found["macro_f1"] == pytest.approx(np.mean(f1), rel=1e-5)
    assert found["subset_accuracy"] == pytest.approx(right[2:].all(axis=1).mean(), rel=1e-5)
    nothing = {"tags": jnp.full((40, 3), -1.0)}
    assert float(jax.jit(chosen.loss)(LOGITS, nothing)) == 0


def test_each_loss_is_its_definition() -> None:
    there, absent = -np.log(PROBABILITIES), -np.log(1 - PROBABILITIES)
    weights = np.array([1.0, 2.0, 5.0])
    smooth = 0.8 * LABELS + 0.1
    for overrides, expected in [
        ({"pos_weight": tuple(weights)}, weights * LABELS * there + (1 - LABELS) * absent),
        ({"label_smoothing": 0.2}, smooth * there + (1 - smooth) * absent),
        (
            {"loss": "focal", "focal_gamma": 1.5, "focal_alpha": 0.4},
            0.4 * LABELS * (1 - PROBABILITIES) ** 1.5 * there + 0.6 * (1 - LABELS) * PROBABILITIES**1.5 * absent,
        ),
    ]:
        found = jax.jit(task(**overrides).loss)(LOGITS, {"tags": jnp.asarray(LABELS)})
        np.testing.assert_allclose(found, expected.mean(), rtol=1e-5, err_msg=str(overrides))


def test_networks_are_averaged_by_their_probabilities() -> None:
    chosen, several = task(), jnp.asarray(np.stack([LOGITS, 2 * LOGITS, LOGITS + 1]))
    expected = (1 / (1 + np.exp(-np.asarray(several)))).mean(axis=0)
    np.testing.assert_allclose(chosen.predict(chosen.average(several)), expected, rtol=1e-5)


def test_report_has_the_scores_of_each_class() -> None:
    spec = {"image": "image", "tags": data.Field("labels", class_names=NAMES)}
    test_set = data.Dataset("mine", "test", {"image": np.zeros((40, 4, 4, 1), np.uint8), "tags": LABELS}, spec)
    chosen = task()
    probabilities = PROBABILITIES.round(1)  # with ties
    results = Results(chosen.config, test_set, 40, probabilities, {"test/macro_f1": 0.5, "test/subset_accuracy": 0.1})
    classes, curves = chosen.sections(results)
    predicted = probabilities > 0.5
    expected = reference.classification_report(LABELS, predicted, target_names=NAMES, output_dict=True, zero_division=0)
    averages = reference.average_precision_score(LABELS, probabilities, average=None)
    for row, name, average in zip(classes.table.rows, NAMES, averages, strict=False):
        numbers = [expected[name][score] for score in ("precision", "recall", "f1-score")]
        assert row == [name, *(f"{number:.2%}" for number in (*numbers, average)), f"{expected[name]['support']:.0f}"]
    assert classes.table.rows[-1][3] == f"{expected['macro avg']['f1-score']:.2%}"
    assert len(curves.figure.axes[0].lines) == 3
    assert chosen.headlines(results)[1].value == f"{averages.mean():.2%}"


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ({"loss": "sigmoid"}, "loss='sigmoid' is unknown"),
        ({"threshold": 1.0}, "threshold=1.0 must be"),
        ({"pos_weight": (1.0,)}, "pos_weight has 1 numbers for 3 classes"),
        ({"loss": "focal", "pos_weight": (1.0, 1.0, 1.0)}, "loss='focal' has no pos_weight"),
        ({"loss": "focal", "focal_alpha": 2.0}, "focal_alpha"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
    ],
    ids=str,
)
def test_mistakes_are_named(overrides: dict, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        task(**overrides)
    assert part in str(caught.value)


def test_data_without_such_labels_are_rejected() -> None:
    with pytest.raises(UsageError, match=r"'digits' has no field of kind labels; it has image \(image\), label"):
        MultiLabel(default_config("multi_label"), Examples("digits", data.load("digits", "test").spec))


def config() -> ConfigDict:
    return small_ensemble("digits_multi_label")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("multi_label") / "run"
    find(config()).train(config(), workdir)
    return workdir


def test_an_ensemble_is_trained_and_its_predictions_are_written(run: Path) -> None:
    output = run.parent / "predictions.csv"
    find(config()).evaluate(config(), run, checkpoint="latest", output=str(output))
    rows = list(csv.DictReader(output.read_text().splitlines()))
    found = json.loads((run / "result.json").read_text())["scores"]
    names = [str(digit) for digit in range(10)]
    true = np.array([[name in row["labels"].split(";") for name in names] for row in rows])
    predicted = np.array([[float(row[name]) > 0.5 for name in names] for row in rows])
    assert len(rows) == 300
    assert [row["classes"] for row in rows] == [
        ";".join(name for name, is_there in zip(names, row, strict=True) if is_there) for row in predicted
    ]
    assert found["test/macro_f1"] == pytest.approx(
        reference.f1_score(true, predicted, average="macro", zero_division=0), abs=1e-3
    )
    assert {"test/macro_f1_1", "test/macro_f1_2"} <= set(found)
    page = (run / "report.html").read_text()
    for text in ("Precision and recall", "average precision", "test macro F1", "averaged prediction"):
        assert text in page


def test_a_users_own_image_has_a_probability_of_each_class(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    image, output = run.parent / "digits.png", run.parent / "own.csv"
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(image)
    find(config()).predict(config(), run, images=[str(image)], output=str(output), checkpoint="best")
    (row,) = csv.DictReader(output.read_text().splitlines())
    assert list(row) == ["image", "classes", *map(str, range(10)), "assumed", "note"]
    assert "classes" in capsys.readouterr().out
