"""Meaningless settings are rejected, or cause a warning on the terminal, in data.json and in the report."""

import json

import numpy as np
import pytest

from cnn_jax import data
from cnn_jax.errors import UsageError
from cnn_jax.tasks import default_config
from cnn_jax.tasks import run as runs
from cnn_jax.tasks.sets import load_sets, warnings_about


def config(**changes):
    result = default_config()
    result.input_shape, result.model.name, result.epochs = (8, 8, 1), "logistic_regression", 1
    result.data.update(changes)
    return result


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"classes": (0, 0)}, "class 0 is chosen twice in classes=(0, 0)"),
        ({"classes": (7, 1, 7)}, "class 7 is chosen twice in classes=(7, 1, 7)"),
        ({"classes": (3,)}, "needs training examples of two classes at least, but there are only those of '3'"),
        ({"classes": (3, 10)}, "class 10 is not one of 0 to 9"),
        ({"train": "train[:1]"}, "needs training examples of two classes at least"),
        ({"train": "train[-0.01%:]"}, "-0.01% of 1297 examples is none"),
    ],
)
def test_data_with_nothing_to_learn_are_rejected(tmp_path, changes, complaint):
    with pytest.raises(UsageError) as caught:
        runs.prepare(config(**changes), tmp_path)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scored_examples_that_are_in_the_training_set_are_counted(tmp_path, capsys):
    warnings = warnings_about(load_sets(config(test="train", validation="validation+train[:50]"), tmp_path))
    assert [warning.split(" are also")[0] for warning in warnings] == [
        "50 of the 250 validation examples (20.0%)",
        "1,297 of the 1,297 test examples (100.0%)",
    ]
    assert all(f"warning: {warning}\n" in capsys.readouterr().out for warning in warnings[:1])
    assert warnings_about(load_sets(config(), tmp_path)) == []
    (warning,) = warnings_about(load_sets(config(train="train[:5]", validation=""), tmp_path))
    missing = sorted(set("0123456789") - set(map(str, data.load("digits", "train[:5]").labels)))
    assert warning == f"{len(missing)} of 10 classes have no training example: {', '.join(missing)}"


def test_the_report_shows_warnings_and_training_images(tmp_path, capsys):
    settings = config(test="train[:30]", augment=("flip", "cutout"))
    runs.train(settings, tmp_path / "run")
    (warning,) = json.loads((tmp_path / "run" / "data.json").read_text())["warnings"]
    assert warning.startswith("30 of the 30 test examples (100.0%) are also training examples")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "30 of the 30 test examples" in page
    assert "Augmented by flip, cutout." in page
    assert (tmp_path / "run" / "figures" / "training-images.png").stat().st_size > 0
    runs.evaluate(settings, tmp_path / "run", checkpoint="latest")
    assert capsys.readouterr().out.count(f"warning: {warning}") == 2
    assert np.isfinite(json.loads((tmp_path / "run" / "result.json").read_text())["scores"]["test/accuracy"])
