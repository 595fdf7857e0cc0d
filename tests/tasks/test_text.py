"""A classification of texts: a run, and predictions of own sentences."""

import csv
import json
from pathlib import Path

import pytest

from cnn_jax.experiments import find
from cnn_jax.tasks import default_config


def sentences(first: int, last: int) -> str:
    """The class is whether one of two words is there, at any place, among words that say nothing."""
    fillers = ("the", "film", "was", "so", "very")
    lines = []
    for number in range(first, last):
        words = [fillers[(number + place) % len(fillers)] for place in range(1 + number % 5)]
        words.insert(number // 2 % (len(words) + 1), ("awful", "lovely")[number % 2])
        lines.append(f"{('bad', 'good')[number % 2]}\t{' '.join(words)}\n")
    return "".join(lines)


def test_a_network_learns_texts_and_predicts_own_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, (first, last) in {"train": (0, 200), "test": (200, 240)}.items():
        (tmp_path / f"{part}.txt").write_text(sentences(first, last))
    settings = default_config()
    settings.data.name, settings.data.validation, settings.input_shape = f"text:{tmp_path}", "", (8,)
    settings.model.name, settings.model.width = "text_cnn", 0.05
    settings.model.options = {"vocabulary_size": 20, "features": 8, "windows": (2,)}
    settings.batch_size, settings.epochs, settings.evaluate_every = 16, 5, "5 epochs"
    settings.optimizer.name, settings.optimizer.learning_rate = "adam", 0.03
    find(settings).train(settings, tmp_path / "run", report=False)
    assert json.loads((tmp_path / "run/result.json").read_text())["scores"]["test/accuracy"] == 1

    own, output = tmp_path / "own.txt", tmp_path / "own.csv"
    own.write_text("A lovely story\n\nAwful!\n")
    find(settings).predict(settings, tmp_path / "run", images=[str(own)], output=str(output), checkpoint="latest")
    rows = list(csv.DictReader(output.read_text().splitlines()))
    assert [(row["text"], row["class"]) for row in rows] == [(f"{own}:1", "good"), (f"{own}:3", "bad")]
    capsys.readouterr()
