"""A complete run of ``launch.py --mode=sweep``."""

import json
import runpy
from pathlib import Path

from cnn_jax import config as configs
from cnn_jax.sweep.table import read_table
from tests.launch.process import launch

SMOKE = "--config=configs/lenet5_digits.py:smoke"


def test_a_trial_equals_the_same_run_alone(trained: Path, tmp_path: Path) -> None:
    sweep = ["--mode=sweep", f"--workdir={tmp_path / 'sweep'}"]
    rates = "--sweep=optimizer.learning_rate=0.1,1e9"  # the rate of the config, and one that diverges
    done = launch(SMOKE, *sweep, rates, "--workers=1")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_table(tmp_path / "sweep")
    assert [row.state for row in rows] == ["complete", "failed"]
    assert "the loss is" in rows[1].reason
    assert "\n" not in rows[1].reason

    trial = tmp_path / "sweep" / "trials" / "0000"
    assert (trial / "result.json").read_bytes() == (trained / "result.json").read_bytes()
    assert (trial / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()
    assert rows[0].score == json.loads((trial / "result.json").read_text())["scores"]["validation/accuracy"]
    assert {path.name for path in trained.iterdir()} <= {path.name for path in trial.iterdir()}

    best = runpy.run_path(str(tmp_path / "sweep" / "best.py"))["get_config"]()
    assert configs.differences(best, configs.read_run_config(trained)) == []

    again = launch(*sweep)
    assert again.returncode == 0
    assert "1 complete, 1 failed" in again.stdout
    other = launch(SMOKE, *sweep, rates, "--config.epochs=9")
    assert other.returncode == 2
    assert "epochs: 2 -> 9" in other.stderr
