"""Captioning: loss and scores against loops over words, wrong configs, and one small run to its report."""

import csv
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cnn_jax import data, train
from cnn_jax.errors import UsageError
from cnn_jax.tasks import Captioning, Examples, default_config
from cnn_jax.tasks import run as runs
from tests.tasks.interrupted import train_interrupted

WORDS = ("<padding>", "<unknown>", "a", "bag", "shirt", "left")
SPEC = {
    "image": data.Field("image", (8, 8, 1), "uint8"),
    "caption": data.Field("text", (5,), "int32", WORDS, count="n"),
    "n": data.Field("count", (), "int32"),
    "combination": data.Field("labels", (2,), "uint8", ("seen", "held_out")),
}
CAPTIONS = np.array([[2, 3, 0, 0, 0], [2, 4, 5, 3, 0], [2, 4, 0, 0, 0], [3, 2, 3, 2, 4]], np.int32)
COUNTS = np.array([2, 4, 2, 5], np.int32)
KINDS = np.array([[1, 0], [0, 1], [0, 1], [1, 0]], np.uint8)
WRITTEN = np.array([[2, 3, 0, 0, 0, 0], [2, 4, 3, 0, 0, 0], [2, 4, 4, 4, 0, 0], [3, 2, 3, 2, 4, 4]], np.int32)
EXACT = [1, 0, 0, 0]
RIGHT = [(2, 2), (2, 4), (2, 4), (5, 6)]  # places that have the same word, and all up to the later end
BATCH = {name: jnp.asarray(array) for name, array in (("caption", CAPTIONS), ("n", COUNTS), ("combination", KINDS))}
LOGITS = np.random.default_rng(0).normal(size=(4, 5, len(WORDS))).astype(np.float32)


def task(spec=SPEC, **changes) -> Captioning:
    config = default_config("captioning")
    config.update_from_flattened_dict(changes)
    return Captioning(config, Examples("mine", spec))


def losses(rows) -> list[float]:
    """The cross-entropy of each word, and of each end that there is room for."""
    found = []
    for row in rows:
        for place in range(min(COUNTS[row] + 1, 5)):
            scores = LOGITS[row, place].astype(np.float64)
            found.append(np.log(np.exp(scores).sum()) - scores[CAPTIONS[row, place]])
    return found


def test_the_loss_is_the_mean_over_words_and_ends_and_not_over_padding():
    expected = losses(range(4))
    assert len(expected) == 3 + 5 + 3 + 5
    assert float(task().loss(jnp.asarray(LOGITS), BATCH)) == pytest.approx(np.mean(expected), rel=1e-5)
    longer = {"caption": jnp.pad(BATCH["caption"][:3], ((0, 0), (0, 2))), "n": BATCH["n"][:3]}
    padded = np.pad(LOGITS[:3], ((0, 0), (0, 2), (0, 0)), constant_values=7)
    assert float(task().loss(jnp.asarray(padded), longer)) == pytest.approx(np.mean(losses(range(3))), rel=1e-5)


def test_scores_are_those_of_a_loop_in_batches_with_padding():
    own, totals = task(), {}
    predictions = np.stack([WRITTEN, np.full(WRITTEN.shape, -0.1)], axis=-1).astype(np.float32)
    for rows, mask in (([0, 1, 2], [1.0, 1.0, 1.0]), ([3, 0, 0], [1.0, 0.0, 0.0])):
        batch = {name: array[np.array(rows)] for name, array in BATCH.items()}
        batch |= {"mask": jnp.array(mask), "prediction": jnp.asarray(predictions[np.array(rows)])}
        totals = train.added(totals, jax.jit(own.measure)(jnp.asarray(LOGITS[np.array(rows)]), batch))
    scores = own.scores(train.averages(totals))
    counted = np.arange(5) <= COUNTS[:, None]
    right = (LOGITS.argmax(axis=-1) == CAPTIONS)[counted]
    assert scores == {
        "loss": pytest.approx(np.mean(losses(range(4))), rel=1e-5),
        "next_word_accuracy": pytest.approx(right.mean()),
        "exact_match": pytest.approx(1 / 4),
        "word_accuracy": pytest.approx(sum(hits for hits, _ in RIGHT) / sum(places for _, places in RIGHT)),
        "exact_match_seen": pytest.approx(1 / 2),
        "word_accuracy_seen": pytest.approx(7 / 8),
        "exact_match_held_out": 0,
        "word_accuracy_held_out": pytest.approx(4 / 8),
    }
    rows = own.compared(predictions, {"caption": CAPTIONS, "combination": KINDS})
    assert [row["exact_match"] for row in rows] == EXACT
    assert [float(row["word_accuracy"]) for row in rows] == pytest.approx([a / b for a, b in RIGHT], abs=1e-6)
    assert rows[1]["combination"] == "held_out"
    assert own.rows(predictions)[1] == {"caption": "a shirt bag", "probability": pytest.approx(np.exp(-0.6))}
    assert own.targets({"caption": CAPTIONS})[3] == {"true caption": "bag a bag a shirt"}


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        (
            {"image": SPEC["image"]},
            {},
            "captioning needs an image and one text that is its caption; it has image (image)",
        ),
        (
            {**SPEC, "caption": data.Field("text", (5,), "int32", count="n")},
            {},
            "the words of caption are not known; give class_names",
        ),
        (SPEC, {"label_smoothing": 1.0}, "label_smoothing=1.0 must be at least 0 and less than 1"),
        (SPEC, {"data.test_time": "mirror"}, "data.test_time='mirror' has no meaning for captioning"),
    ],
)
def test_a_wrong_config_is_named(spec, changes, message):
    with pytest.raises(UsageError) as caught:
        task(spec, **changes)
    assert message in str(caught.value)


