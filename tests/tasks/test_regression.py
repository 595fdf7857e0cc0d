"""Real numbers per image: scores against scikit-learn, and a run and a sweep that give the units of the user."""

import csv
import json
import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn import metrics as reference

from cnn_jax import data, train
from cnn_jax.config import load_config
from cnn_jax.errors import UsageError
from cnn_jax.experiments import find
from cnn_jax.sweep import space
from cnn_jax.sweep.settings import Sweep, SweepPlace
from cnn_jax.sweep.store import Store
from cnn_jax.sweep.table import best_row
from cnn_jax.sweep.worker import work
from cnn_jax.tasks import Regression, default_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks.saved import load_run
from cnn_jax.tasks.sets import known_examples
from cnn_jax.tasks.task import Results
from tests.launch.process import ROOT
from tests.tasks.small import small_ensemble

COUNT = 30
GENERATOR = np.random.default_rng(0)
PLACE = (1000 + 50 * GENERATOR.standard_normal((COUNT, 2))).astype(np.float32)
AREA = GENERATOR.random(COUNT).astype(np.float32) / 100
TRUE = np.column_stack([PLACE, AREA]).astype(np.float64)
FIELDS = {"image": np.zeros((COUNT, 4, 4, 1), np.uint8), "place": PLACE, "area": AREA}
SPEC = {"image": "image", "place": "target", "area": "target"}
SET = data.Dataset("mine", "train", FIELDS, SPEC)
STANDARDISED = (TRUE - TRUE.mean(axis=0)) / TRUE.std(axis=0)
OUTPUTS = (STANDARDISED + 0.3 * GENERATOR.standard_normal(TRUE.shape)).astype(np.float32)


def task(found: data.Dataset = SET, **overrides) -> Regression:
    settings = default_config("regression")
    settings.update(overrides)
    return Regression(settings, known_examples(found))


def batch(mask: np.ndarray | None = None) -> dict[str, jax.Array]:
    fields = {name: jnp.asarray(array) for name, array in FIELDS.items()}
    return fields if mask is None else fields | {"mask": jnp.asarray(mask)}


def test_scores_are_those_of_scikit_learn_in_the_units_of_the_targets() -> None:
    chosen, mask = task(), np.array([1] * 25 + [0] * 5)
    assert chosen.outputs == ("place_1", "place_2", "area")
    found = chosen.scores(train.averages(train.added({}, jax.jit(chosen.measure)(OUTPUTS, batch(mask)))))
    true, predicted = TRUE[:25], np.asarray(chosen.predict(jnp.asarray(OUTPUTS)))[:25]
    options = {"multioutput": "raw_values"}
    mae, mse = (
        error(true, predicted, **options) for error in (reference.mean_absolute_error, reference.mean_squared_error)
    )
    r2 = reference.r2_score(true, predicted, **options)
    deviation = TRUE.std(axis=0)
    expected = {"mae": (mae / deviation).mean(), "rmse": np.sqrt((mse / deviation**2).mean()), "r2": r2.mean()}
    expected["loss"] = (mse / deviation**2).mean()
    for number, name in enumerate(chosen.outputs):
        expected |= {f"{name}_mae": mae[number], f"{name}_rmse": mse[number] ** 0.5, f"{name}_r2": r2[number]}
    assert found == pytest.approx(expected, rel=1e-3)
    assert chosen.describe(found)["area"].startswith(f"MAE {mae[2]:.3g}")


@pytest.mark.parametrize(
    ("overrides", "of_error"),
    [
        ({}, np.square),
        ({"loss": "mae"}, np.abs),
        (
            {"loss": "huber", "huber_delta": 0.2},
            lambda error: np.where(np.abs(error) < 0.2, error**2 / 2, 0.2 * (np.abs(error) - 0.1)),
        ),
    ],
    ids=["mse", "mae", "huber"],
)
def test_each_loss_is_its_definition(overrides: dict, of_error) -> None:
    found = jax.jit(task(**overrides).loss)(OUTPUTS, batch())
    assert float(found) == pytest.approx(of_error(OUTPUTS - STANDARDISED).mean(), rel=1e-3)


def test_a_target_that_never_changes_in_a_set_has_no_r2() -> None:
    means = {name: np.ones(1) for name in ("absolute", "squared", "target", "target_squared")}
    one = task(
        data.Dataset("one", "train", {"image": FIELDS["image"], "area": AREA}, {"image": "image", "area": "target"})
    )
    assert one.scores(means)["area_r2"] == 0


