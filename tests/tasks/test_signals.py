"""A classification of signals from a .npz file: a run and its report without images, and predictions of own series."""

import csv
import json
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from cnn_jax import data, geometry, models, nn
from cnn_jax.errors import PartlyFailedError, UsageError
from cnn_jax.experiments import find
from cnn_jax.tasks import default_config
from cnn_jax.tasks.saved import load_run

LENGTH = 32


def tiny_network(*, num_classes, input_shape, width, dtype, rngs):
    conv = partial(nn.Conv, dtype=dtype, rngs=rngs)
    layers = {"conv": conv(input_shape[-1], 8, (5,)), "relu": jax.nn.relu, "pool": nn.MaxPool((4,))}
    shape = geometry.output_shape(layers, input_shape)
    output = nn.Linear(shape[0] * shape[1], num_classes, dtype=dtype, rngs=rngs)
    return nn.Sequence({**layers, "flatten": nn.Flatten(shape), "output": output})


TINY = models.Variant(tiny_network, input_shape=(LENGTH, 2), num_classes=2)


def waves(count: int) -> data.Dataset:
    """Slow and fast waves of any phase, one channel in units a thousand times those of the other."""
    generator = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int32) % 2
    phase = generator.uniform(0, 2 * np.pi, (count, 1))
    wave = np.sin(2 * np.pi * (2 + 3 * labels[:, None]) * np.arange(LENGTH) / LENGTH + phase)
    signals = np.stack([wave, 500 + 1000 * generator.standard_normal(wave.shape)], axis=-1).astype(np.float32)
    spec = {"ecg": "signal", "rhythm": data.Field("label", class_names=("slow", "fast"))}
    return data.Dataset("waves", "all", {"ecg": signals, "rhythm": labels}, spec)


def config(folder: Path) -> ConfigDict:
    settings = default_config()
    settings.model.name, settings.input_shape = f"{__name__}:TINY", (LENGTH, 2)
    settings.data.name = f"npz:{folder / 'waves.npz'}"
    settings.batch_size, settings.epochs = 32, 4
    settings.optimizer.name, settings.optimizer.learning_rate = "adam", 0.01
    return settings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    data.save_npz(folder / "waves.npz", {"all": waves(400)})
    settings = config(folder)
    find(settings).train(settings, folder / "run")
    return folder / "run"


def test_a_network_of_signals_learns_and_its_report_shows_signals(run: Path) -> None:
    scores = json.loads((run / "result.json").read_text())["scores"]
    assert scores["test/accuracy"] > 0.9
    page = (run / "report.html").read_text()
    for title in ("Learning curves", "Confusion matrix", "Training signals", "First-layer filters"):
        assert title in page
    assert "Through the network" in page
    assert "Training images" not in page
    assert "40 test signals" in page
    assert "32x8" in page, "the table of the network has the shapes of its layers"


def test_own_series_are_predicted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The test set in a .ts file gets the predictions of the test set, and a series of another length a reason."""
    settings, output = config(run.parent), run.parent / "own.csv"
    test_set = data.load(f"npz:{run.parent / 'waves.npz'}", "test")
    lines = [":".join(",".join(map(str, channel)) for channel in signal.T.tolist()) for signal in test_set.inputs]
    file = run.parent / "own.ts"
    file.write_text("@classLabel false\n@data\n" + "\n".join([*lines, "1,2,3:1,2,3"]))
    with pytest.raises(PartlyFailedError, match="1 of 41 signals cannot be read"):
        find(settings).predict(settings, run, images=[str(file)], output=str(output), checkpoint="latest")
    *rows, refused = csv.DictReader(output.read_text().splitlines())
    right = np.mean([test_set.class_names[n] == row["class"] for n, row in zip(test_set.labels, rows, strict=True)])
    assert right == pytest.approx(json.loads((run / "result.json").read_text())["scores"]["test/accuracy"])
    assert refused["note"] == "has 3 values of 2 channels, not 32 of 2 as those of the run"
    assert refused["signal"] == f"{file}:43"
    capsys.readouterr()


def test_signals_are_normalised_by_channel(run: Path) -> None:
    train_set = data.load(f"npz:{run.parent / 'waves.npz'}", "train")
    network, _ = load_run(config(run.parent), run)
    normalised = np.asarray(network.preprocess(train_set.inputs), np.float64)
    np.testing.assert_allclose(normalised.mean(axis=(0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(normalised.std(axis=(0, 1)), 1, atol=1e-4)


def test_evaluation_and_predictions_of_signals(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, output = config(run.parent), run.parent / "predictions.csv"
    find(settings).evaluate(settings, run, checkpoint="latest", output=str(output))
    assert "test signals" in capsys.readouterr().out
    rows = list(csv.DictReader(output.read_text().splitlines()))
    right = np.mean([row["label"] == row["class"] for row in rows])
    assert right == pytest.approx(json.loads((run / "result.json").read_text())["scores"]["test/accuracy"])


def test_a_run_of_signals_is_continued_to_the_same_bits(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, workdir = config(run.parent), run.parent / "continued"
    experiment = find(settings)

    def stop(evaluation: int, _scores: object) -> None:
        if evaluation == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment.train(settings, workdir, report=False, on_evaluation=stop)
    experiment.train(settings, workdir, report=False)
    assert (workdir / "result.json").read_bytes() == (run / "result.json").read_bytes()
    assert (workdir / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


def test_the_table_of_a_network_of_signals(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = config(run.parent)
    find(settings).summary(settings, output=str(run.parent / "network.png"))
    assert "input 32x2, 2 outputs" in capsys.readouterr().out


def test_of_several_inputs_the_one_called_by_its_kind_is_taken() -> None:
    pixels = np.zeros((2, 4, 4, 1), np.uint8)
    made = partial(data.Dataset, "pairs", "all")
    assert made({"image": pixels, "depth": pixels}, {"image": "image", "depth": "image"}).input_name == "image"
    with pytest.raises(UsageError, match=r"several fields .*: left, right; call one of them 'image'"):
        _ = made({"left": pixels, "right": pixels}, {"left": "image", "right": "image"}).input_name
