"""A trivial training function, for tests of sweeps."""

import ctypes
import json
import os
import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cnn_jax.metrics import Metric
from cnn_jax.runtime.files import write_json

METRIC = Metric("validation/accuracy", "higher", "%")


def default_config() -> ConfigDict:
    return ConfigDict(
        {
            "experiment": "trivial",
            "seed": 0,
            "rate": 0.1,
            "other": 0.5,
            "kind": "a",
            "evaluations": 1,
            "pause": 0.0,  # seconds, before each evaluation
            "raises": "",
        }
    )


def score(config: ConfigDict) -> float:
    """The score; it is best at rate 0.3, other 0.7."""
    return 1.0 - (config.rate - 0.3) ** 2 - (config.other - 0.7) ** 2 + 0.001 * config.seed


def train(config: ConfigDict, directory: Path, *, report: bool = True, on_evaluation: Any) -> None:
    """Continues after the last evaluation in ``metrics.jsonl``."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config.to_dict()))
    with open(directory / "starts.txt", "a") as starts:
        starts.write(f"{os.getpid()}\n")
    with open(directory / "metrics.jsonl", "a", buffering=1) as metrics:
        done = len((directory / "metrics.jsonl").read_text().splitlines())
        for evaluation in range(done + 1, config.evaluations + 1):
            time.sleep(config.pause)
            if config.raises:
                raise ValueError(config.raises)
            if config.kind == "exits":
                os._exit(0)
            if config.kind == "crashes":
                ctypes.string_at(0)
            value = score(config) * evaluation / config.evaluations
            row = {"step": evaluation, "epoch": evaluation, "split": "validation", "accuracy": value}
            metrics.write(json.dumps(row) + "\n")
            if evaluation < config.evaluations:
                on_evaluation(evaluation, {"validation/accuracy": value})
    write_json(directory / "result.json", {"scores": {"validation/accuracy": score(config)}})
    if report:
        (directory / "report.html").write_text("")