def dots(split: str, **_) -> data.Dataset:
    """One dark dot or two light ones in the left half: "dot" or "two dots"."""
    generator = np.random.default_rng(len(split))
    numbers = generator.integers(1, 3, 64)
    images = np.zeros((64, 8, 8, 1), np.uint8)
    for image, number in zip(images, numbers, strict=True):
        for row in generator.permutation(4)[:number]:
            image[2 * row, generator.integers(0, 4)] = 127 * number + 1
    captions = np.array([[2, 0, 0] if number == 1 else [3, 4, 0] for number in numbers], np.int32)
    fields = {
        "image": images,
        "caption": captions,
        "n": numbers.astype(np.int32),
        "many": np.eye(2, dtype=np.uint8)[numbers - 1],
    }
    words = ("<padding>", "<unknown>", "dot", "two", "dots")
    spec = {
        "image": "image",
        "caption": data.Field("text", count="n", class_names=words),
        "n": "count",
        "many": data.Field("labels", class_names=("one", "two")),
    }
    return data.Dataset("dots", split, fields, spec)


def config(**changes):
    found = default_config("captioning")
    found.data.name, found.input_shape = f"{__file__}:dots", (8, 8, 1)
    found.model.name, found.model.width = "captioner", 0.25
    found.model.options = {"backbone": "small_cnn", "coarsest": 2, "length": 3, "features": 8, "blocks": 1, "window": 2}
    found.batch_size, found.epochs, found.evaluate_every = 16, 60, "30 epochs"
    found.optimizer.name, found.optimizer.learning_rate = "adam", 0.01
    found.update_from_flattened_dict(changes)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("captioning") / "run"
    runs.train(config(), directory)
    return directory


def test_a_captioner_learns_and_its_report_shows_where_it_looks(run):
    scores = json.loads((run / "result.json").read_text())["scores"]
    assert scores["test/exact_match"] > 0.9
    assert {"test/exact_match_one", "test/word_accuracy_two"} <= scores.keys()
    page = (run / "report.html").read_text()
    assert "the attention of the network for each word" in page
    assert "captions right" in page
    assert sorted(path.name for path in (run / "figures").iterdir() if "caption" in path.name)


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_bits(run, tmp_path):
    train_interrupted(config(), tmp_path / "run")
    results = [json.loads((folder / "result.json").read_text()) for folder in (run, tmp_path / "run")]
    assert results[0] == results[1]


def test_own_images_get_captions_a_table_and_pictures(run, tmp_path, capsys):
    found = dots("test")
    for number in range(3):
        Image.fromarray(found.images[number, ..., 0]).save(tmp_path / f"{number}.png")
    options = {"output": str(tmp_path / "out"), "checkpoint": "latest"}
    runs.predict(config(), run, images=[str(tmp_path / f"{n}.png") for n in range(3)], **options)
    with (tmp_path / "out/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = found.spec["caption"].class_names
    truth = [" ".join(names[token] for token in found.fields["caption"][number] if token) for number in range(3)]
    assert [row["caption"] for row in rows] == truth
    assert all(0 < float(row["probability"]) <= 1 for row in rows)
    assert truth[0] in capsys.readouterr().out
    with Image.open(tmp_path / "out/0.png") as picture:
        assert picture.size[0] > 100


def test_the_predictions_of_the_test_set_are_compared_with_the_truth(run, tmp_path):
    runs.evaluate(config(), run, checkpoint="latest", output=str(tmp_path / "test.csv"))
    with (tmp_path / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    exact = np.mean([row["caption"] == row["true caption"] for row in rows])
    assert exact == pytest.approx(json.loads((run / "result.json").read_text())["scores"]["test/exact_match"])
    assert {row["many"] for row in rows} == {"one", "two"}


def test_a_word_is_not_explained_as_a_class_is(run, tmp_path):
    with pytest.raises(UsageError, match="a word has a score at each place of a caption"):
        runs.explain(config(), run, images=(), methods=(), target="dot", output=str(tmp_path), checkpoint="latest")


def test_an_ensemble_is_refused_in_one_line(tmp_path):
    with pytest.raises(UsageError, match="what Captioning networks write has no average; use ensemble=1"):
        runs.train(config(ensemble=2), tmp_path / "run")
