"""A task in one file (:mod:`tests.tasks.ink`) supports everything that runs do, through ``launch.py``."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.kill import outcome
from cnn_jax import data
from cnn_jax.sweep.table import read_table
from tests.launch.process import ROOT, launch, train
from tests.launch.test_resume import killed

CONFIG = "tests/tasks/ink.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("ink") / "run"
    train(workdir, config=CONFIG)
    return workdir


def truth(images: np.ndarray) -> np.ndarray:
    """Ink and centre, pixel by pixel."""
    rows = []
    for image in images[..., 0] / 255:
        places = np.broadcast_to(-1 + 2 * np.arange(image.shape[1]) / (image.shape[1] - 1), image.shape)
        rows.append((image.mean(), np.average(places, weights=image)))
    return np.array(rows)


def test_it_is_one_short_file() -> None:
    assert len((ROOT / CONFIG).read_text().splitlines()) <= 120


def test_it_learns_and_its_report_has_its_figure(run: Path) -> None:
    scores = json.loads((run / "result.json").read_text())["scores"]
    variance = truth(data.load("digits", "test").images).var(axis=0).mean()
    assert scores["test/loss"] < variance / 2, "no constant does better than the variance"
    page = (run / "report.html").read_text()
    for text in ("Predicted and true values", "test error", "Learning curves", "Through the network"):
        assert text in page


def test_killed_it_continues_to_the_same_bits(run: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    killed(workdir, config=CONFIG, lines=7, saved=True)
    done = launch(f"--workdir={workdir}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "continuing from step" in done.stdout
    assert outcome(workdir) == outcome(run)


def test_evaluation_writes_what_is_right_and_what_is_predicted(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "predictions.csv"
    done = launch("--mode=eval", f"--workdir={run}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(output.read_text().splitlines()))
    true = np.array([[float(row["true ink"]), float(row["true centre"])] for row in rows])
    np.testing.assert_allclose(true, truth(data.load("digits", "test").images), atol=1e-5)
    predicted = np.array([[float(row["ink"]), float(row["centre"])] for row in rows])
    scores = json.loads((run / "result.json").read_text())["scores"]
    assert np.abs(predicted - true).mean() == pytest.approx(scores["test/error"], rel=1e-3)
    assert np.square(predicted - true).mean() == pytest.approx(scores["test/loss"], rel=1e-3)
    assert f"{scores['test/error']:.3g}" in done.stdout


def test_prediction_of_a_users_own_image(run: Path, tmp_path: Path) -> None:
    image = (load_digits().images[:1, ..., None] * 255 / 16).astype(np.uint8)
    Image.fromarray(image[0, ..., 0]).save(tmp_path / "digit.png")
    output = tmp_path / "out.csv"
    done = launch("--mode=predict", f"--workdir={run}", f"--images={tmp_path / 'digit.png'}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader(output.read_text().splitlines())
    assert float(row["ink"]) == pytest.approx(truth(image)[0, 0], abs=0.1)


def test_an_ensemble_is_averaged(tmp_path: Path) -> None:
    short = ["--config.ensemble=2", "--config.duration=40 steps"]
    train(tmp_path / "run", *short, config=CONFIG)
    scores = json.loads((tmp_path / "run" / "result.json").read_text())["scores"]
    each = [scores["test/error_1"], scores["test/error_2"]]
    assert scores["test/error"] <= np.mean(each), "absolute values are convex"
    assert "averaged prediction" in (tmp_path / "run" / "report.html").read_text()


def test_a_sweep_trains_its_trials_in_one_program(tmp_path: Path) -> None:
    sweep = "--sweep=optimizer.learning_rate=0.001,0.003; ink_weight=0.5,2.0"
    short = ["--config.duration=40 steps", "--noreports", "--runner=vectorized"]
    done = launch(f"--config={CONFIG}", "--mode=sweep", f"--workdir={tmp_path / 'sweep'}", sweep, *short)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_table(tmp_path / "sweep")
    assert [row.state for row in rows] == ["complete"] * 4
    assert "4 trials in one program" in (tmp_path / "sweep/trials/0000/log.txt").read_text()
    assert len({row.score for row in rows}) == 4
    best = min(rows, key=lambda row: row.score or 0.0)
    assert f"the best is trial {best.number}" in done.stdout, "a lower error is better"