def test_report_compares_predicted_and_true_values() -> None:
    chosen = task()
    predictions = np.asarray(chosen.predict(jnp.asarray(OUTPUTS)))
    scores = chosen.scores(train.averages(train.added({}, jax.jit(chosen.measure)(OUTPUTS, batch()))))
    results = Results(chosen.config, SET, COUNT, predictions, {f"test/{name}": value for name, value in scores.items()})
    table, figure = chosen.sections(results)
    assert [row[0] for row in table.table.rows] == ["place_1", "place_2", "area"]
    left, right = figure.figure.axes[4:6]
    np.testing.assert_allclose(left.collections[0].get_offsets(), np.column_stack([TRUE[:, 2], predictions[:, 2]]))
    np.testing.assert_allclose(right.collections[0].get_offsets()[:, 1], predictions[:, 2] - AREA, atol=1e-9)
    assert chosen.targets(FIELDS)[0]["true area"] == pytest.approx(AREA[0])


@pytest.mark.parametrize(
    ("fields", "kinds", "part"),
    [
        (
            {"label": np.arange(COUNT, dtype=np.int32) % 2},
            {"label": data.Field("label", class_names=("a", "b"))},
            "no field of kind target",
        ),
        ({"map": np.zeros((COUNT, 4, 4), np.float32)}, {"map": "target"}, "map has shape (4, 4)"),
        ({"area": np.full(COUNT, 3, np.float32)}, {"area": "target"}, "target area is 3 in all training examples"),
    ],
    ids=["no target", "a map", "a constant"],
)
def test_data_that_cannot_be_learned_are_rejected(fields: dict, kinds: dict, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        task(data.Dataset("mine", "train", {"image": FIELDS["image"]} | fields, {"image": "image"} | kinds))
    assert part in str(caught.value)


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(UsageError, match="loss='rmse' is unknown; did you mean 'mse'"):
        task(loss="rmse")


def config() -> ConfigDict:
    return small_ensemble("digits_regression")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("regression") / "run"
    find(config()).train(config(), workdir)
    return workdir


def test_evaluation_writes_values_in_the_units_of_the_targets(run: Path) -> None:
    output = run.parent / "predictions.csv"
    find(config()).evaluate(config(), run, checkpoint="latest", output=str(output))
    rows = list(csv.DictReader(output.read_text().splitlines()))
    true, predicted = (
        np.array([[float(row[f"{prefix}{name}"]) for name in ("angle", "ink")] for row in rows])
        for prefix in ("true ", "")
    )
    assert -45 <= true[:, 0].min() < -40, "degrees"
    found = json.loads((run / "result.json").read_text())["scores"]
    each = [found["test/mae_1"], found["test/mae_2"]]
    assert found["test/mae"] <= np.mean(each), "absolute values are convex"
    for number, name in enumerate(("angle", "ink")):
        error = np.abs(predicted - true)[:, number].mean()
        assert found[f"test/{name}_mae"] == pytest.approx(error, rel=1e-3)
    page = (run / "report.html").read_text()
    for text in ("Predicted and true values", "Targets", "test R²", "averaged prediction"):
        assert text in page


def test_predictions_need_no_training_set(run: Path) -> None:
    """The statistics of the targets are in the folder of the run."""
    from PIL import Image

    image, output = run.parent / "digit.png", run.parent / "own.csv"
    pixels = data.load("digits", "test").images[0, ..., 0]
    Image.fromarray(pixels).save(image)
    find(config()).predict(config(), run, images=[str(image)], output=str(output), checkpoint="latest")
    (row,) = csv.DictReader(output.read_text().splitlines())
    network, _ = load_run(config(), run)
    statistics = json.loads((run / "data.json").read_text())["targets"]
    centre = np.asarray(network.task.predict(jnp.zeros((1, 2))))[0]
    np.testing.assert_allclose(centre, [*statistics["angle"]["mean"], *statistics["ink"]["mean"]], rtol=1e-6)
    assert abs(float(row["ink"]) - centre[1]) < 10 * statistics["ink"]["std"][0]


def test_a_sweep_prefers_the_lower_error(tmp_path: Path) -> None:
    settings, part = config(), space.sweep("optimizer.learning_rate", [1e-6, 0.003])
    settings.ensemble = 1
    metric = runs.metrics(settings)[0].of("test")
    sweep = Sweep(settings, part, "cnn_jax.tasks.run:train", metric, 2, sampler="grid", reports=False)
    store = Store(SweepPlace(tmp_path), sweep)
    work(store)
    rows = store.rows()
    assert [row.state for row in rows] == ["complete"] * 2
    best = best_row(rows, metric)
    assert best is not None
    assert best.score == min(row.score for row in rows)
    assert best.overrides["optimizer.learning_rate"] == 0.003


def test_the_example_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/your_own_data.md").read_text()
    files = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.S))
    for name in ("make_arrays.py", "my_regression.py"):
        Path(name).write_text(files[name])
    runpy.run_path("make_arrays.py")
    assert runs.untrained(load_config("my_regression.py")).task.outputs == ("ink",)
