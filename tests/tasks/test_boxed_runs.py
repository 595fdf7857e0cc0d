"""Runs of all tasks of boxes: killed and continued, as an ensemble, in a sweep, and on the user's own images."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from cnn_jax import data, tasks
from cnn_jax.sweep import vectorized
from cnn_jax.sweep.trial import Trial, trial_directory
from cnn_jax.tasks import run as runs
from cnn_jax.tasks.saved import load_run
from tests.tasks.interrupted import train_interrupted

BOXED = """
import jax
import numpy as np
from cnn_jax import data, models, nn

def cells(*, num_classes, input_shape, width, dtype, rngs, prototypes=0):
    layers = {"conv": nn.Conv(1, 8, (4, 4), 4, rngs=rngs), "relu": jax.nn.relu}
    return nn.Sequence({**layers, "output": nn.Conv(8, num_classes, (1, 1), rngs=rngs)})

def whole(*, num_classes, input_shape, width, dtype, rngs):
    return nn.Sequence({"flatten": nn.Flatten(input_shape), "output": nn.Linear(16 * 24, num_classes, rngs=rngs)})

CELLS, WHOLE = models.Variant(cells, (16, 24, 1), 6), models.Variant(whole, (16, 24, 1), 6)

def squares(split, **_):
    generator = np.random.default_rng(len(split))
    images, objects = np.zeros((8, 16, 24, 1), np.uint8), np.zeros((8, 16, 24), np.uint8)
    corners = generator.integers(0, 9, (8, 2))
    for image, own, (top, left) in zip(images, objects, corners):
        image[top : top + 6, left : left + 8], own[top : top + 6, left : left + 8] = 200, 1
    boxes = [[(top, left, top + 6, left + 8)] for top, left in corners]
    labels = [[number % 2] for number in range(8)]
    return data.from_boxes("squares", split, images, boxes, labels, class_names=("even", "odd"), objects=objects)
"""
BOXES = ("localization", *(pytest.param(n, marks=pytest.mark.slow) for n in ("detection", "instance_segmentation")))


def boxed(folder: Path, task: str, **overrides: object) -> ConfigDict:
    config = tasks.default_config(task)
    config.data.name, config.input_shape = f"{folder / 'boxed.py'}:squares", (16, 24, 1)
    config.model.name = f"{folder / 'boxed.py'}:{'WHOLE' if task == 'localization' else 'CELLS'}"
    if task == "instance_segmentation":
        config.model.options.prototypes = 2
    if task != "localization":
        config.max_detections = 4
    config.data.validation, config.data.augment = "", ("flip",)
    config.batch_size, config.duration, config.evaluate_every = 8, "4 steps", "2 steps"
    config.optimizer.name, config.optimizer.learning_rate = "adam", 0.01
    config.update(overrides)
    return config


@pytest.fixture(scope="module", params=BOXES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ConfigDict, Path]:
    """Two networks to the end, and the same killed at the first evaluation and continued."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "boxed.py").write_text(BOXED)
    config = boxed(folder, request.param, ensemble=2)
    runs.train(config, folder / "whole", report=False)
    train_interrupted(config, folder / "killed")
    return config, folder


def test_killed_it_continues_to_the_same_bits(run: tuple[ConfigDict, Path]) -> None:
    _, folder = run
    whole, killed = (json.loads((folder / name / "result.json").read_text()) for name in ("whole", "killed"))
    assert whole == killed


def test_an_ensemble_has_a_score_of_each_network_and_of_both(run: tuple[ConfigDict, Path]) -> None:
    config, folder = run
    scores = json.loads((folder / "whole/result.json").read_text())["scores"]
    first = tasks.TASKS[config.experiment].metrics(config)[0].name
    assert {f"test/{first}", f"test/{first}_1", f"test/{first}_2"} <= set(scores)


def test_predictions_are_in_pixels_of_the_user_s_images(run: tuple[ConfigDict, Path]) -> None:
    """A folder of images of two sizes, of which one has twice the network's, and one that is no image."""
    config, folder = run
    own = folder / "own"
    own.mkdir()
    small = data.load(config.data.name, "test").images[0, ..., 0]
    Image.fromarray(small.repeat(2, axis=0).repeat(2, axis=1)).save(own / "large.png")
    Image.fromarray(small).save(own / "small.png")
    output = folder / "out"
    runs.predict(config, folder / "whole", images=[str(own)], output=str(output), checkpoint="latest")
    content = json.loads((output / "boxes.json").read_text())
    sizes = {Path(one["file_name"]).name: (one["height"], one["width"]) for one in content["images"]}
    assert sizes == {"large.png": (32, 48), "small.png": (16, 24)}
    with Image.open(output / "large.png") as picture:
        assert picture.size[0] % 48 == 0, "the picture is of the user's image"
    rows = {Path(row["image"]).name: row for row in csv.DictReader((output / "boxes.csv").read_text().splitlines())}
    if config.experiment == "localization":
        network, state = load_run(config, folder / "whole")
        for name, factor in (("small.png", 1), ("large.png", 2)):
            read = data.read_image(own / name, height=16, width=24, channels=1, invert=False).pixels
            found = [float(rows[name][side]) for side in ("top", "left", "bottom", "right")]
            np.testing.assert_allclose(found, factor * network.predict(state, read[None])[0, -4:], atol=0.01)
    if config.experiment == "instance_segmentation":
        shapes = {tuple(one["segmentation"]["size"]) for one in content["annotations"]}
        assert shapes <= {(32, 48), (16, 24)}


@pytest.mark.slow
@pytest.mark.parametrize("task", BOXES)
def test_trials_of_a_sweep_are_trained_together(task: str, tmp_path: Path) -> None:
    (tmp_path / "boxed.py").write_text(BOXED)
    trials = []
    for number, rate in enumerate((0.001, 0.01)):
        config = boxed(tmp_path, task, duration="2 steps")
        config.optimizer.learning_rate = rate
        trials.append(Trial(number, {"optimizer.learning_rate": rate}, config, trial_directory(tmp_path, number)))
    options = {"train": runs.train, "metric": "test/loss", "reports": False}
    outcomes = list(vectorized.run_vectorized(trials, report=lambda *_: False, **options))
    assert [outcome.state for outcome in outcomes] == ["complete"] * 2
    assert len({outcome.score for outcome in outcomes}) == 2
