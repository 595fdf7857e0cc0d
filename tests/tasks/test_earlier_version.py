"""A run that was trained by an earlier version is evaluated, used for prediction and continued.

``run_of_an_earlier_version.zip`` was written before tasks had a common contract, with the command that its
``environment.json`` contains. That version also trained the same run with two epochs, for the scores below.
"""

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnn_jax import config as configs
from cnn_jax import experiments, train
from cnn_jax.tasks import run

LOSS_AFTER_TWO_EPOCHS = 2.0359957218170166


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    with zipfile.ZipFile(Path(__file__).parent / "run_of_an_earlier_version.zip") as archive:
        archive.extractall(folder)
    return folder


def test_it_is_evaluated_and_used_for_prediction(earlier: Path, tmp_path: Path) -> None:
    config = configs.read_run_config(earlier)
    experiments.check(config, complete=False)
    run.evaluate(config, earlier, checkpoint="latest", output=str(tmp_path / "predictions.csv"))
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    scores = json.loads((earlier / "result.json").read_text())["scores"]
    assert np.mean([row["label"] == row["class"] for row in rows]) == scores["test/accuracy"]
    cross_entropies = [-np.log(float(row[row["label"]])) for row in rows]
    assert np.mean(cross_entropies) == pytest.approx(scores["test/loss"], rel=1e-4)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    own = tmp_path / "own.csv"
    run.predict(config, earlier, images=[str(tmp_path / "black.png")], output=str(own), checkpoint="best")
    (row,) = csv.DictReader(own.read_text().splitlines())
    assert sum(float(row[str(digit)]) for digit in range(10)) == pytest.approx(1, abs=1e-4)


def test_it_is_continued_as_by_its_own_version(earlier: Path) -> None:
    before = (earlier / "metrics.jsonl").read_text()
    config = configs.read_run_config(earlier)
    config.epochs = 2
    run.train(config, earlier, report=False)
    assert (earlier / "metrics.jsonl").read_text().startswith(before)
    last = train.read_records(earlier)[-1]
    assert (last["step"], last["split"]) == (8, "test")
    assert last["loss"] == pytest.approx(LOSS_AFTER_TWO_EPOCHS, rel=1e-4)
