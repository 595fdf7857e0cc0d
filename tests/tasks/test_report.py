"""The report of a run: what it shows, and in which order."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict

from cnn_jax import data, nn, train
from cnn_jax.report.page import Page, Section
from cnn_jax.tasks import Classification, default_config, report
from cnn_jax.tasks.network import Ensemble
from cnn_jax.tasks.sets import known_examples

SHAPE = (8, 8, 1)
NETWORKS = 11


class Unsorted(Ensemble):
    """A network whose layers are in another order than their names."""

    def create(self, key: jax.Array) -> nn.Sequence:
        rngs = nnx.Rngs(key)
        layers = {"flatten": nn.flatten, "z1": nn.Linear(64, 4, rngs=rngs), "a2": nn.Linear(4, 3, rngs=rngs)}
        return nn.Sequence({**layers, "output": jax.nn.log_softmax})


def config() -> ConfigDict:
    result = default_config()
    result.input_shape, result.ensemble, result.data.name = SHAPE, NETWORKS, "mine"
    return result


def examples(split: str, seed: int) -> data.Dataset:
    images = np.random.default_rng(seed).integers(0, 256, (6, *SHAPE), dtype=np.uint8)
    spec = {"image": data.Field("image"), "label": data.Field("label", class_names=("cat", "dog", "owl"))}
    return data.Dataset("mine", split, {"image": images, "label": np.arange(6, dtype=np.int32) % 3}, spec, "6 images")


def sections(directory: Path, records: list[dict]) -> dict[str, Section]:
    """The sections of the report of a network that has not been trained, with these lines of ``metrics.jsonl``."""
    sets = {role: examples(role, seed) for seed, role in enumerate(("train", "test"))}
    settings = config()
    network = Unsorted(
        settings, Classification(settings, known_examples(sets["train"])), data.Preprocess(SHAPE, (0.5,), (0.5,))
    )
    state = jax.jit(lambda: network.init(jax.random.key(0), train.create_optimizer("sgd", 0.1)))()
    scores = {"test/accuracy": 0.5, **{f"test/accuracy_{n}": n / 100 for n in range(1, NETWORKS + 1)}}
    scores = dict(sorted(scores.items()))  # as they come from a compiled function
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
    environment = {"packages": {}, "devices": [], "commit": "", "python": "", "cpu_count": 1, "command": []}
    (directory / "environment.json").write_text(json.dumps(environment))
    pages: list[Page] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Page, "write", lambda page, workdir: pages.append(page) or Path(workdir))
        report.write(directory, network, train.Trained(state, scores), sets)
    return {section.title: section for section in pages[0].sections}


OLD = {"step": 1, "epoch": 1.0, "split": "train", "accuracy": 0.5, "loss": 1.0}  # of a version without norms
NEW = {
    "step": 2,
    "epoch": 2.0,
    "split": "train",
    "accuracy": 0.5,
    "loss": 1.0,
    "learning_rate": 0.1,
    "gradient_norm": 3,
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Section]:
    return sections(tmp_path_factory.mktemp("report"), [OLD, NEW])


def test_what_was_found_where_the_data_are_is_shown_once(shown: dict[str, Section]) -> None:
    assert shown["Data"].code == "6 images"


def test_the_learning_rate_and_norms_are_shown_where_they_were_recorded(
    shown: dict[str, Section], tmp_path: Path
) -> None:
    rate, norm = shown["Optimisation"].figure.axes
    assert [axes.get_title(loc="left") for axes in (rate, norm)] == ["learning rate", "gradient norm"]
    assert rate.lines[0].get_xydata().tolist() == [[2.0, 0.1]]
    assert "over the networks" in shown["Optimisation"].caption
    assert "Optimisation" not in sections(tmp_path, [OLD])


def test_layers_are_shown_in_the_order_of_the_network_and_outputs_with_their_names(shown: dict[str, Section]) -> None:
    figure = shown["Through the network"].figure
    titles = [text.get_text() for text in figure.texts if text.get_weight() == "bold"]
    assert titles == ["input", "flatten", "z1", "a2", "output"]
    assert [label.get_text() for label in figure.axes[-1].get_xticklabels()] == ["cat", "dog", "owl"]
    names = [row[0].splitlines()[0] for row in shown["Network"].table.rows]
    assert names == ["flatten", "z1", "a2", "output", "total"]


def test_the_networks_of_an_ensemble_are_shown_in_the_order_of_their_numbers(shown: dict[str, Section]) -> None:
    rows = shown["Ensemble"].table.rows
    numbers = range(1, NETWORKS + 1)
    assert rows[:NETWORKS] == [[f"network {n}", f"{n}.00%"] for n in numbers]
    assert rows[NETWORKS:] == [["mean of the networks", "6.00%"], ["averaged prediction", "50.00%"]]
