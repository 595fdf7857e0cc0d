"""The example files of docs/extending.md, in an empty folder."""

import json
import re
import runpy
from pathlib import Path

import pytest

from cnn_jax.config import load_config
from cnn_jax.tasks import run
from tests.launch.process import ROOT

FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.S))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_every_row_of_the_table_has_an_example() -> None:
    text = (ROOT / "docs/extending.md").read_text()
    rows = re.findall(r"^\| \[(.*?)\]\(#(.*?)\)", text, re.M)
    assert len(rows) == len(FILES) == 6
    for title, anchor in rows:
        assert f"## {title.capitalize()}\n" in text
        assert anchor == title.replace(" ", "-")


@pytest.mark.parametrize("name", ["my_layer.py", "my_sampler.py"])
def test_examples_hold_what_they_assert(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cnn_jax.sweep import samplers

    monkeypatch.setattr(samplers, "SAMPLERS", dict(samplers.SAMPLERS))
    monkeypatch.setattr(samplers, "LEARNING", dict(samplers.LEARNING))
    runpy.run_path(str(folder / name))


@pytest.mark.parametrize(("name", "metric"), [("my_task.py", "loss"), ("my_metric.py", "confident")])
def test_task_metric_network_layer_and_data_set_are_trained_together(name: str, metric: str, folder: Path) -> None:
    run.train(load_config(name), folder / "run")
    scores = json.loads((folder / "run/result.json").read_text())["scores"]
    assert 0 <= scores[f"test/{metric}"] <= 1
    assert "norm1" in (folder / "run/report.html").read_text()
