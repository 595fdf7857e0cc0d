"""The page of a sweep, written from its folder."""

import json
from pathlib import Path

from ml_collections import ConfigDict

from cnn_jax.metrics import Metric
from cnn_jax.sweep import space
from cnn_jax.sweep.page import curve_of, write_page
from cnn_jax.sweep.settings import Sweep
from cnn_jax.sweep.table import TrialRow, with_spreads
from cnn_jax.sweep.trial import trial_directory


def test_a_page_shows_the_curves_that_trials_have_written(tmp_path: Path) -> None:
    config = ConfigDict({"model": {"name": "lenet_5"}, "data": {"name": "digits"}, "rate": 0.1})
    part = space.sweep("rate", [0.1, 0.2])
    sweep = Sweep(config=config, space=part, train="nowhere:train", metric=Metric("test/loss", "lower"), points=2)
    folder = trial_directory(tmp_path, 1)
    folder.mkdir(parents=True)
    lines = [{"step": n, "epoch": n, "split": split, "loss": 1 / n} for n in (1, 2) for split in ("train", "test")]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert curve_of(folder, "test/loss") == [(1, 1.0), (2, 0.5)]
    rows = [
        TrialRow(n, n, "complete", score, overrides={"rate": rate}) for n, score, rate in [(0, 0.7, 0.1), (1, 0.5, 0.2)]
    ]
    text = write_page(sweep, tmp_path, with_spreads(rows)).read_text()
    assert "Sweep: lenet_5 on digits" in text
    assert '"best":1' in text  # lower is better
    assert '"curve":[[1,1.0],[2,0.5]]' in text
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "ep')  # a trial that is still writing the line
    assert curve_of(folder, "test/loss") == []
